"""Losses that rank the right text before those of the other rows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.losses.embedding_loss import EmbeddingLoss
from sentence_embedder.losses.similarity_losses import Similarity, name_of
from sentence_embedder.similarity import cos_sim

logger = logging.getLogger(__name__)

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
PartitionMode = Literal["joint", "per_direction"]
HardnessMode = Literal["in_batch_negatives", "hard_negatives", "all_negatives"]

_WITHOUT_POSITIVES: tuple[Direction, ...] = ("query_to_query", "doc_to_doc")
"""Directions whose candidates do not include the right one."""


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


def directed_scores(
    embeddings: list[Tensor], rows: slice, similarity: Similarity, direction: Direction
) -> tuple[Tensor, Tensor]:
    """How similar the texts of some rows are to what they are compared with in one direction.

    Args:
        embeddings: Anchors, positives, and any number of columns of negatives, each (rows, dim): queries and
            documents.
        rows: Which rows.
        similarity: Similarities of all pairs.
        direction: The anchors of these rows with all documents or all anchors, or their positives with all anchors
            or all documents.

    Returns:
        The similarities, and whether a candidate is of the row itself, both (these rows, candidates). Candidates
        come column by column.

    Raises:
        ValueError: There are no positives.
    """
    if len(embeddings) < 2:
        raise ValueError(f"expected anchors and positives, two columns or more, found {len(embeddings)}")
    anchors, *documents = embeddings
    source, _, target = direction.partition("_to_")
    candidates = torch.cat(documents) if target == "doc" else anchors
    if source == "query":
        scores = similarity(anchors[rows], candidates)
    else:  # the query, or the other document, stays first: a similarity need not be symmetric
        scores = similarity(candidates, documents[0][rows]).T
    places = torch.arange(len(anchors), device=scores.device)
    own = places[rows].unsqueeze(-1) == places
    return scores, own.repeat(1, len(candidates) // len(anchors))


def hardness(scores: Tensor, own: Tensor, count: int, mode: HardnessMode) -> Tensor:
    """The similarities of anchors to those negatives that are made harder by them, 0 for all other documents;
    without a gradient.

    Args:
        scores: Similarities to all documents, shape (rows, documents).
        own: Whether a document is of the row itself, likewise.
        count: How many documents are positives; they come first.
        mode: The documents of other rows, the negatives of the row itself, or both.
    """
    is_positive = torch.arange(scores.shape[1], device=scores.device) < count
    chosen = {
        "in_batch_negatives": ~own,
        "hard_negatives": own & ~is_positive,
        "all_negatives": ~(own & is_positive),
    }
    return scores.detach().masked_fill(~chosen[mode], 0.0)


class MultipleNegativesRankingLoss(EmbeddingLoss):
    """Each anchor should be nearer to its positive than to those of all other rows, and to all negatives (Henderson
    et al. 2017, https://arxiv.org/abs/1705.00652; also known as InfoNCE).

    -log(exp(s(aᵢ, pᵢ)) / Σⱼ exp(s(aᵢ, cⱼ))) over all positives and negatives cⱼ of the batch. Labels mean nothing.
    No two rows of a batch should have the same positive.

    With more directions cⱼ are also the other anchors, and pᵢ is compared as well: with other anchors, and with the
    documents, which are positives and negatives, of other rows (Li et al. 2023, https://arxiv.org/abs/2308.03281).
    With hardness, α s(aᵢ, cⱼ) is added, without a gradient, for negatives that are more similar to count more (Lan
    et al. 2025, https://arxiv.org/abs/2503.04812).

    Args:
        model: The model that is trained.
        scale: The factor of the similarities, the inverse of a temperature.
        similarity_fct: Similarities of all pairs.
        directions: What is compared: ``"query_to_doc"``, which must be there, ``"query_to_query"``,
            ``"doc_to_query"``, ``"doc_to_doc"``.
        partition_mode: ``"joint"``: one softmax over all directions; ``"per_direction"``: one for each, and
            the mean of their losses.
        hardness_mode: Which negatives count more: ``"in_batch_negatives"``, the documents of other rows;
            ``"hard_negatives"``, the negatives of the row; ``"all_negatives"``; None for none.
        hardness_strength: α, 0 or more.
        gather_across_devices: Whether the rows of all processes that train together are each other's negatives.

    Raises:
        ValueError: An argument is none of these, or a direction without positives should have its own softmax.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        *,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: PartitionMode = "joint",
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(model)
        self.gather_across_devices = gather_across_devices
        _check_directions(directions, partition_mode)
        _check_hardness(hardness_mode, hardness_strength)
        if not scale > 0:
            raise ValueError(f"scale: expected a number above 0, found {scale}")
        self.scale = scale
        self.similarity_fct = similarity_fct
        self.directions = tuple(directions)
        self.partition_mode = partition_mode
        self.hardness_mode = hardness_mode
        self.hardness_strength = hardness_strength

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        """The loss of anchors, positives and any number of columns of negatives."""
        return self.of_rows(embeddings, labels, slice(None))

    def of_rows(self, embeddings: list[Tensor], targets: Any, rows: slice) -> Tensor:
        """What some rows add to the loss."""
        del targets
        # What holds the right candidate comes first: its place is the number of the row.
        ordered = [direction for direction in get_args(Direction) if direction in self.directions]
        scores = [self._scores(embeddings, rows, direction) for direction in ordered]
        if self.partition_mode == "joint":
            scores = [torch.cat(scores, dim=1)]
        shares = [share_of_ranking(each, rows, len(embeddings[0])) for each in scores]
        return torch.stack(shares).mean()

    def _scores(self, embeddings: list[Tensor], rows: slice, direction: Direction) -> Tensor:
        """The logits of one direction, shape (these rows, candidates)."""
        scores, own = directed_scores(embeddings, rows, self.similarity_fct, direction)
        logits = scores * self.scale
        if direction in _WITHOUT_POSITIVES:
            return logits.masked_fill(own, float("-inf"))
        if direction == "query_to_doc" and self.hardness_mode is not None:
            penalties = hardness(scores, own, len(embeddings[0]), self.hardness_mode)
            return logits + self.hardness_strength * penalties
        return logits

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "scale": self.scale,
            "similarity_fct": name_of(self.similarity_fct),
            "directions": self.directions,
            "partition_mode": self.partition_mode,
            "hardness_mode": self.hardness_mode,
            "hardness_strength": self.hardness_strength,
        }


def _check_directions(directions: Sequence[Direction], partition_mode: PartitionMode) -> None:
    known = get_args(Direction)
    if "query_to_doc" not in directions or not set(directions) <= set(known):
        raise ValueError(f"directions: expected some of {known}, 'query_to_doc' among them, found {directions!r}")
    if partition_mode not in get_args(PartitionMode):
        raise ValueError(f"partition_mode: expected one of {get_args(PartitionMode)}, found {partition_mode!r}")
    alone = sorted(set(directions) & set(_WITHOUT_POSITIVES))
    if partition_mode == "per_direction" and alone:
        raise ValueError(
            f"partition_mode: expected 'joint' for {alone}, which have no positive in a softmax of their own, "
            f"found {partition_mode!r}"
        )


def _check_hardness(mode: HardnessMode | None, strength: float) -> None:
    if mode is not None and mode not in get_args(HardnessMode):
        raise ValueError(f"hardness_mode: expected None or one of {get_args(HardnessMode)}, found {mode!r}")
    if strength < 0:
        raise ValueError(f"hardness_strength: expected 0 or more, found {strength}")
    if mode is not None and strength == 0:
        logger.warning("hardness_mode=%r changes nothing: hardness_strength is 0", mode)


class MultipleNegativesSymmetricRankingLoss(MultipleNegativesRankingLoss):
    """``MultipleNegativesRankingLoss``, and likewise each positive should be nearer to its anchor than to those of
    other rows: the mean of both.

    Args:
        model: The model that is trained.
        scale: The factor of the similarities, the inverse of a temperature.
        similarity_fct: Similarities of all pairs.
        gather_across_devices: Whether the rows of all processes that train together are each other's negatives.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        *,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            directions=("query_to_doc", "doc_to_query"),
            partition_mode="per_direction",
            gather_across_devices=gather_across_devices,
        )
