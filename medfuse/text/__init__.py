"""Findings text without torch: words and numbers, thresholds, the loop that writes a sentence."""
