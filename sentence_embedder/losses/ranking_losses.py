"""Losses that rank the right text before those of the other rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.losses.embedding_loss import EmbeddingLoss
from sentence_embedder.losses.similarity_losses import Similarity, name_of
from sentence_embedder.similarity import cos_sim


def in_batch_scores(embeddings: list[Tensor], similarity: Similarity, scale: float) -> Tensor:
    """How similar each anchor is to all candidates: the positives, then the negatives, of all rows.

    Args:
        embeddings: Anchors, positives, and any number of columns of negatives, each (rows, dim).
        similarity: Similarities of all pairs.
        scale: Their factor.

    Returns:
        Shape (rows, rows × (columns - 1)).

    Raises:
        ValueError: There are no positives.
    """
    if len(embeddings) < 2:
        raise ValueError(f"expected anchors and positives, two columns or more, found {len(embeddings)}")
    anchors, *candidates = embeddings
    return similarity(anchors, torch.cat(candidates)) * scale


def ranking(scores: Tensor) -> Tensor:
    """-log softmax(sᵢ)ᵢ, the mean over the rows: each row's own candidate is the one of the same number.

    Args:
        scores: Shape (rows, candidates).
    """
    return share_of_ranking(scores, slice(None), len(scores))


def share_of_ranking(scores: Tensor, rows: slice, count: int) -> Tensor:
    """What some of so many rows add to ``ranking``.

    Args:
        scores: Theirs, shape (rows, candidates).
        rows: Which they are.
        count: How many there are in all.
    """
    own = torch.arange(count, device=scores.device)[rows]
    return functional.cross_entropy(scores, own, reduction="sum") / count


class MultipleNegativesRankingLoss(EmbeddingLoss):
    """Each anchor should be nearer to its positive than to those of all other rows, and to all negatives (Henderson
    et al. 2017, https://arxiv.org/abs/1705.00652; also known as InfoNCE).

    -log(exp(s(aᵢ, pᵢ)) / Σⱼ exp(s(aᵢ, cⱼ))) over all positives and negatives cⱼ of the batch. Labels mean nothing.
    No two rows of a batch should have the same positive.

    Args:
        model: The model that is trained.
        scale: The factor of the similarities, the inverse of a temperature.
        similarity_fct: Similarities of all pairs.
    """

    def __init__(self, model: nn.Module, scale: float = 20.0, similarity_fct: Similarity = cos_sim) -> None:
        super().__init__(model)
        self.scale = scale
        self.similarity_fct = similarity_fct

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """The loss of anchors, positives and any number of columns of negatives."""
        del labels
        return ranking(in_batch_scores(embeddings, self.similarity_fct, self.scale))

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"scale": self.scale, "similarity_fct": name_of(self.similarity_fct)}


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """``MultipleNegativesRankingLoss``, and likewise each positive should be nearer to its anchor than to those of
    other rows: the mean of both.
    """

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """The loss of anchors, positives and any number of columns of negatives."""
        del labels
        scores = in_batch_scores(embeddings, self.similarity_fct, self.scale)
        return (ranking(scores) + ranking(scores[:, : len(scores)].T)) / 2
