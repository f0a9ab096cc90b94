"""LayerNorm: layer normalisation of the embedding."""

from __future__ import annotations

from torch import nn

from sentence_embedder.features import Features
from sentence_embedder.formats import LayerNormConfig
from sentence_embedder.models.module import Module


class LayerNorm(Module):
    """Layer normalisation with learnt scale and shift (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

    Args:
        dimension: Width of the embedding.
    """

    config_class = LayerNormConfig
    config: LayerNormConfig

    def __init__(self, dimension: int) -> None:
        super().__init__(LayerNormConfig(dimension=dimension))
        self.norm = nn.LayerNorm(dimension)

    @classmethod
    def from_config(cls, config: LayerNormConfig) -> LayerNorm:
        """The module with these settings."""
        module = cls(config.dimension)
        module.config = config
        return module

    def forward(self, features: Features) -> Features:
        """Normalises ``sentence_embedding`` (texts, dim)."""
        return {**features, "sentence_embedding": self.norm(features["sentence_embedding"])}

    def get_sentence_embedding_dimension(self) -> int:
        """Width of the output."""
        return self.config.dimension

    def get_embedding_dimension(self) -> int:
        """The same, under its newer name."""
        return self.get_sentence_embedding_dimension()
