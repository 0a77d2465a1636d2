"""Pseudo-labels: which of them to trust, and what to do with the rest."""
