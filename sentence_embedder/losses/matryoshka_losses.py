"""Losses of embeddings that are cut to several widths."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.features import Features
from sentence_embedder.losses.embedding_loss import EmbeddingLoss, width_of
from sentence_embedder.losses.gathering import agreed
from sentence_embedder.losses.gradient_cache import Loss, RowWiseLoss, mini_batched_loss


class MatryoshkaLoss(EmbeddingLoss):
    """Another loss, of the embeddings cut to several widths, so that their beginnings are embeddings, too (Kusupati
    et al. 2022, https://arxiv.org/abs/2205.13147).

    Σ wᵢ loss(cutᵢ(u), …), where what is cut is scaled to length 1. Labels that are embeddings are cut as well.

    Args:
        model: The model that is trained.
        loss: A loss over its embeddings, one with cached gradients included. A loss that is none of this package's
            goes through the model once for each width.
        matryoshka_dims: The widths, in any order.
        matryoshka_weights: Their weights; by default 1 each.
        n_dims_per_step: How many of the widths are drawn for each batch; -1 for all.

    Raises:
        ValueError: The widths and weights do not fit together, or a width is not between 1 and that of the model.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        super().__init__(model)
        weights = [1.0] * len(matryoshka_dims) if matryoshka_weights is None else matryoshka_weights
        if len(weights) != len(matryoshka_dims) or len(matryoshka_dims) == 0:
            raise ValueError(f"expected a weight for each width, found {weights!r} for {matryoshka_dims!r}")
        width = width_of(model)
        if min(matryoshka_dims) < 1 or (width is not None and max(matryoshka_dims) > width):
            most = "" if width is None else f" to {width}"
            raise ValueError(
                f"matryoshka_dims: expected widths of 1{most or ' or more'}, found {matryoshka_dims!r}"
            )
        pairs = sorted(zip(matryoshka_dims, weights, strict=True), reverse=True)
        self.loss = loss
        self.gather_across_devices = bool(getattr(loss, "gather_across_devices", False))
        self.matryoshka_dims = tuple(dim for dim, _ in pairs)
        self.matryoshka_weights = tuple(weight for _, weight in pairs)
        self.n_dims_per_step = n_dims_per_step

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch, as the other loss takes it."""
        features, loss = list(sentence_features), self.loss
        if not isinstance(loss, EmbeddingLoss) or not loss.is_stock:
            return self._of_any(self._drawn(), features, labels)
        if not isinstance(loss, RowWiseLoss) or not loss.is_cached:
            return super().forward(features, labels)  # type: ignore[no-any-return]
        of_rows = self.of_batch(self.joint_targets(features, labels))
        return mini_batched_loss(loss, loss.model, features, of_rows)

    def embeddings(self, sentence_features: Iterable[Features]) -> list[Tensor]:
        """The embeddings of each column, whole, as the other loss makes them."""
        return self._inner.embeddings(sentence_features)

    def targets(self, sentence_features: Sequence[Features], labels: Any) -> Any:
        """What the embeddings are held against by the other loss."""
        return self._inner.targets(sentence_features, labels)

    def of_embeddings(self, embeddings: list[Tensor], targets: Any) -> Any:
        """The loss of the embeddings of the columns, each (rows, dim)."""
        return self.of_batch(targets)(embeddings, slice(None))

    def of_batch(self, targets: Any) -> Loss:
        """What some rows of one batch add to the loss; the widths are drawn now."""
        drawn, loss = self._drawn(), self._inner

        def of_rows(embeddings: list[Tensor], rows: slice) -> Tensor:
            total = embeddings[0].new_zeros(())
            for place in drawn:
                cut = [_cut(embedding, self.matryoshka_dims[place]) for embedding in embeddings]
                of_cut = of_batch(loss, loss.cut_targets(targets, self.matryoshka_dims[place]))
                total = total + self.matryoshka_weights[place] * of_cut(cut, rows)
            return total

        return of_rows

    @property
    def _inner(self) -> EmbeddingLoss:
        if not isinstance(self.loss, EmbeddingLoss):
            raise TypeError(f"loss: expected one of this package, found {type(self.loss).__name__}")
        return self.loss

    @property
    def is_stock(self) -> bool:
        """No: another one over it must let it do its own cutting."""
        return False

    @property
    def is_cached(self) -> bool:
        """Whether the other loss is."""
        return bool(getattr(self.loss, "is_cached", False))

    @property
    def can_be_joined(self) -> bool:
        """Whether the other loss can."""
        is_own = type(self).forward is MatryoshkaLoss.forward
        return is_own and isinstance(self.loss, EmbeddingLoss) and self.loss.can_be_joined

    def _of_any(self, drawn: Sequence[int], features: Sequence[Features], labels: Any) -> Tensor:
        """The loss by a loss that is not known: its model gives embeddings that are cut already."""
        total: Any = 0
        for place in drawn:
            dim = self.matryoshka_dims[place]
            with _cutting(self.model, dim):
                total = total + self.matryoshka_weights[place] * self.loss(features, labels)
        return total  # type: ignore[no-any-return]

    def _drawn(self) -> list[int]:
        """Which of the widths count this time."""
        count = len(self.matryoshka_dims)
        if not 0 < self.n_dims_per_step < count:
            return list(range(count))
        drawn = random.sample(range(count), self.n_dims_per_step)
        return agreed(drawn) if self.gather_across_devices else drawn

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "loss": type(self.loss).__name__,
            "matryoshka_dims": self.matryoshka_dims,
            "matryoshka_weights": self.matryoshka_weights,
            "n_dims_per_step": self.n_dims_per_step,
        }


def of_batch(loss: Any, targets: Any) -> Loss:
    """What some rows of one batch add to a loss; what is left to chance is drawn now.

    Args:
        loss: An ``EmbeddingLoss``.
        targets: What it holds the embeddings of the batch against.
    """
    if isinstance(loss, MatryoshkaLoss):
        return loss.of_batch(targets)
    if isinstance(loss, RowWiseLoss):
        return lambda embeddings, rows: loss.of_rows(embeddings, targets, rows)
    return lambda embeddings, _: loss.of_embeddings(embeddings, targets)


def _cut(embeddings: Tensor, dim: int) -> Tensor:
    width = embeddings.shape[-1]
    if dim > width:
        raise ValueError(f"matryoshka_dims: expected widths up to that of the embeddings, {width}, found {dim}")
    return functional.normalize(embeddings[..., :dim], p=2, dim=-1)


@contextmanager
def _cutting(model: nn.Module, dim: int) -> Iterator[None]:
    """Let a model give embeddings that are cut."""

    def cut(_: nn.Module, __: Any, features: Features) -> Features:
        return {**features, "sentence_embedding": _cut(features["sentence_embedding"], dim)}

    hook = model.register_forward_hook(cut)
    try:
        yield
    finally:
        hook.remove()
