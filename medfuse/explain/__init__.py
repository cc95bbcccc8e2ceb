"""Captum attributions of a checkpoint: the reference for what a bundle says of itself."""
