"""Losses for an anchor, a text that belongs to it, and one that does not."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.losses.contrastive_losses import SiameseDistanceMetric, metric_name
from sentence_embedder.losses.embedding_loss import EmbeddingLoss, columns
from sentence_embedder.losses.similarity_losses import Similarity


class TripletDistanceMetric:
    """Distances row by row, (rows, dim) twice → (rows,)."""

    COSINE = staticmethod(SiameseDistanceMetric.COSINE_DISTANCE)
    EUCLIDEAN = staticmethod(SiameseDistanceMetric.EUCLIDEAN)
    MANHATTAN = staticmethod(SiameseDistanceMetric.MANHATTAN)


class TripletLoss(EmbeddingLoss):
    """An anchor should be nearer to its positive than to its negative, by a margin (Schroff et al. 2015,
    https://arxiv.org/abs/1503.03832).

    max(0, d(aᵢ, pᵢ) - d(aᵢ, nᵢ) + margin), the mean over the rows. Labels mean nothing.

    Args:
        model: The model that is trained.
        distance_metric: Distances row by row.
        triplet_margin: How much nearer is enough.
    """

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Similarity = TripletDistanceMetric.EUCLIDEAN,
        triplet_margin: float = 5,
    ) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric
        self.triplet_margin = triplet_margin

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """The loss of anchors, positives and negatives (three columns)."""
        del labels
        anchors, positives, negatives = columns(embeddings, 3)
        nearer = self.distance_metric(anchors, positives) - self.distance_metric(anchors, negatives)
        return functional.relu(nearer + self.triplet_margin).mean()

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        metric = metric_name(TripletDistanceMetric, self.distance_metric)
        return {"distance_metric": metric, "triplet_margin": self.triplet_margin}
