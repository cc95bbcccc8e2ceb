"""Studies as hospitals send them, to arrays; free of torch."""
