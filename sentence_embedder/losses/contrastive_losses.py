"""Losses for pairs of texts that belong together or do not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.features import Features
from sentence_embedder.losses.embedding_loss import EmbeddingLoss, columns
from sentence_embedder.losses.similarity_losses import Similarity, name_of


class SiameseDistanceMetric:
    """Distances row by row, (rows, dim) twice → (rows,)."""

    @staticmethod
    def EUCLIDEAN(first: Tensor, second: Tensor) -> Tensor:  # noqa: N802  # as people write it
        """The length of the difference."""
        return functional.pairwise_distance(first, second, p=2)

    @staticmethod
    def MANHATTAN(first: Tensor, second: Tensor) -> Tensor:  # noqa: N802
        """The sum of the absolute differences."""
        return functional.pairwise_distance(first, second, p=1)

    @staticmethod
    def COSINE_DISTANCE(first: Tensor, second: Tensor) -> Tensor:  # noqa: N802
        """One less the cosine similarity."""
        return 1 - functional.cosine_similarity(first, second)


class ContrastiveLoss(EmbeddingLoss):
    """Pairs that belong together should be near, others a margin apart (Hadsell et al. 2006).

    ½ (yᵢ dᵢ² + (1 - yᵢ) max(0, margin - dᵢ)²); the label yᵢ is 1 if the texts belong together, else 0.

    Args:
        model: The model that is trained.
        distance_metric: Distances row by row.
        margin: How far apart is far enough.
        size_average: Whether the mean of the rows is taken, rather than their sum.
    """

    needs_labels = True

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Similarity = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
        size_average: bool = True,
    ) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric
        self.margin = margin
        self.size_average = size_average

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of pairs (two columns) and labels (rows,)."""
        distances = self.distance_metric(*columns(embeddings, 2))
        together = labels.view(-1).to(distances.dtype)
        losses = (together * distances**2 + (1 - together) * (self.margin - distances).relu() ** 2) / 2
        return losses.mean() if self.size_average else losses.sum()

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "distance_metric": metric_name(SiameseDistanceMetric, self.distance_metric),
            "margin": self.margin,
            "size_average": self.size_average,
        }


class OnlineContrastiveLoss(EmbeddingLoss):
    """``ContrastiveLoss`` of the hard pairs of a batch alone: those that belong together and are farther apart than
    the nearest of the others, and those of the others that are nearer than the farthest that belong together.

    Σ dᵢ² + Σ max(0, margin - dᵢ)². Of one pair of a kind, the mean distance of the other kind is what decides.

    Args:
        model: The model that is trained.
        distance_metric: Distances row by row.
        margin: How far apart is far enough.
    """

    needs_labels = True

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Similarity = SiameseDistanceMetric.COSINE_DISTANCE,
        margin: float = 0.5,
    ) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric
        self.margin = margin

    def forward(
        self,
        sentence_features: Iterable[Features],
        labels: Tensor | None = None,
        size_average: bool = False,
    ) -> Any:
        """The loss of a batch; the third argument means nothing, and is taken because others pass it."""
        del size_average
        return super().forward(sentence_features, labels)

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of pairs (two columns) and labels (rows,): 1 if the texts belong together, else 0."""
        distances = self.distance_metric(*columns(embeddings, 2))
        negatives, positives = distances[labels.view(-1) == 0], distances[labels.view(-1) == 1]
        hard_negatives = negatives[negatives < _limit(positives, torch.max, negatives)]
        hard_positives = positives[positives > _limit(negatives, torch.min, positives)]
        return (hard_positives**2).sum() + ((self.margin - hard_negatives).relu() ** 2).sum()

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"distance_metric": metric_name(SiameseDistanceMetric, self.distance_metric), "margin": self.margin}


def metric_name(owner: type, metric: Similarity) -> str:
    """What a distance is called: its name in a class of distances, or the function's own."""
    known = {getattr(owner, name): name for name in vars(owner) if name.isupper()}
    return f"{owner.__name__}.{known[metric]}" if metric in known else name_of(metric)


def _limit(others: Tensor, extreme: Any, own: Tensor) -> Tensor:
    """Beyond which distance a pair is hard: the extreme one of the other kind, or where that is one, the own
    mean.
    """
    limit: Tensor = extreme(others) if len(others) > 1 else own.mean()
    return limit
