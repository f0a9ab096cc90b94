"""Gathering: the embeddings of all processes that train a model together (``torch.distributed``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def joined(rows: Tensor) -> tuple[Tensor, slice]:
    """The rows of all processes, in the order of their ranks, as constants; and where this process's own stand.

    Processes may have different numbers of rows, of the same shape.
    """
    size = world_size()
    if size == 1:
        return rows.detach(), slice(0, len(rows))
    own_count = torch.tensor([len(rows)], device=rows.device)
    found = [torch.empty_like(own_count) for _ in range(size)]
    distributed.all_gather(found, own_count)
    counts = [int(count) for count in found]
    # Processes exchange tensors of one shape.
    padded = rows.new_zeros((max(counts), *rows.shape[1:]))
    padded[: len(rows)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in range(size)]
    distributed.all_gather(parts, padded)
    start = sum(counts[: distributed.get_rank()])
    together = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    return together, slice(start, start + len(rows))


class _WithGradient(torch.autograd.Function):
    """Constants of which some rows are this process's own, and give it their gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, together: Tensor, rows: slice) -> Tensor:  # noqa: ARG004
        ctx.rows = rows
        return together.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        # Every process computes the joint loss, and gradients are averaged over processes.
        return gradients[0][ctx.rows] * world_size(), None, None


def gathered(embeddings: Sequence[Tensor]) -> list[Tensor]:
    """The embeddings of all processes, column by column.

    The joint loss of them, computed in each process, has the gradient of one process with all rows once gradients
    are averaged over processes.
    """
    columns = []
    for own in embeddings:
        together, rows = joined(own)
        columns.append(_WithGradient.apply(own, together, rows))  # type: ignore[no-untyped-call]
    return columns


def agreed(numbers: Sequence[int]) -> list[int]:
    """What the first process has drawn, in all of them."""
    words = [list(numbers)]
    if world_size() > 1:
        distributed.broadcast_object_list(words, src=0)
    return words[0]


def gathered_targets(targets: Any) -> Any:
    """The targets of the rows of all processes: a tensor, tensors, or what belongs to no row."""
    if isinstance(targets, Tensor) and targets.ndim > 0:
        return joined(targets)[0]
    if isinstance(targets, (list, tuple)):
        return [gathered_targets(column) for column in targets]
    return targets
