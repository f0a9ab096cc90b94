"""Losses that look for hard negatives in large batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.features import Features
from sentence_embedder.losses.embedding_loss import EmbeddingLoss, columns
from sentence_embedder.losses.gradient_cache import row_wise_loss
from sentence_embedder.similarity import cos_sim


class MegaBatchMarginLoss(EmbeddingLoss):
    """Positives should be above one similarity, the hardest negative of the batch below another (Wieting and Gimpel
    2018, https://arxiv.org/abs/1711.05732).

    max(0, m⁺ - cos(aᵢ, pᵢ)) + max(0, maxⱼ≠ᵢ cos(aᵢ, pⱼ) - m⁻), the mean over the rows. Labels mean nothing. The
    larger the batch, the harder its negatives: 500 rows and more.

    Args:
        model: The model that is trained.
        positive_margin: m⁺.
        negative_margin: m⁻.
        use_mini_batched_version: Whether the gradients are computed a few texts at a time; see ``cached_loss``.
        mini_batch_size: How many texts. It changes memory and speed, not the numbers.
        mini_batch_num_tokens: How many tokens at a time, in place of so many texts.
        show_progress_bar: Taken for compatibility; nothing is shown.
    """

    def __init__(
        self,
        model: nn.Module,
        positive_margin: float = 0.8,
        negative_margin: float = 0.3,
        use_mini_batched_version: bool = True,
        mini_batch_size: int = 50,
        *,
        mini_batch_num_tokens: int | None = None,
        show_progress_bar: bool = False,
    ) -> None:
        super().__init__(model)
        self.positive_margin = positive_margin
        self.negative_margin = negative_margin
        self.use_mini_batched_version = use_mini_batched_version
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of anchors and positives."""
        if self.use_mini_batched_version:
            return row_wise_loss(self, self.model, list(sentence_features), labels)
        of_batch: Tensor = super().forward(sentence_features, labels)
        return of_batch

    @property
    def is_cached(self) -> bool:
        """Whether the gradients are computed a few texts at a time."""
        return self.use_mini_batched_version

    def of_embeddings(self, embeddings: list[Tensor], targets: Any) -> Tensor:
        """The loss of the embeddings of anchors and positives."""
        return self.of_rows(embeddings, targets, slice(None))

    def of_rows(self, embeddings: list[Tensor], targets: Any, rows: slice) -> Tensor:
        """What some anchors add to the loss."""
        del targets
        anchors, positives = columns(embeddings, 2)
        scores = cos_sim(anchors[rows], positives)
        own = torch.arange(len(anchors), device=scores.device)[rows].unsqueeze(-1)
        positive = scores.gather(1, own).squeeze(-1)
        hardest = scores.scatter(1, own, float("-inf")).amax(dim=1)
        losses = functional.relu(self.positive_margin - positive) + functional.relu(hardest - self.negative_margin)
        return losses.sum() / len(anchors)
