"""Embeddings of audio files: computed, stored, cached; and baselines without a network."""
