"""WeightedLayerPooling: token embeddings out of several layers of a transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sentence_embedder.argument_names import also_named
from sentence_embedder.features import Features
from sentence_embedder.formats import WeightedLayerPoolingConfig
from sentence_embedder.models.module import Module


class WeightedLayerPooling(Module):
    """The weighted mean of the upper layers' token embeddings, with a learnt weight a layer.

    The Transformer before it must give all layers: load it with ``config_args={"output_hidden_states": True}``.

    Args:
        word_embedding_dimension: Width of the token embeddings.
        num_hidden_layers: How many layers the transformer has; its embedding layer comes before them.
        layer_start: The lowest layer that counts; 0 is the embedding layer.
        layer_weights: A weight for each layer that counts, shape (num_hidden_layers + 1 - layer_start,); by
            default 1.
    """

    config_class = WeightedLayerPoolingConfig
    config: WeightedLayerPoolingConfig

    @also_named(embedding_dimension="word_embedding_dimension")
    def __init__(
        self,
        word_embedding_dimension: int,
        num_hidden_layers: int = 12,
        layer_start: int = 4,
        layer_weights: Tensor | None = None,
    ) -> None:
        super().__init__(
            WeightedLayerPoolingConfig(
                word_embedding_dimension=word_embedding_dimension,
                num_hidden_layers=num_hidden_layers,
                layer_start=layer_start,
            )
        )
        count = num_hidden_layers + 1 - layer_start
        if count < 1:
            raise ValueError(f"layer_start: expected at most {num_hidden_layers}, found {layer_start}")
        weights = torch.ones(count) if layer_weights is None else layer_weights.detach().clone().float()
        self.layer_weights = nn.Parameter(weights)

    @classmethod
    def from_config(cls, config: WeightedLayerPoolingConfig) -> WeightedLayerPooling:
        """The module with these settings."""
        module = cls(config.word_embedding_dimension, config.num_hidden_layers, config.layer_start)
        module.config = config
        return module

    def forward(self, features: Features) -> Features:
        """Makes ``token_embeddings`` (texts, tokens, dim) out of ``all_layer_embeddings``.

        Raises:
            KeyError: The module before it gives one layer only.
        """
        if "all_layer_embeddings" not in features:
            raise KeyError(
                "WeightedLayerPooling: expected all_layer_embeddings, which a Transformer loaded with "
                'config_args={"output_hidden_states": True} makes'
            )
        layers = torch.stack(tuple(features["all_layer_embeddings"])[self.config.layer_start :])
        weights = self.layer_weights.view(-1, 1, 1, 1)
        return {**features, "token_embeddings": (weights * layers).sum(dim=0) / self.layer_weights.sum()}

    def get_word_embedding_dimension(self) -> int:
        """Width of the token embeddings it makes."""
        return self.config.word_embedding_dimension

    def get_embedding_dimension(self) -> int:
        """The same, under its newer name."""
        return self.get_word_embedding_dimension()
