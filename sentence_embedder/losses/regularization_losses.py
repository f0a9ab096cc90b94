"""Losses that say how embeddings should lie, whatever the texts are."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from sentence_embedder.losses.embedding_loss import EmbeddingLoss
from sentence_embedder.losses.similarity_losses import Similarity, name_of
from sentence_embedder.similarity import cos_sim

Aggregation = Literal["mean", "sum"]


def spread(embeddings: Tensor, similarity: Similarity) -> tuple[Tensor, Tensor]:
    """How far embeddings are from being spread over the sphere: m², and max(0, q - 1 / dim), where m is the mean
    similarity of two different rows, and q that of its square.

    Args:
        embeddings: Shape (rows, dim).
        similarity: Similarities of all pairs.
    """
    rows, dim = embeddings.shape
    itself = torch.eye(rows, dtype=torch.bool, device=embeddings.device)
    scores = similarity(embeddings, embeddings).masked_fill(itself, 0.0)
    pairs = max(rows * (rows - 1), 1)
    mean, second_moment = scores.sum() / pairs, scores.square().sum() / pairs
    return mean.square(), torch.relu(second_moment - 1 / dim)


class GlobalOrthogonalRegularizationLoss(EmbeddingLoss):
    """The embeddings of different texts should be as orthogonal as if they were spread evenly (Zhang et al. 2017,
    https://arxiv.org/abs/1708.06320), beside another loss.

    ``spread`` of each column, each of its two numbers with a weight. Labels mean nothing; no text of a column
    should belong to another of it.

    Args:
        model: The model that is trained.
        similarity_fct: Similarities of all pairs.
        mean_weight: The weight of m²; None or 0 to leave it out.
        second_moment_weight: The weight of the other; likewise.
        aggregation: What is made of the columns: their ``"mean"`` or ``"sum"``.

    Raises:
        ValueError: Both are left out, or there is no such aggregation.
    """

    def __init__(
        self,
        model: nn.Module,
        similarity_fct: Similarity = cos_sim,
        mean_weight: float | None = 1.0,
        second_moment_weight: float | None = 1.0,
        aggregation: Aggregation = "mean",
    ) -> None:
        super().__init__(model)
        if not mean_weight and not second_moment_weight:
            raise ValueError(
                "mean_weight, second_moment_weight: expected one at least that is not 0, found "
                f"{mean_weight} and {second_moment_weight}"
            )
        if aggregation not in get_args(Aggregation):
            raise ValueError(f"aggregation: expected one of {get_args(Aggregation)}, found {aggregation!r}")
        self.similarity_fct = similarity_fct
        self.mean_weight = mean_weight
        self.second_moment_weight = second_moment_weight
        self.aggregation = aggregation

    @property
    def can_be_joined(self) -> bool:
        """No: it has two parts."""
        return False

    def of_embeddings(self, embeddings: list[Tensor], targets: Any = None) -> dict[str, Tensor]:
        """The parts of the loss, whose sum it is: ``gor_mean`` and ``gor_second_moment``."""
        del targets
        of_columns = torch.stack([torch.stack(spread(column, self.similarity_fct)) for column in embeddings])
        parts = of_columns.sum(dim=0) if self.aggregation == "sum" else of_columns.mean(dim=0)
        weights = {"gor_mean": self.mean_weight, "gor_second_moment": self.second_moment_weight}
        return {name: weight * part for (name, weight), part in zip(weights.items(), parts, strict=True) if weight}

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "similarity_fct": name_of(self.similarity_fct),
            "mean_weight": self.mean_weight,
            "second_moment_weight": self.second_moment_weight,
            "aggregation": self.aggregation,
        }
