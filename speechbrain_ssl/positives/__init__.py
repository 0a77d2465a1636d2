"""Positive sampling: positives beyond two crops of the same utterance."""
