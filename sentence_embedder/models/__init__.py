"""The modules that a model is a chain of."""

from sentence_embedder.models.bow import BoW
from sentence_embedder.models.clip_model import CLIPModel
from sentence_embedder.models.cnn import CNN
from sentence_embedder.models.dense import Dense
from sentence_embedder.models.dropout import Dropout
from sentence_embedder.models.layer_norm import LayerNorm
from sentence_embedder.models.lstm import LSTM
from sentence_embedder.models.normalize import Normalize
from sentence_embedder.models.pooling import Pooling
from sentence_embedder.models.router import Asym, Router
from sentence_embedder.models.static_embedding import StaticEmbedding
from sentence_embedder.models.transformer import Transformer
from sentence_embedder.models.weighted_layer_pooling import WeightedLayerPooling
from sentence_embedder.models.word_embeddings import WordEmbeddings
from sentence_embedder.models.word_weights import WordWeights

__all__ = [
    "CNN",
    "LSTM",
    "Asym",
    "BoW",
    "CLIPModel",
    "Dense",
    "Dropout",
    "LayerNorm",
    "Normalize",
    "Pooling",
    "Router",
    "StaticEmbedding",
    "Transformer",
    "WeightedLayerPooling",
    "WordEmbeddings",
    "WordWeights",
]
