"""From a checkpoint to a checked bundle."""
