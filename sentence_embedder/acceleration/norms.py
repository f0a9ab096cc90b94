"""Norms: what brings each token to a standard scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional


class Norm(Protocol):
    """Brings each row to a standard scale."""

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) → the same shape."""


@dataclass(frozen=True)
class LayerNorm:
    """Zero mean, unit variance, then scale and shift (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

    Args:
        weight: Shape (dim,).
        bias: Shape (dim,), if there is one.
        eps: What is added to the variance.
    """

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) → the same shape."""
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class RMSNorm:
    """Unit mean square, then scale (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

    Args:
        weight: Shape (dim,).
        eps: What is added to the mean square.
        offset: What is added to the weight.
    """

    weight: Tensor
    eps: float
    offset: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) → the same shape."""
        weight = self.weight.float() + self.offset if self.offset else self.weight
        return (_rms_normed if x.device.type == "cpu" else _rms_normed_at_once)(x, weight, self.eps)


def _rms_normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """In half as many passes over the memory as torch's own norm makes on the CPU."""
    wide = x.float()
    squares: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    factors = squares.mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (wide * factors).mul_(weight.float()).to(x.dtype)


def _rms_normed_at_once(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """By torch's own norm, which squares in float32, whatever the format."""
    wide = x.to(torch.promote_types(x.dtype, weight.dtype))
    return functional.rms_norm(wide, weight.shape, weight, eps).to(x.dtype)


def identity(x: Tensor) -> Tensor:
    """The norm of a layer that has none."""
    return x
