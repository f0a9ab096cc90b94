"""A shadow of a model: the same modules on the same weights, with faster linear layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from sentence_embedder.acceleration.linear import Linear, linear

_Module = TypeVar("_Module", bound=nn.Module)


def shadow_of(model: nn.Module, dtype: torch.dtype, *, packed: bool) -> nn.Module:
    """A model that shares all with another one but its linear layers and buffers, and leaves that one as it is.

    Args:
        model: The model.
        dtype: The format of the products of linear layers.
        packed: Whether copies of their weights may be made.
    """

    def shadowed(layer: nn.Linear) -> nn.Module:
        return _ShadowLinear.of(layer, linear(layer.weight, layer.bias, dtype, packed=packed), dtype)

    return twin_of(model, shadowed)


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
        rows = x.reshape(-1, x.shape[-1])
        return self._product(rows.to(self._dtype)).to(x.dtype).reshape(*x.shape[:-1], self.out_features)


def _twin(model: nn.Module, twin_class: type[_Module]) -> _Module:
    """Another module with the same attributes, and buffers of its own."""
    twin = twin_class.__new__(twin_class)
    buffers = {name: None if buffer is None else buffer.clone() for name, buffer in model._buffers.items()}
    twin.__dict__.update({**model.__dict__, "_buffers": buffers})
    return twin
