"""Normalize: embeddings of length 1."""

from __future__ import annotations

from sentence_embedder.features import Features
from sentence_embedder.formats import NormalizeConfig
from sentence_embedder.models.module import Module
from sentence_embedder.similarity import normalize_embeddings


class Normalize(Module):
    """Scales each embedding to length 1, so that the dot product is the cosine similarity.

    Args:
        module_input_name: The feature that is read, shape (…, dim).
        module_output_name: The feature that is written; by default the same.
    """

    config_class = NormalizeConfig
    config: NormalizeConfig

    def __init__(
        self, module_input_name: str = "sentence_embedding", module_output_name: str | None = None
    ) -> None:
        super().__init__(
            NormalizeConfig(
                module_input_name=module_input_name,
                module_output_name=module_output_name or module_input_name,
            )
        )

    @classmethod
    def from_config(cls, config: NormalizeConfig) -> Normalize:
        """The module with these settings."""
        module = cls()
        module.config = config
        return module

    def forward(self, features: Features) -> Features:
        """Scales ``sentence_embedding``, or the feature that the settings name."""
        embedding = features[self.config.module_input_name]
        return {**features, self.config.module_output_name: normalize_embeddings(embedding)}
