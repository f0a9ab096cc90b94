"""Real clients of sentence-transformers, doing their real work: on it, and on this package."""
