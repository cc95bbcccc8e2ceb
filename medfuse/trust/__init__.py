"""Arithmetic on a model's outputs that training and serving share; free of torch."""
