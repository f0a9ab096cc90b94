"""Embeddings in fewer bits, and search among them."""

from sentence_embedder.quantization.index_search import semantic_search_faiss, semantic_search_usearch
from sentence_embedder.quantization.precision import quantize_embeddings

__all__ = ["quantize_embeddings", "semantic_search_faiss", "semantic_search_usearch"]
