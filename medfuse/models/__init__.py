"""The fused network and its parts, in torch."""
