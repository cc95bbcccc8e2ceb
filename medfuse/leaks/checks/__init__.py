"""One file a check, each from what was examined to its findings; the table is in `check.py`."""
