"""BoW: one dimension a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from sentence_embedder.features import Features
from sentence_embedder.formats import BoWConfig
from sentence_embedder.models.module import Module, derived
from sentence_embedder.models.tokenizer import WhitespaceTokenizer
from sentence_embedder.models.word_weights import weights_of


class BoW(Module):
    """A bag of words: how often each word of a vocabulary occurs in a text, times its weight.

    It has no parameters, and stands at the start of a chain.

    Args:
        vocab: The words, in the order of the dimensions; of equal ones the first counts.
        word_weights: Word → weight; words are also looked up in lower case.
        unknown_word_weight: The weight of words that have none.
        cumulative_term_frequency: Whether a word counts each time that it occurs, rather than once.
    """

    config_class = BoWConfig
    config: BoWConfig

    max_seq_length: int | None = None
    """None: texts are never cut."""

    def __init__(
        self,
        vocab: Sequence[str],
        word_weights: Mapping[str, float] | None = None,
        unknown_word_weight: float = 1,
        cumulative_term_frequency: bool = True,
    ) -> None:
        super().__init__(
            BoWConfig(
                vocab=tuple(dict.fromkeys(vocab)),
                word_weights=dict(word_weights or {}),
                unknown_word_weight=unknown_word_weight,
                cumulative_term_frequency=cumulative_term_frequency,
            )
        )
        self.tokenizer = WhitespaceTokenizer(self.config.vocab, stop_words=())
        self.weights = weights_of(self.config)

    @classmethod
    def from_config(cls, config: BoWConfig) -> BoW:
        """The module with these settings."""
        module = cls(
            config.vocab, config.word_weights, config.unknown_word_weight, config.cumulative_term_frequency
        )
        module.config = config
        return module

    def tokenize(self, texts: Sequence[str]) -> Features:
        """The embeddings themselves, ``sentence_embedding`` (texts, words of the vocabulary), on the CPU."""
        counts = torch.zeros(len(texts), len(self.config.vocab))
        for row, text in zip(counts, texts, strict=True):
            ids = torch.tensor(self.tokenizer.tokenize(text), dtype=torch.int64)
            row.index_add_(0, ids, torch.ones(len(ids)))
        if not self.config.cumulative_term_frequency:
            counts.clamp_(max=1)
        return {"sentence_embedding": counts * self.weights}

    def forward(self, features: Features) -> Features:
        """The features as they are: ``tokenize`` has made the embedding."""
        return features

    def get_sentence_embedding_dimension(self) -> int:
        """How many words the vocabulary has."""
        return len(self.config.vocab)

    def get_embedding_dimension(self) -> int:
        """The same, under its newer name."""
        return self.get_sentence_embedding_dimension()

    @derived
    def sentence_embedding_dimension(self) -> int:
        """How many words the vocabulary has."""
        return self.get_sentence_embedding_dimension()

    def extra_repr(self) -> str:
        """The settings, inside the parentheses of ``repr``, without the words."""
        return f"{len(self.config.vocab)} words, cumulative={self.config.cumulative_term_frequency}"
