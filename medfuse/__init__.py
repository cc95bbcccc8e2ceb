"""Fuse a patient's images, notes and voice into one prediction with its evidence."""

__version__ = "0.1.0"
