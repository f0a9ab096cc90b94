"""Weights: all that training changes in some modules, each tensor once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


def weights_of(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """The parameters and buffers of some modules, which may share some.

    Args:
        modules: Name → module.

    Returns:
        Name of the first module that has it, and name in there → tensor; the tensors themselves.
    """
    return dict(_named(modules))


def put_weights(modules: Mapping[str, nn.Module], weights: Mapping[str, Tensor]) -> None:
    """Give modules the weights that ``weights_of`` found in such modules.

    Raises:
        ValueError: Their weights have other names or shapes.
    """
    own = weights_of(modules)
    misfits = sorted(own.keys() ^ weights.keys()) or [
        f"{name} {tuple(weights[name].shape)} for {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if tensor.shape != weights[name].shape
    ]
    if misfits:
        raise ValueError(f"expected a checkpoint of the same model and losses, found others: {misfits[:5]}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _named(modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, Tensor]]:
    seen: set[int] = set()
    for owner, module in modules.items():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if id(tensor) not in seen:
                seen.add(id(tensor))
                yield f"{owner}.{name}", tensor
