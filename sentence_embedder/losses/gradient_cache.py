"""Gradients of a large batch in the memory of a small one (GradCache; Gao et al. 2021,
https://arxiv.org/abs/2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sentence_embedder.features import Features


class Circumstances:
    """What else the outcome of a forward pass depends on, at one moment: the random numbers on the CPU and on the
    devices of some tensors, and whether formats are chosen by torch (autocast).

    Args:
        features: The tensors.
    """

    def __init__(self, features: Features) -> None:
        tensors = [value for value in features.values() if isinstance(value, Tensor)]
        self._devices = sorted({tensor.get_device() for tensor in tensors if tensor.is_cuda})
        self._on_cpu = torch.get_rng_state()
        self._on_devices = [torch.cuda.get_rng_state(device) for device in self._devices]
        self._autocast = {
            kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in sorted({tensor.device.type for tensor in tensors})
            if torch.amp.is_autocast_available(kind)
        }

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same once more; afterwards random numbers go on as if none had been drawn."""
        with ExitStack() as entered:
            for kind, (enabled, dtype) in self._autocast.items():
                entered.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
            entered.enter_context(torch.random.fork_rng(self._devices))
            torch.set_rng_state(self._on_cpu)
            for device, state in zip(self._devices, self._on_devices, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield


def mini_batches(features: Features, size: int) -> Iterator[Features]:
    """The Features of so many texts at a time; what belongs to the batch as a whole goes with each.

    Raises:
        ValueError: The tensors do not have a row for each text, as those of a StaticEmbedding.
    """
    if size < 1:
        raise ValueError(f"mini_batch_size: expected 1 or more, found {size}")
    counts = {name: len(value) for name, value in features.items() if isinstance(value, Tensor) and value.ndim > 0}
    if len(set(counts.values())) != 1:
        raise ValueError(f"cached gradients: expected features with a row for each text, found {counts}")
    rows = next(iter(counts.values()))
    for start in range(0, rows, size):
        yield {name: _rows_of(value, rows, slice(start, start + size)) for name, value in features.items()}


def _rows_of(value: Any, count: int, rows: slice) -> Any:
    is_sequence = isinstance(value, (list, tuple)) or (isinstance(value, Tensor) and value.ndim > 0)
    return value[rows] if is_sequence and len(value) == count else value


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
    states: list[list[Circumstances]] = []
    embeddings: list[Tensor] = []
    for features in sentence_features:
        states.append([])
        made = []
        for batch in mini_batches(features, mini_batch_size):
            states[-1].append(Circumstances(batch))
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
    states: Sequence[Sequence[Circumstances]],
    gradients: Sequence[Tensor | None],
    of_loss: Tensor,
) -> None:
    """Bring the gradients of the embeddings to the parameters."""
    steps = [
        (batch, state, part)
        for features, states_of_column, gradient in zip(sentence_features, states, gradients, strict=True)
        if gradient is not None
        for batch, state, part in zip(
            mini_batches(features, mini_batch_size),
            states_of_column,
            torch.split(gradient, mini_batch_size),
            strict=True,
        )
    ]
    for number, (batch, state, part) in enumerate(steps):
        # Ranks of a distributed model exchange gradients once, with the last of them.
        is_last = number == len(steps) - 1
        exchange: Callable[[], AbstractContextManager[Any]] = getattr(model, "no_sync", nullcontext)
        with nullcontext() if is_last else exchange():
            with state.again(), torch.enable_grad():
                embedding = model(batch)["sentence_embedding"]
            if embedding.requires_grad:  # of a frozen part there is nothing to learn
                embedding.backward((part.float() * of_loss.float()).to(embedding.dtype))
