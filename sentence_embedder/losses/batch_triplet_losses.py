"""Losses for texts with a class, over the triplets that a batch has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.losses.embedding_loss import EmbeddingLoss, columns
from sentence_embedder.losses.similarity_losses import name_of
from sentence_embedder.similarity import as_matrix, cos_sim

Distances = Callable[[Tensor], Tensor]
"""Embeddings (rows, dim) → the distances of all pairs (rows, rows)."""

_SMALLEST_LOSS = 1e-16


class BatchHardTripletLossDistanceFunction:
    """Distances of all pairs of a batch, (rows, dim) → (rows, rows)."""

    @staticmethod
    def cosine_distance(embeddings: Tensor) -> Tensor:
        """One less the cosine similarity."""
        return 1 - cos_sim(embeddings, embeddings)

    @staticmethod
    def euclidean_distance(embeddings: Tensor, squared: bool = False) -> Tensor:
        """The length of the difference, or its square."""
        return BatchHardTripletLossDistanceFunction.eucledian_distance(embeddings, squared)

    @staticmethod
    def eucledian_distance(embeddings: Tensor, squared: bool = False) -> Tensor:  # spelt as it is known
        """The length of the difference, or its square; its gradient is finite where it is zero, too.

        Halves are computed in float32, also under autocast: rounded products would leave little of a difference.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            exact = as_matrix(embeddings)
            products = exact @ exact.T
        norms = products.diagonal()
        squares = (norms - 2 * products + norms[:, None]).clamp(min=0)
        if squared:
            return squares
        is_zero = squares == 0
        return (squares + is_zero * 1e-16).sqrt() * ~is_zero


def _same_class(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether two rows have the same class and are not the same row, and whether they differ: (rows, rows)
    twice.
    """
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def hardest(distances: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """For each row the distance of the farthest of its class, and of the nearest of another: (rows,) twice.

    A row that is alone in its class has the farthest at 0; where there is no other class, the nearest is at the
    greatest distance of the row.

    Args:
        distances: Of all pairs, shape (rows, rows).
        labels: The class of each row, shape (rows,).
    """
    same, other = _same_class(labels)
    farthest = (distances * same).amax(dim=1)
    nearest = (distances + distances.amax(dim=1, keepdim=True) * ~other).amin(dim=1)
    return farthest, nearest


class _BatchTripletLoss(EmbeddingLoss):
    """A loss of texts and their classes.

    Args:
        model: The model that is trained.
        distance_metric: Distances of all pairs.
    """

    needs_labels = True

    def __init__(
        self, model: nn.Module, distance_metric: Distances = BatchHardTripletLossDistanceFunction.eucledian_distance
    ) -> None:
        super().__init__(model)
        self.distance_metric = distance_metric

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of texts (one column) and their classes (rows,)."""
        (texts,) = columns(embeddings, 1)
        return self.of_distances(self.distance_metric(texts), labels.view(-1))

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        """The loss of the distances of all pairs (rows, rows)."""
        raise NotImplementedError

    def get_config_dict(self) -> dict[str, object]:
        """The settings, for the model card."""
        settings: dict[str, object] = {"distance_metric": name_of(self.distance_metric)}
        margin = getattr(self, "triplet_margin", None)
        return settings if margin is None else {**settings, "margin": margin}


class _BatchMarginLoss(_BatchTripletLoss):
    """The same with a margin.

    Args:
        model: The model that is trained.
        distance_metric: Distances of all pairs.
        margin: How much nearer than texts of other classes those of the same class should be.
    """

    def __init__(
        self,
        model: nn.Module,
        distance_metric: Distances = BatchHardTripletLossDistanceFunction.eucledian_distance,
        margin: float = 5,
    ) -> None:
        super().__init__(model, distance_metric)
        self.triplet_margin = margin


class BatchHardTripletLoss(_BatchMarginLoss):
    """The farthest text of its class should be nearer to each text than the nearest of another class, by a margin
    (Hermans et al. 2017, https://arxiv.org/abs/1703.07737).

    max(0, maxⱼ d(xᵢ, pⱼ) - minⱼ d(xᵢ, nⱼ) + margin), the mean over the rows; labels are classes.
    """

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        """The loss of the distances of all pairs (rows, rows)."""
        farthest, nearest = hardest(distances, labels)
        return functional.relu(farthest - nearest + self.triplet_margin).mean()


class BatchHardSoftMarginTripletLoss(_BatchTripletLoss):
    """``BatchHardTripletLoss`` with log(1 + exp(·)) in place of the margin, so that no margin has to be found."""

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        """The loss of the distances of all pairs (rows, rows)."""
        farthest, nearest = hardest(distances, labels)
        return functional.softplus(farthest - nearest).mean()


class BatchAllTripletLoss(_BatchMarginLoss):
    """All triplets of a batch that are not yet right by a margin: the mean of max(0, d(a, p) - d(a, n) + margin)
    over those where it is above 0; labels are classes.
    """

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        """The loss of the distances of all pairs (rows, rows)."""
        same, other = _same_class(labels)
        losses = distances[:, :, None] - distances[:, None, :] + self.triplet_margin
        losses = functional.relu(losses * (same[:, :, None] & other[:, None, :]))
        return losses.sum() / ((losses > _SMALLEST_LOSS).sum() + _SMALLEST_LOSS)


class BatchSemiHardTripletLoss(_BatchMarginLoss):
    """For each pair of a class, the nearest text of another class that is farther away than the pair, or where
    there is none, the farthest (Schroff et al. 2015, https://arxiv.org/abs/1503.03832): the mean of
    max(0, d(a, p) - d(a, n) + margin) over the pairs; labels are classes.
    """

    def of_distances(self, distances: Tensor, labels: Tensor) -> Tensor:
        """The loss of the distances of all pairs (rows, rows)."""
        same, other = _same_class(labels)
        # One negative for each anchor (rows of the result) and positive (columns).
        is_farther = other[:, None, :] & (distances[:, None, :] > distances[:, :, None])
        farther = distances[:, None, :].expand_as(is_farther).masked_fill(~is_farther, float("inf")).amin(dim=2)
        lowest = distances.amin(dim=1, keepdim=True)
        farthest = ((distances - lowest) * other).amax(dim=1, keepdim=True) + lowest
        negatives = torch.where(is_farther.any(dim=2), farther, farthest)
        losses = functional.relu((distances - negatives + self.triplet_margin) * same)
        return losses.sum() / same.sum().clamp(min=1)
