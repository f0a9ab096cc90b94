"""Gradients of a large batch in the memory of a small one (GradCache; Gao et al. 2021,
https://arxiv.org/abs/2101.06983).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from sentence_embedder.features import Features
from sentence_embedder.losses.embedding_loss import EmbeddingLoss
from sentence_embedder.losses.gathering import gathered_targets, joined, world_size


class Circumstances:
    """What else the outcome of a forward pass depends on, at one moment: the random numbers on the CPU and on the
    devices of some tensors, whether formats are chosen by torch (autocast), and who computes torch's functions.

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
        self._modes = _function_modes()

    @contextmanager
    def again(self) -> Iterator[None]:
        """The same once more; afterwards random numbers go on as if none had been drawn."""
        with ExitStack() as entered:
            for kind, (enabled, dtype) in self._autocast.items():
                entered.enter_context(torch.autocast(kind, dtype=dtype, enabled=enabled))
            active = _function_modes()
            for mode in self._modes:  # on the way back torch leaves them
                if not any(mode is other for other in active):
                    entered.enter_context(mode)
            entered.enter_context(torch.random.fork_rng(self._devices))
            torch.set_rng_state(self._on_cpu)
            for device, state in zip(self._devices, self._on_devices, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield


def _function_modes() -> list[Any]:
    """What computes torch's functions, beside torch."""
    overrides: Any = torch.overrides
    return list(overrides._get_current_function_mode_stack())


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

    gather_across_devices: bool

    @property
    def is_cached(self) -> bool:
        """Whether its gradients are computed so."""

    @property
    def mini_batch_size(self) -> int:
        """How many texts go through the model at a time."""

    @property
    def mini_batch_num_tokens(self) -> int | None:
        """How many tokens do, if it is not so many texts."""

    def joint_targets(self, sentence_features: Sequence[Features], labels: Any) -> Any:
        """What the embeddings are held against."""

    def of_rows(self, embeddings: list[Tensor], targets: Any, rows: slice) -> Tensor:
        """What some rows add to the loss."""


def cached_loss(
    model: Callable[[Features], Features],
    columns: Sequence[Sequence[Features]],
    loss_of: Loss,
    *,
    rows_at_once: int | None = None,
    gather: bool = False,
    parameters: Sequence[nn.Parameter] = (),
) -> Tensor:
    """The loss of a batch whose gradients are computed a few texts at a time.

    Embeddings are made without a graph; the gradients of the loss by them are kept; and when ``backward`` is called
    on the loss, the embeddings are made again with a graph, a few at a time, with the same random numbers, and each
    brings its gradient to the parameters.

    Args:
        model: Features → Features with a ``sentence_embedding``.
        columns: The Features of each column, in mini-batches: what goes through the model at a time, with a graph.
        loss_of: What some rows add to the loss.
        rows_at_once: For how many rows the loss is computed at a time; by default for all.
        gather: Whether the embeddings are joined with those of the other processes that train the model.
        parameters: Parameters of the loss itself, none of the model's.

    Returns:
        A scalar; under ``no_grad`` the same number.
    """
    steps = [[_Step.first(model, batch) for batch in batches] for batches in columns]
    made = [_wide(torch.cat([step.embedding for step in column])) for column in steps]
    places = [slice(0, len(embedding)) for embedding in made]
    if gather:
        made, places = (list(found) for found in zip(*map(joined, made), strict=True))
    if not torch.is_grad_enabled():
        return torch.stack([loss_of(made, rows) for rows in _rows_at_once(made, rows_at_once)]).sum()
    leaves = [embedding.requires_grad_() for embedding in made]
    device = leaves[0].device.type
    wanted = [*leaves, *parameters]
    loss = leaves[0].new_zeros(())
    gradients: list[Tensor | None] = [None] * len(wanted)
    for rows in _rows_at_once(leaves, rows_at_once):
        # The gradients are not scaled yet: in half precision those of a large batch would vanish.
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            of_rows = loss_of(leaves, rows)
        loss = loss + of_rows.detach()
        found = torch.autograd.grad(of_rows, wanted, allow_unused=True)
        gradients = [_sum(*pair) for pair in zip(gradients, found, strict=True)]
    # As in ``gathered``: every process computes the joint loss.
    share = world_size() if gather else 1
    returns = [
        (step, part * share)
        for column, gradient, own in zip(steps, gradients[: len(leaves)], places, strict=True)
        if gradient is not None
        for step, part in zip(
            column, torch.split(gradient[own], [len(step.embedding) for step in column]), strict=True
        )
    ]
    of_parameters = [*zip(parameters, gradients[len(leaves) :], strict=True)]
    loss.requires_grad_()
    loss.register_hook(partial(_backward, model, returns, of_parameters))  # type: ignore[no-untyped-call]
    return loss


@dataclass(frozen=True)
class _Step:
    """A mini-batch that went through the model without a graph.

    Args:
        batch: Its Features.
        circumstances: The circumstances.
        embedding: What came of it.
    """

    batch: Features
    circumstances: Circumstances
    embedding: Tensor

    @classmethod
    def first(cls, model: Callable[[Features], Features], batch: Features) -> _Step:
        circumstances = Circumstances(batch)
        with torch.no_grad():
            return cls(batch, circumstances, model(batch)["sentence_embedding"])


def _rows_at_once(embeddings: Sequence[Tensor], size: int | None) -> Iterator[slice]:
    """All rows, so many at a time."""
    rows = len(embeddings[0])
    return _parts([1] * rows, size or rows)


def _wide(tensor: Tensor) -> Tensor:
    """Halves in float32."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _own_parameters(loss: Any) -> list[nn.Parameter]:
    """The parameters of a loss that are not its model's."""
    of_model = {id(parameter) for parameter in loss.model.parameters()}
    return [own for own in loss.parameters() if own.requires_grad and id(own) not in of_model]


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other


def mini_batched_loss(
    loss: RowWiseLoss,
    model: Callable[[Features], Features],
    sentence_features: Sequence[Features],
    loss_of: Loss,
) -> Tensor:
    """``cached_loss`` with the mini-batches that a loss wants.

    Args:
        loss: The loss.
        model: Features → Features with a ``sentence_embedding``.
        sentence_features: The Features of each column.
        loss_of: What some rows add.
    """
    return cached_loss(
        model,
        [
            list(mini_batches(features, loss.mini_batch_size, loss.mini_batch_num_tokens))
            for features in sentence_features
        ],
        loss_of,
        rows_at_once=loss.mini_batch_size,
        gather=loss.gather_across_devices,
        parameters=_own_parameters(loss),
    )


def row_wise_loss(
    loss: RowWiseLoss, model: nn.Module, sentence_features: Sequence[Features], labels: Any
) -> Tensor:
    """``mini_batched_loss`` of a loss that knows what rows add to it."""
    targets = loss.joint_targets(sentence_features, labels)
    return mini_batched_loss(loss, model, sentence_features, lambda made, rows: loss.of_rows(made, targets, rows))


def _backward(
    model: Callable[[Features], Features],
    returns: Sequence[tuple[_Step, Tensor]],
    of_parameters: Sequence[tuple[nn.Parameter, Tensor | None]],
    of_loss: Tensor,
) -> None:
    """Bring the gradients of the embeddings to the parameters of the model, and those of the loss's own to them."""
    # Where the model itself is a distributed one, its ranks exchange gradients once, with the last mini-batch.
    apart: Callable[[], AbstractContextManager[Any]] = getattr(model, "no_sync", nullcontext)
    for number, (step, part) in enumerate(returns, start=1):
        with nullcontext() if number == len(returns) else apart():
            with step.circumstances.again(), torch.enable_grad():
                embedding = model(step.batch)["sentence_embedding"]
            if embedding.requires_grad:  # of a frozen part there is nothing to learn
                embedding.backward((part * of_loss).to(embedding.dtype))
    for parameter, gradient in of_parameters:
        parameter.grad = _sum(parameter.grad, None if gradient is None else gradient * of_loss)


def joint_loss(loss: EmbeddingLoss, batches: Sequence[tuple[Sequence[Features], Any]]) -> Tensor:
    """The loss of several batches as if they were one, in the memory of one of them.

    Args:
        loss: The loss.
        batches: The Features of each column and the labels, batch by batch.

    Raises:
        ValueError: The loss is not one of embeddings by one model.
    """
    check_joint(loss)
    found = [loss.targets(features, labels) for features, labels in batches]
    targets = found[0] if found[0] is None else _one_behind_the_other(found)
    if loss.gather_across_devices:
        targets = gathered_targets(targets)
    return cached_loss(
        loss.model,
        [list(column) for column in zip(*(features for features, _ in batches), strict=True)],
        lambda made, _rows: loss.of_embeddings(made, targets),
        gather=loss.gather_across_devices,
        parameters=_own_parameters(loss),
    )


def check_joint(loss: nn.Module) -> None:
    """Raise a ValueError for a loss of which batches cannot be made one."""
    if not isinstance(loss, EmbeddingLoss) or not loss.can_be_joined:
        raise ValueError(
            f"effective_batch_size: expected a loss of this package over the embeddings of one model, found "
            f"{type(loss).__name__}: gradient_accumulation_steps= is for all losses"
        )


def _one_behind_the_other(targets: Sequence[Any]) -> Any:
    """The targets of several batches as those of one."""
    if isinstance(targets[0], Tensor):
        return torch.cat(list(targets))
    return [_one_behind_the_other(column) for column in zip(*targets, strict=True)]
