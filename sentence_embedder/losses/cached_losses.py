"""Losses for batches that are larger than the memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from sentence_embedder.features import Features
from sentence_embedder.losses.gradient_cache import row_wise_loss
from sentence_embedder.losses.ranking_losses import (
    Direction,
    HardnessMode,
    MultipleNegativesRankingLoss,
    PartitionMode,
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
        mini_batch_num_tokens: How many tokens go through the model at a time, in place of so many texts.
        directions: As for ``MultipleNegativesRankingLoss``, like all that follow.
        partition_mode: See above.
        hardness_mode: See above.
        hardness_strength: See above.
        gather_across_devices: Whether the rows of all processes that train together are each other's negatives.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
        *,
        mini_batch_num_tokens: int | None = None,
        directions: Sequence[Direction] = ("query_to_doc",),
        partition_mode: PartitionMode = "joint",
        hardness_mode: HardnessMode | None = None,
        hardness_strength: float = 0.0,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            directions=directions,
            partition_mode=partition_mode,
            hardness_mode=hardness_mode,
            hardness_strength=hardness_strength,
            gather_across_devices=gather_across_devices,
        )
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = mini_batch_num_tokens
        self.show_progress_bar = show_progress_bar

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of anchors, positives and any number of columns of negatives."""
        return row_wise_loss(self, self.model, list(sentence_features), labels)

    @property
    def is_cached(self) -> bool:
        """Yes."""
        return True

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            **super().get_config_dict(),
            "mini_batch_size": self.mini_batch_size,
            "mini_batch_num_tokens": self.mini_batch_num_tokens,
        }


class CachedMultipleNegativesSymmetricRankingLoss(CachedMultipleNegativesRankingLoss):
    """``MultipleNegativesSymmetricRankingLoss`` in the same way.

    Args:
        model: The model that is trained.
        scale: The factor of the similarities, the inverse of a temperature.
        similarity_fct: Similarities of all pairs.
        mini_batch_size: How many texts go through the model at a time; it changes memory and speed, not numbers.
        show_progress_bar: Taken for compatibility; nothing is shown.
        mini_batch_num_tokens: How many tokens go through the model at a time, in place of so many texts.
        gather_across_devices: Whether the rows of all processes that train together are each other's negatives.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Similarity = cos_sim,
        mini_batch_size: int = 32,
        show_progress_bar: bool = False,
        *,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
    ) -> None:
        super().__init__(
            model,
            scale,
            similarity_fct,
            mini_batch_size,
            show_progress_bar,
            mini_batch_num_tokens=mini_batch_num_tokens,
            directions=("query_to_doc", "doc_to_query"),
            partition_mode="per_direction",
            gather_across_devices=gather_across_devices,
        )
