"""Ways to fuse the modalities' tokens: one file each, one table."""
