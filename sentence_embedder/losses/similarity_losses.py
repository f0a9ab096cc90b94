"""Losses for pairs of texts with a similarity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.losses.embedding_loss import EmbeddingLoss, columns
from sentence_embedder.similarity import pairwise_angle_sim, pairwise_cos_sim

Similarity = Callable[[Tensor, Tensor], Tensor]
"""Two matrices of embeddings → similarities, of all pairs or row by row."""


class CosineSimilarityLoss(EmbeddingLoss):
    """How far the cosine similarity of two texts is from what it should be (Reimers and Gurevych 2019,
    https://arxiv.org/abs/1908.10084).

    loss_fct(transformation(cos(uᵢ, vᵢ)), yᵢ); the label yᵢ is the similarity, from -1 to 1.

    Args:
        model: The model that is trained.
        loss_fct: (similarities, labels) → loss.
        cos_score_transformation: What is done to the similarities before.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fct: nn.Module | None = None,
        cos_score_transformation: nn.Module | None = None,
    ) -> None:
        super().__init__(model)
        self.loss_fct = nn.MSELoss() if loss_fct is None else loss_fct
        self.cos_score_transformation = (
            nn.Identity() if cos_score_transformation is None else cos_score_transformation
        )

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of pairs (two columns) and their similarities (rows,)."""
        first, second = columns(embeddings, 2)
        scores = self.cos_score_transformation(functional.cosine_similarity(first, second))
        loss: Tensor = self.loss_fct(scores, labels.to(scores.dtype).view(-1))
        return loss

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"loss_fct": _full_name(self.loss_fct)}


def _full_name(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def cosent(scores: Tensor, labels: Tensor) -> Tensor:
    """log(1 + Σ exp(sᵢ - sⱼ)) over all i, j whose labels say yᵢ < yⱼ.

    Args:
        scores: How similar the texts of each pair are, shape (rows,).
        labels: How similar they should be, in any scale, shape (rows,).
    """
    differences = scores[:, None] - scores
    wrong_way = differences.masked_fill(labels[:, None] >= labels, float("-inf"))
    return torch.logsumexp(torch.cat((scores.new_zeros(1), wrong_way.view(-1))), dim=0)


class CoSENTLoss(EmbeddingLoss):
    """Whether similarities come in the order of the labels, whatever they are (Su 2022,
    https://kexue.fm/archives/8847).

    ``cosent`` of the similarities times a scale; a label is how similar the texts of a pair are, in any scale.

    Args:
        model: The model that is trained.
        scale: The inverse of a temperature.
        similarity_fct: Similarities row by row.
    """

    def __init__(
        self, model: nn.Module, scale: float = 20.0, similarity_fct: Similarity = pairwise_cos_sim
    ) -> None:
        super().__init__(model)
        self.scale = scale
        self.similarity_fct = similarity_fct

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of pairs (two columns) and their similarities (rows,)."""
        first, second = columns(embeddings, 2)
        return cosent(self.similarity_fct(first, second) * self.scale, labels.view(-1))

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"scale": self.scale, "similarity_fct": name_of(self.similarity_fct)}


def name_of(function: object) -> str:
    """What a function is called."""
    return getattr(function, "__name__", type(function).__name__)


class AnglELoss(CoSENTLoss):
    """``CoSENTLoss`` with the angle of complex numbers in place of the cosine, whose gradient vanishes near 1 and
    -1 (Li and Li 2023, https://arxiv.org/abs/2309.12871).

    Args:
        model: The model that is trained.
        scale: The inverse of a temperature.
    """

    def __init__(self, model: nn.Module, scale: float = 20.0) -> None:
        super().__init__(model, scale, similarity_fct=pairwise_angle_sim)
