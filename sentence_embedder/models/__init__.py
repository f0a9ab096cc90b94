"""The modules that a model is a chain of."""

from sentence_embedder.models.dense import Dense
from sentence_embedder.models.dropout import Dropout
from sentence_embedder.models.layer_norm import LayerNorm
from sentence_embedder.models.normalize import Normalize
from sentence_embedder.models.pooling import Pooling
from sentence_embedder.models.transformer import Transformer

__all__ = ["Dense", "Dropout", "LayerNorm", "Normalize", "Pooling", "Transformer"]
