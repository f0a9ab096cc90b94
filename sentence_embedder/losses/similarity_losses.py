"""Losses for pairs of texts with a similarity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.dotted_names import qualified_name
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

    needs_labels = True

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
        return {"loss_fct": qualified_name(type(self.loss_fct))}


def cosent(scores: Tensor, labels: Tensor) -> Tensor:
    """log(1 + Σ exp(sᵢ - sⱼ)) over all i, j whose labels say yᵢ < yⱼ.

    Sorted by labels, the j of an i are all that come later: the sums over them are cumulative sums, so nothing of
    rows × rows is made.

    Args:
        scores: How similar the texts of each pair are, shape (rows,).
        labels: How similar they should be, in any scale, shape (rows,).
    """
    # Cumulative sums in halves lose what they sum.
    exact = scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores
    ascending, order = (labels.int() if labels.dtype == torch.bool else labels).sort()
    ordered = exact[order]
    of_later = torch.logcumsumexp(-ordered.flip(0), dim=0).flip(0)
    of_none = ordered.new_full((1,), float("-inf"))
    first_above = torch.searchsorted(ascending, ascending, right=True)
    wrong_way = ordered + torch.cat((of_later, of_none))[first_above]
    return torch.logsumexp(torch.cat((ordered.new_zeros(1), wrong_way)), dim=0)


class CoSENTLoss(EmbeddingLoss):
    """Whether similarities come in the order of the labels, whatever they are (Su 2022,
    https://kexue.fm/archives/8847).

    ``cosent`` of the similarities times a scale; a label is how similar the texts of a pair are, in any scale.

    Args:
        model: The model that is trained.
        scale: The inverse of a temperature.
        similarity_fct: Similarities row by row.
    """

    needs_labels = True

    def __init__(
        self, model: nn.Module, scale: float = 20.0, similarity_fct: Similarity = pairwise_cos_sim
    ) -> None:
        super().__init__(model)
        self.scale = scale
        self.similarity_fct = similarity_fct

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of pairs (two columns) and their similarities (rows,).

        Raises:
            ValueError: There are more or fewer columns, or labels.
        """
        first, second = columns(embeddings, 2)
        if labels.numel() != len(first):
            raise ValueError(f"labels: expected one for each of {len(first)} rows, found {tuple(labels.shape)}")
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

    Of triplets and more columns, anchors with positives are pairs, whose label is 1 if none is given (an
    ``InputExample`` needs ``label=1``), and anchors with negatives are pairs of the opposite label, 1 - y.

    Args:
        model: The model that is trained.
        scale: The inverse of a temperature.
    """

    needs_labels = False

    def __init__(self, model: nn.Module, scale: float = 20.0) -> None:
        super().__init__(model, scale, similarity_fct=pairwise_angle_sim)

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """The loss of pairs and their similarities (rows,), or of anchors, positives and negatives.

        Raises:
            ValueError: There is one column alone, or pairs have no labels; or all labels of triplets are 0, which
                InputExamples have if none is given.
        """
        if len(embeddings) < 3:
            if labels is None:
                raise ValueError("labels: expected a similarity for each pair, found None")
            return super().of_embeddings(embeddings, labels)
        anchors, *others = embeddings
        of_positives = anchors.new_ones(len(anchors)) if labels is None else labels.view(-1).to(anchors.dtype)
        if not of_positives.any():
            raise ValueError(
                "labels: expected 1 where the second text of a triplet is near the first, found 0 for all rows, "
                "which an InputExample has unless it is given another: label=1"
            )
        of_negatives = (1 - of_positives).repeat(len(others) - 1)
        pairs = [anchors.repeat(len(others), 1), torch.cat(others)]
        return super().of_embeddings(pairs, torch.cat((of_positives, of_negatives)))
