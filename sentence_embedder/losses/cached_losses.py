"""Losses for batches that are larger than the memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from sentence_embedder.features import Features
from sentence_embedder.losses.gradient_cache import row_wise_loss
from sentence_embedder.losses.ranking_losses import (
    MultipleNegativesRankingLoss,
    in_batch_scores,
    share_of_ranking,
)
from sentence_embedder.losses.similarity_losses import Similarity
from sentence_embedder.similarity import cos_sim


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """``MultipleNegativesRankingLoss`` with the gradients of the whole batch in the memory of a small one; see
    ``cached_loss``. It takes half as long again, as texts go through the model twice.

    Args:
        model: The model that is trained.
        scale: The factor of the similarities, the inverse of a temperature.
        similarity_fct: Similarities of all pairs.
        mini_batch_size: How many texts go through the model at a time; it changes memory and speed, not numbers.
        show_progress_bar: Taken for compatibility; nothing is shown.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model, scale, similarity_fct)
        self.mini_batch_size = mini_batch_size
        self.show_progress_bar = show_progress_bar

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of anchors, positives and any number of columns of negatives."""
        return row_wise_loss(self, self.model, list(sentence_features), labels)

    def of_rows(self, embeddings: list[Tensor], targets: Any, rows: slice) -> Tensor:
        """What some anchors add to the loss."""
        del targets
        anchors = embeddings[0]
        scores = in_batch_scores([anchors[rows], *embeddings[1:]], self.similarity_fct, self.scale)
        return share_of_ranking(scores, rows, len(anchors))

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {**super().get_config_dict(), "mini_batch_size": self.mini_batch_size}


class CachedMultipleNegativesSymmetricRankingLoss(CachedMultipleNegativesRankingLoss):
    """``MultipleNegativesSymmetricRankingLoss`` in the same way."""

    def of_rows(self, embeddings: list[Tensor], targets: Any, rows: slice) -> Tensor:
        """What some anchors and positives add to the loss."""
        anchors, positives, *_ = embeddings
        backward = in_batch_scores([positives[rows], anchors], self.similarity_fct, self.scale)
        return (super().of_rows(embeddings, targets, rows) + share_of_ranking(backward, rows, len(anchors))) / 2
