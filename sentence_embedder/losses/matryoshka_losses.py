"""Losses of embeddings that are cut to several widths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.features import Features
from sentence_embedder.losses.embedding_loss import EmbeddingLoss
from sentence_embedder.losses.gradient_cache import RowWiseLoss, cached_loss


class MatryoshkaLoss(EmbeddingLoss):
    """Another loss, of the embeddings cut to several widths, so that their beginnings are embeddings, too (Kusupati
    et al. 2022, https://arxiv.org/abs/2205.13147).

    Σ wᵢ loss(cutᵢ(u), …), where what is cut is scaled to length 1.

    Args:
        model: The model that is trained.
        loss: A loss over its embeddings, one with cached gradients included.
        matryoshka_dims: The widths, in any order.
        matryoshka_weights: Their weights; by default 1 each.
        n_dims_per_step: How many of the widths are drawn for each batch; -1 for all.

    Raises:
        ValueError: The widths and weights do not fit together, or a width is not between 1 and that of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: EmbeddingLoss,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        super().__init__(model)
        weights = [1.0] * len(matryoshka_dims) if matryoshka_weights is None else matryoshka_weights
        if len(weights) != len(matryoshka_dims) or not matryoshka_dims:
            raise ValueError(f"expected a weight for each width, found {weights!r} for {matryoshka_dims!r}")
        if min(matryoshka_dims) < 1:
            raise ValueError(f"matryoshka_dims: expected widths of 1 or more, found {matryoshka_dims!r}")
        if not isinstance(loss, EmbeddingLoss):
            raise TypeError(f"loss: expected an EmbeddingLoss, found {type(loss).__name__}")
        pairs = sorted(zip(matryoshka_dims, weights, strict=True), reverse=True)
        self.loss = loss
        self.matryoshka_dims = [dim for dim, _ in pairs]
        self.matryoshka_weights = [weight for _, weight in pairs]
        self.n_dims_per_step = n_dims_per_step

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch, as the other loss takes it."""
        loss: Any = self.loss
        if not isinstance(loss, RowWiseLoss):
            of_batch: Tensor = super().forward(sentence_features, labels)
            return of_batch
        features, drawn = list(sentence_features), self._drawn()
        targets = self.targets(features, labels)

        def of_rows(embeddings: list[Tensor], rows: slice) -> Tensor:
            return self._weighted(drawn, embeddings, lambda cut: loss.of_rows(cut, targets, rows))

        return cached_loss(self.model, features, loss.mini_batch_size, of_rows)

    def embeddings(self, sentence_features: Iterable[Features]) -> list[Tensor]:
        """The sentence embeddings of each column, as the other loss makes them."""
        return self.loss.embeddings(sentence_features)

    def targets(self, sentence_features: Sequence[Features], labels: Any) -> Any:
        """What the other loss holds the embeddings against."""
        return self.loss.targets(sentence_features, labels)

    def of_embeddings(self, embeddings: list[Tensor], targets: Any) -> Tensor:
        """The loss of the embeddings of the columns, at whole width."""
        return self._weighted(self._drawn(), embeddings, lambda cut: self.loss.of_embeddings(cut, targets))

    def _drawn(self) -> list[int]:
        """Which of the widths count this time."""
        count = len(self.matryoshka_dims)
        if not 0 < self.n_dims_per_step < count:
            return list(range(count))
        return torch.randperm(count)[: self.n_dims_per_step].tolist()

    def _weighted(self, drawn: Sequence[int], embeddings: list[Tensor], loss: Any) -> Tensor:
        total = embeddings[0].new_zeros(())
        for place in drawn:
            cut = [_cut(embedding, self.matryoshka_dims[place]) for embedding in embeddings]
            total = total + self.matryoshka_weights[place] * loss(cut)
        return total

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "loss": type(self.loss).__name__,
            "matryoshka_dims": self.matryoshka_dims,
            "matryoshka_weights": self.matryoshka_weights,
            "n_dims_per_step": self.n_dims_per_step,
        }


def _cut(embeddings: Tensor, dim: int) -> Tensor:
    width = embeddings.shape[-1]
    if dim > width:
        raise ValueError(f"matryoshka_dims: expected widths up to that of the embeddings, {width}, found {dim}")
    return embeddings if dim == width else functional.normalize(embeddings[..., :dim], p=2, dim=-1)
