"""Attribution without torch: a network that gives gradients in, explanations of its answers out."""
