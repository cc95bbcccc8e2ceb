"""A search for settings: a range for some of them in; the best on validation studies out."""
