"""Studies that arrived in; what a reader made of each, kept across restarts, out."""
