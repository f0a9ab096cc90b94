"""Ranking losses that a guide keeps from taking right texts for wrong ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from sentence_embedder.features import Features, to_device
from sentence_embedder.losses.embedding_loss import EmbeddingLoss
from sentence_embedder.losses.gradient_cache import mini_batches, row_wise_loss
from sentence_embedder.losses.ranking_losses import share_of_ranking
from sentence_embedder.similarity import cos_sim

MarginStrategy = Literal["absolute", "relative"]

_ROUNDING = 1e-6
"""How far equal similarities may be apart in one matrix product."""


class GISTEmbedLoss(EmbeddingLoss):
    """``MultipleNegativesRankingLoss`` in which a guide, a model that is good already, says what is no negative
    (Solatorio 2024, https://arxiv.org/abs/2402.16829).

    -log softmax(s / temperature)ᵢ over the cosine similarities of the anchor to all positives and negatives, to all
    other anchors, and of its positive to all other positives; without those that the guide finds more similar than
    the anchor and its positive, less a margin. Labels mean nothing.

    Args:
        model: The model that is trained.
        guide: The other model.
        temperature: What similarities are divided by.
        margin_strategy: ``"absolute"``: the margin is what is subtracted from the guide's similarity of anchor and
            positive; ``"relative"``: it is the share of it that is.
        margin: The margin.
        contrast_anchors: Whether other anchors are negatives.
        contrast_positives: Whether other positives are, for the positive.
        gather_across_devices: Whether the rows of all processes that train together are each other's negatives.

    Raises:
        ValueError: There is no such strategy, or a model has no tokenizer of transformers.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        temperature: float = 0.01,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        *,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(model)
        self.gather_across_devices = gather_across_devices
        if margin_strategy not in ("absolute", "relative"):
            raise ValueError(f"margin_strategy: expected 'absolute' or 'relative', found {margin_strategy!r}")
        self._tokenizer = _tokenizer_of(model)
        self.must_retokenize = self._tokenizer.get_vocab() != _tokenizer_of(guide).get_vocab() or _limit_of(
            guide
        ) < _limit_of(model)
        self.guide = guide
        self.temperature = temperature
        self.margin_strategy = margin_strategy
        self.margin = margin
        self.contrast_anchors = contrast_anchors
        self.contrast_positives = contrast_positives

    def targets(self, sentence_features: Sequence[Features], labels: Any) -> list[Tensor]:
        """The guide's embeddings of each column."""
        del labels
        is_trained = self.guide.training
        self.guide.eval()  # dropout would change its mind from batch to batch
        try:
            with torch.no_grad():
                return [self._guided(features) for features in sentence_features]
        finally:
            self.guide.train(is_trained)  # it may be the model itself

    def _guided(self, features: Features) -> Tensor:
        return self.guide(self._for_guide(features))["sentence_embedding"]  # type: ignore[no-any-return]

    def _for_guide(self, features: Features) -> Features:
        """The Features for the guide: of the same texts, if it has another tokenizer or a lower limit."""
        if not self.must_retokenize:
            return features
        texts = self._tokenizer.batch_decode(features["input_ids"], skip_special_tokens=True)
        tokenized: Features = self.guide.tokenize(texts)  # type: ignore[operator]
        return to_device(tokenized, features["input_ids"].device)

    def of_embeddings(self, embeddings: list[Tensor], targets: list[Tensor]) -> Tensor:
        """The loss of anchors, positives and any number of columns of negatives."""
        return self.of_rows(embeddings, targets, slice(None))

    def of_rows(self, embeddings: list[Tensor], targets: list[Tensor], rows: slice) -> Tensor:
        """What some anchors and positives add to the loss.

        Raises:
            ValueError: There are no positives.
        """
        if len(embeddings) < 2:
            raise ValueError(f"expected anchors and positives, two columns or more, found {len(embeddings)}")
        pairs = [(0, candidates) for candidates in range(1, len(embeddings))]
        pairs[1:1] = [(0, 0)] * self.contrast_anchors + [(1, 1)] * self.contrast_positives
        scores = torch.cat([cos_sim(embeddings[one][rows], embeddings[other]) for one, other in pairs], dim=1)
        guided = torch.cat([cos_sim(targets[one][rows], targets[other]) for one, other in pairs], dim=1)
        right = torch.arange(len(embeddings[0]), device=guided.device)[rows].unsqueeze(-1)
        # A candidate that is the positive again is not above the limit.
        too_similar = guided > self._limit(guided.gather(1, right)) + _ROUNDING
        scores = scores.masked_fill(too_similar.scatter(1, right, False), float("-inf"))
        return share_of_ranking(scores / self.temperature, rows, len(embeddings[0]))

    def _limit(self, positive_similarity: Tensor) -> Tensor:
        """The similarities beyond which a candidate is too similar to be wrong."""
        if self.margin_strategy == "absolute":
            return positive_similarity - self.margin
        return positive_similarity - positive_similarity.abs() * self.margin

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "guide": self.guide,
            "temperature": self.temperature,
            "margin_strategy": self.margin_strategy,
            "margin": self.margin,
            "contrast_anchors": self.contrast_anchors,
            "contrast_positives": self.contrast_positives,
        }


def _tokenizer_of(model: nn.Module) -> Any:
    tokenizer = getattr(model, "tokenizer", None)
    if not hasattr(tokenizer, "batch_decode"):
        raise ValueError(
            f"expected models with a tokenizer of transformers, found {type(tokenizer).__name__}: what the guide "
            "reads is decoded from what the model reads"
        )
    return tokenizer


def _limit_of(model: nn.Module) -> float:
    """The longest input in tokens."""
    limit = getattr(model, "max_seq_length", None)
    return float("inf") if limit is None else limit


class CachedGISTEmbedLoss(GISTEmbedLoss):
    """``GISTEmbedLoss`` with the gradients of the whole batch in the memory of a small one; see ``cached_loss``.

    Args:
        model: The model that is trained.
        guide: The other model.
        temperature: What similarities are divided by.
        mini_batch_size: How many texts go through a model at a time; it changes memory and speed, not numbers.
        show_progress_bar: Taken for compatibility; nothing is shown.
        margin_strategy: As for ``GISTEmbedLoss``, like all that follow.
        margin: See above.
        contrast_anchors: See above.
        contrast_positives: See above.
        mini_batch_num_tokens: How many tokens go through a model at a time, in place of so many texts.
        gather_across_devices: See above.
    """

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module,
        temperature: float = 0.01,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
        margin_strategy: MarginStrategy = "absolute",
        margin: float = 0.0,
        contrast_anchors: bool = True,
        contrast_positives: bool = True,
        *,
        gather_across_devices: bool = False,
        mini_batch_num_tokens: int | None = None,
    ) -> None:
        super().__init__(
            model,
            guide,
            temperature,
            margin_strategy,
            margin,
            contrast_anchors,
            contrast_positives,
            gather_across_devices=gather_across_devices,
        )
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of anchors, positives and any number of columns of negatives."""
        return row_wise_loss(self, self.model, list(sentence_features), labels)

    @property
    def is_cached(self) -> bool:
        """Yes."""
        return True

    def _guided(self, features: Features) -> Tensor:
        parts = mini_batches(self._for_guide(features), self.mini_batch_size, self.mini_batch_num_tokens)
        return torch.cat([self.guide(part)["sentence_embedding"] for part in parts])

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            **super().get_config_dict(),
            "mini_batch_size": self.mini_batch_size,
            "mini_batch_num_tokens": self.mini_batch_num_tokens,
        }
