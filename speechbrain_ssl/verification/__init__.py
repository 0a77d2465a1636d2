"""Trials, scoring and metrics of speaker verification."""
