"""Linear layers, packed and plain."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from sentence_embedder.acceleration import linear as linear_module
from sentence_embedder.acceleration.linear import ACTIVATIONS, PackedLinear, PlainLinear, can_pack, linear


@pytest.fixture
def weights() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """An input, a weight, a bias and a residual."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 48), (40, 48), (40,), (7, 40)]
    x, weight, bias, residual = (torch.randn(*shape, generator=generator) for shape in shapes)
    return x, weight, bias, residual


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
@pytest.mark.parametrize("has_bias", [True, False])
def test_products(weights: Any, packed: bool, activation: str | None, has_bias: bool) -> None:
    """A layer is x Wᵀ + b and its activation, packed or not; ``plus`` adds the product to a residual."""
    x, weight, bias, residual = weights
    bias = bias if has_bias else None
    chosen = None if activation is None else ACTIVATIONS[activation]
    layer = linear(weight, bias, torch.float32, activation=chosen, packed=packed)

    product = functional.linear(x, weight, bias)

    expected = product if chosen is None else chosen.function(product)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    plain = linear(weight, bias, torch.float32, packed=packed)
    torch.testing.assert_close(plain.plus(x, residual.clone()), product + residual, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shape", [(48,), (3, 48), (2, 3, 48), (2, 3, 2, 48), (0, 48), (2, 0, 48)])
def test_any_number_of_dimensions(weights: Any, packed: bool, shape: tuple[int, ...]) -> None:
    """The last one is multiplied, however the others lie in memory."""
    _, weight, bias, _ = weights
    x = torch.randn(*reversed(shape), generator=torch.Generator().manual_seed(1)).permute(
        *reversed(range(len(shape)))
    )

    found = linear(weight, bias, torch.float32, packed=packed)(x)

    torch.testing.assert_close(found, functional.linear(x, weight, bias), rtol=1e-5, atol=1e-5)


def test_a_residual_keeps_its_format(weights: Any) -> None:
    """A product in bfloat16 is added to a float32 residual in float32."""
    x, weight, bias, residual = weights
    for packed in (True, False):
        layer = linear(weight, bias, torch.bfloat16, packed=packed)

        total = layer.plus(x.bfloat16(), residual.clone())

        assert total.dtype == torch.float32
        torch.testing.assert_close(total, functional.linear(x, weight, bias) + residual, rtol=0.05, atol=0.2)


def test_an_unpacked_layer_is_no_copy(weights: Any) -> None:
    """Without packing the weights are the given ones."""
    _, weight, bias, _ = weights
    layer = linear(weight, bias, torch.float32, packed=False)

    assert isinstance(layer, PlainLinear)
    assert layer.weight.data_ptr() == weight.data_ptr()


@pytest.mark.parametrize("fault", ["absent", "wrong"])
def test_without_onednn_layers_are_plain(fault: str, weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch has no such layer, or one that computes something else, the plain one is taken without a word."""

    def wrong(x: torch.Tensor, *_: Any) -> torch.Tensor:
        return torch.zeros(len(x), 48)

    linear_module._pointwise.cache_clear()
    can_pack.cache_clear()
    if fault == "absent":
        monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    else:
        monkeypatch.setattr(linear_module, "_pointwise", lambda: wrong)
    _, weight, bias, _ = weights

    assert not can_pack(torch.float32)
    assert isinstance(linear(weight, bias, torch.float32, packed=True), PlainLinear)
    can_pack.cache_clear()


def test_this_machine_packs() -> None:
    """With the torch that is tested, x86 processors have oneDNN's layer; if not, the figures would be in vain."""
    if torch.cpu.get_capabilities().get("architecture") == "x86_64":
        assert isinstance(linear(torch.ones(4, 4), None, torch.float32, packed=True), PackedLinear)
