"""From a cohort table to a checkpoint with its metrics."""
