"""Self-supervised objectives: pure losses on embeddings, one a file."""
