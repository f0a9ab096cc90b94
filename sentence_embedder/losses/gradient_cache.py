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


def mini_batches(features: Features, size: int, num_tokens: int | None = None) -> Iterator[Features]:
    """The Features of some texts at a time; what belongs to the batch as a whole goes with each.

    The columns at the end that are padding for all of these texts are left out.

    Args:
        features: Of all texts.
        size: How many texts.
        num_tokens: How many tokens they have at most, in place of so many texts; a longer text comes alone.

    Raises:
        ValueError: The tensors do not have a row for each text, as those of a StaticEmbedding; or a number of
            tokens is given, and there is no attention mask to count them by.
    """
    for name, value in (("mini_batch_size", size), ("mini_batch_num_tokens", num_tokens)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected 1 or more, found {value}")
    counts = {name: len(value) for name, value in features.items() if isinstance(value, Tensor) and value.ndim > 0}
    if len(set(counts.values())) != 1:
        raise ValueError(f"cached gradients: expected features with a row for each text, found {counts}")
    rows = next(iter(counts.values()))
    tokens = _tokens_of(features)
    if num_tokens is not None and tokens is None:
        raise ValueError(
            "mini_batch_num_tokens: expected features with an attention_mask, by which tokens are counted, found "
            f"{sorted(features)}; give a mini_batch_size instead"
        )
    for part in _parts([1] * rows, size) if num_tokens is None or not tokens else _parts(tokens[0], num_tokens):
        made = {name: _rows_of(value, rows, part) for name, value in features.items()}
        yield _trimmed(made, max(tokens[1][part])) if tokens else made


def _tokens_of(features: Features) -> tuple[list[int], list[int]] | None:
    """How many tokens each text has, and in how many columns they are; None if there is no attention mask."""
    mask = features.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.ndim != 2 or not mask.numel():
        return None
    holds_token = mask != 0
    numbers = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    counts, columns = torch.stack((holds_token.sum(dim=1), (holds_token * numbers).amax(dim=1))).tolist()
    return counts, columns


def _parts(weights: Sequence[int], limit: int) -> Iterator[slice]:
    """Rows one after the other, as many at a time as weigh no more than the limit together, or one."""
    start = total = 0
    for row, weight in enumerate(weights):
        if row > start and total + weight > limit:
            yield slice(start, row)
            start, total = row, 0
        total += weight
    yield slice(start, len(weights))


def _trimmed(features: Features, columns: int) -> Features:
    """Features with so many columns of tokens."""
    shape = features["attention_mask"].shape
    return {
        name: value[:, : max(columns, 1)] if isinstance(value, Tensor) and value.shape == shape else value
        for name, value in features.items()
    }


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

    @property
    def mini_batch_num_tokens(self) -> int | None:
        """How many tokens do, if it is not so many texts."""

    def targets(self, sentence_features: Sequence[Features], labels: Any) -> Any:
        """What the embeddings are held against."""

    def of_rows(self, embeddings: list[Tensor], targets: Any, rows: slice) -> Tensor:
        """What some rows add to the loss."""


def cached_loss(
    model: Callable[[Features], Features],
    sentence_features: Sequence[Features],
    mini_batch_size: int,
    loss_of: Loss,
    num_tokens: int | None = None,
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
        num_tokens: How many tokens go through it at a time, in place of so many texts.

    Returns:
        A scalar; under ``no_grad`` the same number.
    """
    batches = [list(mini_batches(features, mini_batch_size, num_tokens)) for features in sentence_features]
    states: list[list[Circumstances]] = []
    embeddings: list[Tensor] = []
    for column in batches:
        states.append([])
        made = []
        for batch in column:
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
    again = partial(_backward, model, batches, states, gradients)
    loss.register_hook(again)  # type: ignore[no-untyped-call]
    return loss


def row_wise_loss(
    loss: RowWiseLoss, model: nn.Module, sentence_features: Sequence[Features], labels: Any
) -> Tensor:
    """``cached_loss`` of a loss that knows what rows add to it."""
    targets = loss.targets(sentence_features, labels)
    return cached_loss(
        model,
        sentence_features,
        loss.mini_batch_size,
        lambda made, rows: loss.of_rows(made, targets, rows),
        loss.mini_batch_num_tokens,
    )


def _backward(
    model: Callable[[Features], Features],
    batches: Sequence[Sequence[Features]],
    states: Sequence[Sequence[Circumstances]],
    gradients: Sequence[Tensor | None],
    of_loss: Tensor,
) -> None:
    """Bring the gradients of the embeddings to the parameters."""
    steps = [
        (batch, state, part)
        for column, states_of_column, gradient in zip(batches, states, gradients, strict=True)
        if gradient is not None
        for batch, state, part in zip(column, states_of_column, _like(column, gradient), strict=True)
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


def _like(batches: Sequence[Features], rows: Tensor) -> Sequence[Tensor]:
    """The rows of a tensor, cut as the batches are."""
    counts = [
        next(len(value) for value in batch.values() if isinstance(value, Tensor) and value.ndim > 0)
        for batch in batches
    ]
    return torch.split(rows, counts)
