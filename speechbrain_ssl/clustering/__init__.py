"""Clustering of embeddings, and what can be said of clusters without labels."""
