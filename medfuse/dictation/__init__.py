"""Dictation: a recording in, the note that was spoken in it, each word with its time, out."""
