"""Self-supervised objectives: pure losses on embeddings, one per file."""
