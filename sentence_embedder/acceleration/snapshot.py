"""Snapshot: what a model looked like when its weights were read."""

from __future__ import annotations

import operator
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sentence_embedder.features import memory_of

_SAMPLES = 4
"""Values of each tensor, about."""


class Snapshot:
    """What a model looked like when its weights were read: its modules, what these and their configurations are set
    to, and their weights and hooks.

    torch counts the changes of a tensor, except those made through ``.data``. In linear layers, whose weights and
    biases are copied, those are noticed by a few values of each, which are compared.

    A lone short text waits for this, so no module takes a step of Python.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._classes = list(map(type, self._modules))
        self._distinct_classes = list(dict.fromkeys(self._classes))
        self._forward_passes = list(map(_forward_pass_of, self._distinct_classes))
        self._attributes = [module.__dict__ for module in self._modules]
        self.is_bare = all(map(is_bare, self._modules))
        """Whether nobody had put anything around the forward passes."""
        self._holders = [*self._attributes, *_configurations(self._modules)]
        self._counts = list(map(len, self._holders))
        settings = [(holder, name) for holder in self._holders for name in holder if name not in _PARTS]
        self._setting_holders, self._setting_names = zip(*settings, strict=True)
        self._settings = self._set()
        self._contents = self._contained()
        tensors = [part for part in self._contents if isinstance(part, Tensor)]
        self._tensors = tensors
        # Tensors of inference mode are not counted.
        self._counted = [tensor for tensor in tensors if not tensor.is_inference()]
        self._marks = self._marked()
        self._sampled = _sampler(_samples(self._modules))
        self._values = self._sampled()

    def is_current(self) -> bool:
        """Whether the model still looks like that."""
        return (
            list(map(type, self._modules)) == self._classes
            and list(map(_forward_pass_of, self._distinct_classes)) == self._forward_passes
            and list(map(len, self._holders)) == self._counts
            and _are_same(self._set(), self._settings)
            and _are_same(self._contained(), self._contents)
            and self._marked() == self._marks
            and self._sampled() == self._values
        )

    @property
    def is_shared(self) -> bool:
        """Whether other processes can write to the weights: who sends a model to one by torch shares them all."""
        return any(map(Tensor.is_shared, self._tensors[:1]))

    def _set(self) -> list[Any]:
        """What modules and configurations are set to."""
        return list(map(dict.get, self._setting_holders, self._setting_names))

    def _contained(self) -> list[Any]:
        """The modules, parameters, buffers and hooks of each module."""
        parts = filter(None, chain.from_iterable(map(_parts_of, self._attributes)))
        return list(chain.from_iterable(map(_values_of, parts)))

    def _marked(self) -> list[Any]:
        """What changes when a tensor is written to, or gets another memory or another part of it."""
        of_memory = (map(mark, self._tensors) for mark in (Tensor.data_ptr, Tensor.numel, Tensor.stride))
        return [*map(_version_of, self._counted), *chain.from_iterable(of_memory)]


def is_bare(module: nn.Module) -> bool:
    """Whether nobody has put anything around the forward pass of a module: no hooks, no replaced method."""
    return not (module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


_parts_of = operator.itemgetter("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")
_values_of = operator.methodcaller("values")
_version_of = operator.attrgetter("_version")
_forward_pass_of = operator.attrgetter("forward")

_PARTS = frozenset(nn.Module().__dict__) - {"training"}
"""What every module keeps its parts and hooks in."""


def _configurations(modules: list[nn.Module]) -> list[dict[str, Any]]:
    """The attributes of the configurations that modules look into."""
    found = {id(module.config): module.config for module in modules if hasattr(module, "config")}
    return [vars(config) for config in found.values() if hasattr(config, "__dict__")]


def _are_same(found: list[Any], known: list[Any]) -> bool:
    return len(found) == len(known) and all(map(operator.is_, found, known))


def _sampler(samples: list[Tensor]) -> Callable[[], bytes]:
    """What tells the present values of some tensors."""
    if not samples:
        return bytes
    if samples[0].device.type != "cpu":
        return lambda: memory_of(torch.cat([sample.reshape(-1) for sample in samples]).cpu()).tobytes()
    arrays = [memory_of(sample) for sample in samples]
    return lambda: np.concatenate(arrays, axis=None).tobytes()


def _samples(modules: list[nn.Module]) -> list[Tensor]:
    """Views of a few values of each weight and bias of the linear layers, those on the device of the first."""
    tensors = [
        tensor.detach()
        for module in modules
        if type(module) is nn.Linear
        for tensor in module._parameters.values()
        if tensor is not None and not tensor.is_meta
    ]
    return [_few_values(tensor) for tensor in tensors if tensor.device == tensors[0].device]


def _few_values(tensor: Tensor) -> Tensor:
    """A view of a few values."""
    if tensor.is_contiguous():
        return tensor.view(-1)[:: max(1, tensor.numel() // _SAMPLES)]
    return tensor[tuple(slice(None, None, max(1, size * 2 // _SAMPLES)) for size in tensor.shape)]
