"""Dropout of values of the embedding, in training."""

from __future__ import annotations

from torch import nn

from sentence_embedder.features import Features
from sentence_embedder.formats import DropoutConfig
from sentence_embedder.models.module import Module


class Dropout(Module):
    """Zeroes a share of the embedding's values in training mode; does nothing otherwise.

    Args:
        dropout: The share, 0 to 1.
    """

    config_class = DropoutConfig
    config: DropoutConfig

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__(DropoutConfig(dropout=dropout))
        self.dropout_layer = nn.Dropout(dropout)

    @classmethod
    def from_config(cls, config: DropoutConfig) -> Dropout:
        """The module with these settings."""
        module = cls(config.dropout)
        module.config = config
        return module

    def forward(self, features: Features) -> Features:
        """Drops values of ``sentence_embedding`` (texts, dim)."""
        return {**features, "sentence_embedding": self.dropout_layer(features["sentence_embedding"])}
