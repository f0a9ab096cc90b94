"""A shadow of a model: the same modules on the same weights, with faster linear layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from sentence_embedder.acceleration.linear import Linear, linear

_Module = TypeVar("_Module", bound=nn.Module)

_FEW_ROWS = 10
"""The products of so few wait for their weights, wherever these lie, and torch's own call takes fewer steps."""


class Shadow:
    """Models that share all with another one but its linear layers and buffers, and leave that one as it is.

    Whoever computes has one to himself: some forward passes keep something in their modules, or their buffers.

    Args:
        model: The model.
        dtype: The format of the products of linear layers.
        packed: Whether copies of their weights may be made.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype, *, packed: bool) -> None:
        def shadowed(layer: nn.Linear) -> nn.Module:
            return _ShadowLinear.of(layer, linear(layer.weight, layer.bias, dtype, packed=packed), dtype)

        self.dtype = dtype
        self._first = twin_of(model, shadowed)
        self._free: list[nn.Module] = []

    def new(self) -> nn.Module:
        """One that nobody else gets."""
        return twin_of(self._first)

    @contextmanager
    def lent(self) -> Iterator[nn.Module]:
        """One that nobody else has meanwhile. There are as many as were wanted at the same time."""
        try:
            model = self._free.pop()
        except IndexError:
            model = self.new()
        yield model
        # After an error it is not given back: it may have come to a halt anywhere.
        self._free.append(model)


def twin_of(model: nn.Module, of_linear: Callable[[nn.Linear], nn.Module] | None = None) -> nn.Module:
    """A model that shares the parameters of another one; buffers, which forward passes may write into, are its own.

    Args:
        model: The model.
        of_linear: What takes the place of a linear layer, if it is another one.
    """
    if of_linear is not None and type(model) is nn.Linear:
        return of_linear(model)
    twin = _twin(model, type(model))
    twin._modules = {
        name: None if child is None else twin_of(child, of_linear) for name, child in model._modules.items()
    }
    return twin


class _ShadowLinear(nn.Linear):
    """A linear layer with the weights of another one, computed from a copy of them."""

    _product: Linear
    _dtype: torch.dtype

    @staticmethod
    def of(model: nn.Linear, product: Linear, dtype: torch.dtype) -> _ShadowLinear:
        shadow: _ShadowLinear = _twin(model, _ShadowLinear)
        object.__setattr__(shadow, "_product", product)
        object.__setattr__(shadow, "_dtype", dtype)
        return shadow

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        if x.dtype != self._dtype:
            return self._product(x.to(self._dtype)).to(x.dtype)
        return super().forward(x) if x.numel() <= _FEW_ROWS * x.shape[-1] else self._product(x)


def _twin(model: nn.Module, twin_class: type[_Module]) -> _Module:
    """Another module with the same attributes, and buffers of its own."""
    twin = twin_class.__new__(twin_class)
    buffers = {name: None if buffer is None else buffer.clone() for name, buffer in model._buffers.items()}
    twin.__dict__.update({**model.__dict__, "_buffers": buffers})
    return twin
