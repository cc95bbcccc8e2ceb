"""Leaks: a cohort in, what makes a model look good for the wrong reason, and remedies, out."""
