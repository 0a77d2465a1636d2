"""Clustering of embeddings, and measures of its quality without labels."""
