"""Linear layers that are trained: the products of torch's, by oneDNN where it is quicker, there and back."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from sentence_embedder.acceleration.dtypes import is_made_by
from sentence_embedder.acceleration.linear import can_pack

_ROWS_AT_ONCE = 512

_LEAST = 2**20
"""Products with fewer multiplications are done before Python has chosen how."""


def quick_products(device: torch.device) -> AbstractContextManager[Any]:
    """Within this context linear layers in float32, and their gradients, are computed in a device's quickest way.

    On a CPU that is oneDNN, unless torch has MKL and knows the processor for one of Intel. On those MKL is quicker
    by a quarter of a step, as it takes batches and weights however they come; on others it holds back, and has half
    the speed of oneDNN. Weights stay as they are, and what is not such a layer is computed as ever.
    """
    is_quick_already = torch.backends.mkl.is_available() and is_made_by("Intel")  # type: ignore[no-untyped-call]
    if device.type != "cpu" or is_quick_already or not (can_pack(torch.float32) and _works()):
        return nullcontext()
    return QuickProducts()


class QuickProducts(TorchFunctionMode):
    """Within this context oneDNN computes linear layers in float32 on a CPU, and their gradients."""

    def __exit__(self, *error: Any) -> None:
        try:
            super().__exit__(*error)  # type: ignore[no-untyped-call]
        except RuntimeError:
            # torch takes a mode away while it asks it; Ctrl-C at that moment leaves nothing to take away here.
            if error[0] is not KeyboardInterrupt:
                raise

    def __torch_function__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        del types
        if func is functional.linear and not kwargs and _is_worth_it(*args):
            return _linear(*args)
        return func(*args, **(kwargs or {}))


def _is_worth_it(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    given = (x, weight) if bias is None else (x, weight, bias)
    return (
        all(map(_is_plain, given))
        and x.ndim > 1
        and weight.ndim == 2
        and x.shape[-1] == weight.shape[1]
        and x.numel() * len(weight) >= _LEAST
        # oneDNN reads a bias as if it lay there in one piece.
        and (bias is None or (bias.shape == weight.shape[:1] and bias.is_contiguous()))
        and not torch.is_autocast_enabled("cpu")
        and not _transforms_are_active()
    )


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype == torch.float32
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
    )


def _transforms_are_active() -> bool:
    """Whether this is inside of ``torch.func``, which wants more of a function than a gradient."""
    return bool(getattr(torch._C, "_are_functorch_transforms_active", bool)())


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call, no-any-return]


class _Linear(torch.autograd.Function):
    """x Wᵀ + b, of x (…, in), W (out, in) and b (out,). The output is no view: what follows may write into it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        of_x, of_weight, _ = ctx.needs_input_grad
        # What no gradient needs is not kept: it is most of the memory of a model whose weights are frozen.
        ctx.save_for_backward(x if of_weight else None, weight if of_x else None)
        return _product_of_all(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        rows = gradient.flatten(0, -2)
        of_b = rows.sum(dim=0) if of_bias else None
        if torch.is_grad_enabled():  # a gradient that has a gradient itself, by what torch can follow
            return (
                gradient @ weight if of_x else None,
                rows.T @ x.flatten(0, -2) if of_weight else None,
                of_b,
            )
        return (
            _product_of_all(gradient, weight.T, None) if of_x else None,
            _outer(rows, x.flatten(0, -2)) if of_weight else None,
            of_b,
        )


def _product_of_all(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b of x (…, in), some rows at a time."""
    rows = x.flatten(0, -2)
    product = x.new_empty(*x.shape[:-1], len(weight))
    parts = zip(torch.split(rows, _ROWS_AT_ONCE), torch.split(product.flatten(0, -2), _ROWS_AT_ONCE), strict=True)
    for part, target in parts:
        target.copy_(_product(_filled_up(part), weight, bias)[: len(part)])
    return product


def _outer(one: Tensor, other: Tensor) -> Tensor:
    """oneᵀ other, some rows at a time."""
    first, *others = [
        (_filled_up(part).T, _filled_up(of_other).T)
        for part, of_other in zip(torch.split(one, _ROWS_AT_ONCE), torch.split(other, _ROWS_AT_ONCE), strict=True)
    ]
    total = _product(*first, None)
    for pair in others:
        total += _product(*pair, None)
    return total


def _filled_up(rows: Tensor) -> Tensor:
    """Rows with as many zeros behind them as make up one of two sizes an octave.

    For each size of a product that it meets oneDNN keeps some megabytes, the more the larger, for the life of the
    process, and batches of training come in all sizes.
    """
    count = len(rows)
    step = 1 << max(0, (count - 1).bit_length() - 2)
    missing = -count % step
    return functional.pad(rows, (0, 0, 0, missing)) if missing else rows


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], "")
    return product


@cache
def _works() -> bool:
    """Whether oneDNN takes weights as they are, transposed ones too; no public interface of torch promises it."""
    x = (torch.arange(24 * 32).reshape(24, 32) % 3 - 1).float()
    weight = (torch.arange(48 * 32).reshape(48, 32) % 5 - 2).float()
    try:
        product = _product(x, weight, None)
        pairs = (
            (product, x @ weight.T),
            (_product(product, weight.T, None), product @ weight),
            (_product(product.T, x.T, None), product.T @ x),
        )
    except (RuntimeError, AttributeError):
        return False
    return all(torch.equal(found, expected) for found, expected in pairs)
