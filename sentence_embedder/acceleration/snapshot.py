"""Snapshot: what a model looked like when its weights were read."""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sentence_embedder.acceleration.patches import Methods, attention_function_of
from sentence_embedder.features import memory_of

_WHOLE_NUMBERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes → the format of whole numbers of so many."""

_SAMPLES = 16
"""Values of each tensor, about."""

_VALUES_AT_ONCE = 2**20
"""Of so many values there is a copy while they are added up."""


class Snapshot:
    """What a model looked like when its weights were read: its modules, what these and their configurations are set
    to, their weights and hooks, and the attention function that they call.

    torch counts the changes of a tensor, except those made through ``.data``, a numpy view, or the like. In linear
    layers, and of buffers, which are copied, those are noticed by values of each, which are compared: a few, or,
    beside much work, sums of all.

    A lone short text waits for this, so no module takes a step of Python.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._modules = list(model.modules())
        self._classes = list(map(type, self._modules))
        self._methods = Methods(self._classes)
        self._attributes = [module.__dict__ for module in self._modules]
        self.is_bare = all(map(is_bare, self._modules))
        """Whether nobody had put anything around the forward passes."""
        # Whoever listens may keep something with each call; nothing is read of such a model, or copied.
        configurations = _configurations(self._modules) if self.is_bare else []
        self._holders = [*self._attributes, *configurations] if self.is_bare else []
        self._counts = list(map(len, self._holders))
        settings = [(holder, name) for holder in self._holders for name in holder if name not in _PARTS]
        self._setting_holders = [holder for holder, _ in settings]
        self._setting_names = [name for _, name in settings]
        self._settings = self._set()
        # A list stays the same when something is put into it.
        values = chain.from_iterable(map(dict.values, configurations))
        self._collections = [value for value in values if isinstance(value, list | dict) and _is_plain(value)]
        self._copies = copy.deepcopy(self._collections)
        self._contents = self._contained()
        tensors = [part for part in self._contents if isinstance(part, Tensor)]
        self._tensors = tensors
        # Tensors of inference mode are not counted.
        self._counted = [tensor for tensor in tensors if not tensor.is_inference()]
        self._marks = self._marked()
        self._attention_function = attention_function_of(model)
        self._copied = _copied_tensors(self._modules) if self.is_bare else []
        self._sampled = _sampler(list(map(_few_values, self._copied)))
        self._values = self._sampled()
        self._sums = _sums_of_rows(self._copied)

    def is_current(self, *, thoroughly: bool = False) -> bool:
        """Whether the model still looks like that.

        Args:
            thoroughly: Whether all weights that are copied are looked at, and not a few values of each.
        """
        return (
            list(map(type, self._modules)) == self._classes
            and self._methods.are_same()
            and list(map(len, self._holders)) == self._counts
            and _are_same(self._set(), self._settings)
            and self._collections == self._copies
            and _are_same(self._contained(), self._contents)
            and self._marked() == self._marks
            and self._sampled() == self._values
            and attention_function_of(self._modules[0]) is self._attention_function
            and (not thoroughly or torch.equal(_sums_of_rows(self._copied), self._sums))
        )

    @property
    def is_shared(self) -> bool:
        """Whether other processes can write to the weights: who sends a model to one by torch shares them all."""
        return any(tensor.untyped_storage().is_shared() for tensor in self._tensors[:1])

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

_PARTS = frozenset(nn.Module().__dict__) - {"training"}
"""What every module keeps its parts and hooks in."""


def _configurations(modules: list[nn.Module]) -> list[dict[str, Any]]:
    """The attributes of the configurations that modules look into."""
    found = {id(module.config): module.config for module in modules if hasattr(module, "config")}
    return [vars(config) for config in found.values() if hasattr(config, "__dict__")]


def _is_plain(value: Any) -> bool:
    """Whether a value is as JSON has them: what can be compared with what it was."""
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


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


def _copied_tensors(modules: list[nn.Module]) -> list[Tensor]:
    """The weights and biases of the linear layers, and the buffers, those on the device of the first."""
    linears = [module._parameters for module in modules if type(module) is nn.Linear]
    parts: Iterable[Tensor | None] = chain.from_iterable(
        map(_values_of, (*linears, *(module._buffers for module in modules)))
    )
    known = [tensor.detach() for tensor in parts if tensor is not None and _has_values(tensor)]
    tensors = [tensor if tensor.ndim else tensor.view(1) for tensor in known]
    return [tensor for tensor in tensors if tensor.device == tensors[0].device]


def _has_values(tensor: Tensor) -> bool:
    return tensor.numel() > 0 and not tensor.is_meta and tensor.layout == torch.strided


def _few_values(tensor: Tensor) -> Tensor:
    """A view of a few values, in columns that differ."""
    if tensor.is_contiguous():
        step = max(1, tensor.numel() // _SAMPLES)
        while math.gcd(step, tensor.shape[-1]) > 1:
            step += 1
        return tensor.view(-1)[::step]
    return tensor[tuple(slice(None, None, max(1, size * 2 // _SAMPLES)) for size in tensor.shape)]


def _sums_of_rows(tensors: list[Tensor]) -> Tensor:
    """Sums of all rows of some tensors, each value times a number of its column at random, as whole numbers that
    wrap around: exact, whoever adds them up, and others if values have changed, or changed places.
    """
    sums = [part for tensor in tensors for part in _sums_of(tensor.view(_WHOLE_NUMBERS[tensor.element_size()]))]
    return torch.cat(sums) if sums else torch.empty(0)


def _sums_of(bits: Tensor) -> Iterator[Tensor]:
    is_wide = bits.element_size() >= 4  # of fewer bits there would be few factors
    factors = _factors(bits.shape[-1], bits.dtype if is_wide else torch.int32).to(bits.device)
    table = bits.reshape(-1, bits.shape[-1])
    for rows in torch.split(table, max(1, _VALUES_AT_ONCE // bits.shape[-1])):
        products = rows * factors
        yield products.sum(dim=-1, dtype=factors.dtype)
        if is_wide:
            # A sign is the highest bit: two of them vanish from a sum that wraps around, so it is added up alone.
            torch.bitwise_right_shift(rows, 8 * bits.element_size() - 1, out=products).mul_(factors)
            yield products.sum(dim=-1, dtype=factors.dtype)


@cache
def _factors(count: int, dtype: torch.dtype) -> Tensor:
    """So many odd numbers at random; not by torch, whose numbers at random are the user's."""
    limits = torch.iinfo(dtype)
    # Of a fixed seed: a forked process compares with what another one has read.
    numbers = np.random.default_rng(0).integers(limits.min, limits.max, count, dtype=np.int64)
    return torch.from_numpy(numbers | 1).to(dtype)
