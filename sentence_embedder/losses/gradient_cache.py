"""Gradients of a large batch in the memory of a small one (GradCache; Gao et al. 2021,
https://arxiv.org/abs/2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sentence_embedder.features import Features


class RandomState:
    """The state of the random numbers at one moment, on the CPU and on the devices of some tensors."""

    def __init__(self, features: Features) -> None:
        tensors = [value for value in features.values() if isinstance(value, Tensor) and value.is_cuda]
        self._devices = sorted({tensor.get_device() for tensor in tensors})
        self._on_cpu = torch.get_rng_state()
        self._on_devices = [torch.cuda.get_rng_state(device) for device in self._devices]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Random numbers as they were; afterwards they go on as if nothing had been drawn."""
        with torch.random.fork_rng(self._devices):
            torch.set_rng_state(self._on_cpu)
            for device, state in zip(self._devices, self._on_devices, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield


def mini_batches(features: Features, size: int) -> Iterator[Features]:
    """The Features of so many texts at a time; what belongs to the batch as a whole goes with each."""
    rows = next(len(value) for value in features.values() if isinstance(value, Tensor) and value.ndim > 0)
    for start in range(0, rows, size):
        yield {name: _rows_of(value, rows, slice(start, start + size)) for name, value in features.items()}


def _rows_of(value: Any, count: int, rows: slice) -> Any:
    is_per_row = ((isinstance(value, Tensor) and value.ndim > 0) or isinstance(value, (list, tuple))) and (
        len(value) == count
    )
    return value[rows] if is_per_row else value


Loss = Callable[[list[Tensor], slice], Tensor]
"""The embeddings of all columns, some rows → what these rows add to the loss."""


@runtime_checkable
class RowWiseLoss(Protocol):
    """A loss that is a sum over rows, each of which sees the embeddings of all."""

    @property
    def mini_batch_size(self) -> int:
        """How many texts go through the model at a time."""

    def targets(self, sentence_features: Sequence[Features], labels: Any) -> Any:
        """What the embeddings are held against."""

    def of_rows(self, embeddings: list[Tensor], targets: Any, rows: slice) -> Tensor:
        """What some rows add to the loss."""


def cached_loss(
    model: nn.Module, sentence_features: Sequence[Features], mini_batch_size: int, loss_of: Loss
) -> Tensor:
    """The loss of a batch whose gradients are computed a few texts at a time.

    Embeddings are made without a graph; the gradients of the loss by them are kept; and when ``backward`` is called
    on the loss, the embeddings are made again with a graph, a few at a time, with the same random numbers, and each
    brings its gradient to the parameters.

    Args:
        model: Features → Features with a ``sentence_embedding``.
        sentence_features: The Features of each column.
        mini_batch_size: How many texts go through the model at a time, with a graph.
        loss_of: What some rows add to the loss.

    Returns:
        A scalar; under ``no_grad`` the same number.
    """
    states: list[list[RandomState]] = []
    embeddings: list[Tensor] = []
    for features in sentence_features:
        states.append([])
        made = []
        for batch in mini_batches(features, mini_batch_size):
            states[-1].append(RandomState(batch))
            with torch.no_grad():
                made.append(model(batch)["sentence_embedding"])
        embeddings.append(torch.cat(made))
    rows = len(embeddings[0])
    parts = [slice(start, start + mini_batch_size) for start in range(0, rows, mini_batch_size)]
    if not torch.is_grad_enabled():
        return torch.stack([loss_of(embeddings, part) for part in parts]).sum()
    leaves = [embedding.detach().requires_grad_() for embedding in embeddings]
    loss = embeddings[0].new_zeros(())
    for part in parts:
        of_part = loss_of(leaves, part)
        of_part.backward()  # type: ignore[no-untyped-call]
        loss = loss + of_part.detach()
    gradients = [leaf.grad for leaf in leaves]
    loss.requires_grad_()
    again = partial(_backward, model, sentence_features, mini_batch_size, states, gradients)
    loss.register_hook(again)  # type: ignore[no-untyped-call]
    return loss


def row_wise_loss(
    loss: RowWiseLoss, model: nn.Module, sentence_features: Sequence[Features], labels: Any
) -> Tensor:
    """``cached_loss`` of a loss that knows what rows add to it."""
    targets = loss.targets(sentence_features, labels)
    return cached_loss(
        model, sentence_features, loss.mini_batch_size, lambda made, rows: loss.of_rows(made, targets, rows)
    )


def _backward(
    model: nn.Module,
    sentence_features: Sequence[Features],
    mini_batch_size: int,
    states: Sequence[Sequence[RandomState]],
    gradients: Sequence[Tensor | None],
    of_loss: Tensor,
) -> None:
    """Bring the gradients of the embeddings to the parameters."""
    for features, states_of_column, gradient in zip(sentence_features, states, gradients, strict=True):
        if gradient is None:
            continue
        batches = mini_batches(features, mini_batch_size)
        for batch, state, part in zip(batches, states_of_column, gradient.split(mini_batch_size), strict=True):  # type: ignore[no-untyped-call]
            with state.again(), torch.enable_grad():
                embedding = model(batch)["sentence_embedding"]
            embedding.backward(part * of_loss)
