"""Explanations against known truth: a bundle in, figures of how far its maps can be trusted out."""
