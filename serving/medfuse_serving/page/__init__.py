"""The page: a study opened or given by hand, shown as it was read, and its answer beside it."""
