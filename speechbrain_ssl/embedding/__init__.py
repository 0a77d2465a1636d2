"""Embeddings of audio files: extraction, storage, caching, and untrained baselines."""
