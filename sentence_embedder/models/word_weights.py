"""WordWeights: a weight for each word, such as its rarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sentence_embedder.features import Features
from sentence_embedder.formats import WordWeightsConfig
from sentence_embedder.models.module import Module


def weights_of(config: WordWeightsConfig) -> Tensor:
    """The weight of each word of the vocabulary, shape (words,): as it is spelt, or else in lower case."""
    known, unknown = config.word_weights, config.unknown_word_weight
    return torch.tensor([known.get(word, known.get(word.lower(), unknown)) for word in config.vocab])


class WordWeights(Module):
    """Multiplies token embeddings by the weight of their word; a mean that follows divides by the sum of weights.

    Args:
        vocab: The words, in the order of their token ids.
        word_weights: Word → weight; words are also looked up in lower case.
        unknown_word_weight: The weight of words that have none.
    """

    config_class = WordWeightsConfig
    config: WordWeightsConfig

    weights: Tensor

    def __init__(
        self, vocab: Sequence[str], word_weights: Mapping[str, float], unknown_word_weight: float = 1
    ) -> None:
        super().__init__(
            WordWeightsConfig(
                vocab=tuple(vocab), word_weights=dict(word_weights), unknown_word_weight=unknown_word_weight
            )
        )
        # The settings say it all: it is no part of what is saved as weights.
        self.register_buffer("weights", weights_of(self.config), persistent=False)

    @classmethod
    def from_config(cls, config: WordWeightsConfig) -> WordWeights:
        """The module with these settings."""
        module = cls(config.vocab, config.word_weights, config.unknown_word_weight)
        module.config = config
        return module

    def forward(self, features: Features) -> Features:
        """Weights ``token_embeddings``, and adds ``token_weights_sum`` (texts,)."""
        embeddings = features["token_embeddings"]
        weights = self.weights[features["input_ids"]] * features["attention_mask"].float()
        return {
            **features,
            "token_embeddings": embeddings * weights.unsqueeze(-1).to(embeddings.dtype),
            "token_weights_sum": weights.sum(dim=1),
        }

    def extra_repr(self) -> str:
        """The settings, inside the parentheses of ``repr``, without the words."""
        return f"{len(self.config.vocab)} words, unknown_word_weight={self.config.unknown_word_weight}"
