"""Embeddings of audio files: extraction, storage, caching, baselines."""
