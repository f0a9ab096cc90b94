"""Linear layers whose weights lie as the processor wants them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Activation:
    """What follows a linear layer, element by element.

    Args:
        function: Tensor → Tensor.
        fused: The name of the post-operation in oneDNN's linear layer, and of its algorithm.
    """

    function: Callable[[Tensor], Tensor]
    fused: tuple[str, str]


def _tanh_gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


ACTIVATIONS: Mapping[str, Activation] = {
    "gelu": Activation(functional.gelu, ("gelu", "none")),
    "gelu_new": Activation(_tanh_gelu, ("gelu", "tanh")),
    "gelu_pytorch_tanh": Activation(_tanh_gelu, ("gelu", "tanh")),
    "relu": Activation(functional.relu, ("relu", "")),
    "silu": Activation(functional.silu, ("swish", "")),
    "swish": Activation(functional.silu, ("swish", "")),
}
"""The name of an activation in a configuration → what it is."""


class Linear(Protocol):
    """x → act(x Wᵀ + b)."""

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out), in the format of x."""

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The same, without activation, added to a residual (tokens, out), in the format of the residual; it may be
        added in place.
        """


@dataclass(frozen=True)
class PlainLinear:
    """A linear layer on the weights as they are.

    Args:
        weight: Shape (out, in).
        bias: Shape (out,), if there is one.
        activation: What follows.
    """

    weight: Tensor
    bias: Tensor | None
    activation: Activation | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        product = functional.linear(x, self.weight, self.bias)
        return product if self.activation is None else self.activation.function(product)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The same, added to a residual."""
        return residual.add_(functional.linear(x, self.weight, self.bias))


@dataclass(frozen=True)
class PackedLinear:
    """A linear layer of oneDNN, its weights reordered once, its activation part of the product.

    Args:
        weight: What ``_reorder_linear_weight`` makes of a weight (out, in).
        bias: Shape (out,), if there is one.
        activation: What follows.
    """

    weight: Tensor
    bias: Tensor | None
    activation: Activation | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        name, algorithm = ("none", "") if self.activation is None else self.activation.fused
        product: Tensor = _pointwise()(x, self.weight, self.bias, name, [], algorithm)
        return product

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The same, added to a residual."""
        if residual.dtype != x.dtype:
            # In place: otherwise a sum of two formats takes torch many times longer.
            return residual.add_(self(x))
        total: Tensor = _pointwise_binary()(x, residual, self.weight, self.bias, "add")
        return total


def linear(
    weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, activation: Activation | None = None, packed: bool
) -> Linear:
    """The linear layer of this weight, in the form that is quickest.

    Args:
        weight: Shape (out, in).
        bias: Shape (out,), if there is one.
        dtype: The format of the product.
        activation: What follows.
        packed: Whether a copy of the weight may be made.
    """
    weight = weight.detach().to(dtype)
    bias = None if bias is None else bias.detach().to(dtype)
    if packed and weight.device.type == "cpu" and can_pack(dtype):
        # oneDNN reads a bias as if it lay there in one piece.
        bias = None if bias is None else bias.contiguous()
        return PackedLinear(torch.ops.mkldnn._reorder_linear_weight(weight, None), bias, activation)
    return PlainLinear(weight, bias, activation)


@dataclass(frozen=True)
class Products:
    """How the linear layers of an encoder are made.

    Args:
        dtype: The format of the products.
        packed: Whether copies of the weights may be made.
    """

    dtype: torch.dtype
    packed: bool

    def linear(self, modules: Sequence[nn.Linear], activation: Activation | None = None) -> Linear:
        """One linear layer in place of several that have the same input, their outputs side by side."""
        weights: list[Tensor] = [module.weight for module in modules]
        biases: list[Tensor | None] = [module.bias for module in modules]
        weight, bias = weights[0], biases[0]
        if len(modules) > 1:
            weight = torch.cat(weights)
            # Of several, some may lack a bias.
            parts = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
            bias = None if all(b is None for b in biases) else torch.cat(parts)
        return linear(weight, bias, self.dtype, activation=activation, packed=self.packed)


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN's linear layer is there and computes what it should.

    It is no public interface of torch, so it is tried, on products of small whole numbers, which every format
    holds exactly.
    """
    weight = (torch.arange(48 * 32).reshape(48, 32) % 5 - 2).to(dtype)
    x = (torch.arange(24 * 32).reshape(24, 32) % 3 - 1).to(dtype)
    bias = (torch.arange(48) % 7).to(dtype)
    expected = x.double() @ weight.double().T + bias.double()
    activation = ACTIVATIONS["relu"]
    try:
        packed = PackedLinear(torch.ops.mkldnn._reorder_linear_weight(weight, None), bias, activation)
        plain = PackedLinear(packed.weight, bias)
        found = (packed(x), plain(x), plain.plus(x, plain(x)))
    except (RuntimeError, AttributeError):
        return False
    return all(
        torch.equal(one.double(), other)
        for one, other in zip(found, (expected.relu(), expected, expected * 2), strict=True)
    )


@cache
def _pointwise() -> Any:
    return _unwrapped(torch.ops.mkldnn._linear_pointwise.default)


@cache
def _pointwise_binary() -> Any:
    return _unwrapped(torch.ops.mkldnn._linear_pointwise.binary)


def _unwrapped(overload: Any) -> Any:
    """An operation of torch without the call of Python around it, for which a lone text waits once a product. It is
    as private as the operation, and tried with it.
    """
    return getattr(overload, "_op", overload)
