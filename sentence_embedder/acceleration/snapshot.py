"""Snapshot: what a model looked like when its weights were read."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor, nn

_SAMPLES = 4
"""Values of each tensor, about."""


class Snapshot:
    """What a model looked like when its weights were read.

    torch counts the changes of a tensor, except those made through ``.data``. In linear layers, whose weights and
    biases are copied, those are noticed by a few values of each, which are compared.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._classes = _classes(self._modules)
        self._children = _children(self._modules)
        self.is_bare = _are_bare(self._modules)
        """Whether nobody had put anything around the forward passes."""
        self._tensors = _tensors(self._modules)
        self._marks = _marks(self._tensors)
        self._samples = _samples(self._modules)
        self._values = self._sampled()

    def is_current(self) -> bool:
        """Whether the model still looks like that."""
        return (
            _are_bare(self._modules) is self.is_bare
            and _are_same(_classes(self._modules), self._classes)
            and _are_same(_children(self._modules), self._children)
            and _are_same(_tensors(self._modules), self._tensors)
            and _marks(self._tensors) == self._marks
            and torch.equal(self._sampled(), self._values)
        )

    def _sampled(self) -> Tensor:
        return torch.cat(self._samples) if self._samples else torch.empty(0)


def is_bare(module: nn.Module) -> bool:
    """Whether nobody has put anything around the forward pass of a module: no hooks, no replaced method."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def _are_bare(modules: list[nn.Module]) -> bool:
    return all(map(is_bare, modules))


def _classes(modules: list[nn.Module]) -> list[type]:
    return list(map(type, modules))


def _children(modules: list[nn.Module]) -> list[nn.Module | None]:
    return [child for module in modules for child in module._modules.values()]


def _tensors(modules: list[nn.Module]) -> list[Tensor]:
    return [
        tensor
        for module in modules
        for named in (module._parameters, module._buffers)
        for tensor in named.values()
        if tensor is not None
    ]


def _samples(modules: list[nn.Module]) -> list[Tensor]:
    """Views of a few values of each weight and bias of the linear layers, those on the device of the first."""
    tensors = [
        tensor.detach()
        for module in modules
        if type(module) is nn.Linear
        for tensor in module._parameters.values()
        if tensor is not None and tensor.is_contiguous() and not tensor.is_meta
    ]
    return [
        tensor.view(-1)[:: max(1, tensor.numel() // _SAMPLES)]
        for tensor in tensors
        if tensor.device == tensors[0].device
    ]


def _are_same(found: list[Any], known: list[Any]) -> bool:
    return len(found) == len(known) and all(map(operator.is_, found, known))


def _marks(tensors: list[Tensor]) -> list[int]:
    """What changes when a tensor is written to, or gets another memory."""
    # Tensors of inference mode are not counted.
    versions = [0 if tensor.is_inference() else tensor._version for tensor in tensors]
    return [*versions, *map(Tensor.data_ptr, tensors)]
