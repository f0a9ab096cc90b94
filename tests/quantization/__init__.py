"""Embeddings in fewer bits, and search among them."""
