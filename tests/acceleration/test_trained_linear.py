"""Linear layers that are trained: other products, the same numbers."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import _pop_mode
from torch.profiler import ProfilerActivity, profile

from sentence_embedder.acceleration.trained_linear import QuickProducts, quick_products

CPU = torch.device("cpu")


def tensors(*shape: int, width: int = 96, bias: bool = True) -> list[Tensor]:
    """An input, a weight and a bias, with gradients."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(*shape, 64), (width, 64), *([(width,)] if bias else [])]
    return [torch.randn(each, generator=generator).requires_grad_() for each in shapes]


def computed(given: list[Tensor], *, quick: bool) -> list[Tensor]:
    """The output of a linear layer, and the gradients of a function of it by all that it is given."""
    with QuickProducts() if quick else nullcontext():
        output = functional.linear(*given)
        return [output, *torch.autograd.grad(output.sin().sum(), given)]


def uses_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether the product is one of oneDNN's."""
    with profile(activities=[ProfilerActivity.CPU]) as events, QuickProducts():
        functional.linear(x, weight)
    return any("mkldnn" in event.name for event in events.events() or ())


@pytest.mark.parametrize("shape", [(200,), (8, 30), (2, 4, 30)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_outputs_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    """Whatever the shape, output and gradients are the same to rounding."""
    quick, plain = (computed(tensors(*shape, bias=bias), quick=quick) for quick in (True, False))

    for found, expected in zip(quick, plain, strict=True):
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 511, 512, 513, 514, 515, 1025])
def test_any_number_of_rows(rows: int) -> None:
    """Output and gradients are the same to rounding for one row, and for one or two more than are done at once."""
    quick, plain = (computed(tensors(rows, width=2**20 // 64), quick=quick) for quick in (True, False))

    for found, expected in zip(quick, plain, strict=True):
        assert torch.allclose(found, expected, atol=1e-2, rtol=1e-3)


def test_only_what_is_asked_for_has_a_gradient() -> None:
    """A frozen weight gets none."""
    x, weight, bias = tensors(400)
    weight.requires_grad_(False)

    with QuickProducts():
        functional.linear(x, weight, bias).sum().backward()  # type: ignore[no-untyped-call]

    assert weight.grad is None
    assert x.grad is not None
    assert torch.allclose(bias.grad, torch.full((96,), 400.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "bias",
    [torch.zeros(1).expand(96), torch.arange(192.0)[::2], torch.ones(1), torch.ones(1, 96), torch.ones(400, 96)],
    ids=["expanded", "strided", "one", "row", "matrix"],
)
def test_biases_of_any_kind(bias: Tensor) -> None:
    """A bias that does not lie there in one piece, or is no vector, is added as torch adds it."""
    x, weight = tensors(400, bias=False)

    with QuickProducts():
        found = functional.linear(x, weight, bias)

    assert torch.allclose(found, functional.linear(x, weight, bias), atol=1e-4)


def test_what_does_not_fit_is_torchs_error() -> None:
    """Shapes that do not fit are named as ever."""
    with QuickProducts(), pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        functional.linear(torch.ones(400, 63), torch.ones(96, 64))


def test_transforms_of_functions() -> None:
    """``torch.func`` works inside."""
    x, weight = (tensor.detach() for tensor in tensors(400, bias=False))

    with QuickProducts():
        found = torch.func.grad(lambda w: functional.linear(x, w).sin().sum())(weight)

    (expected,) = computed([x.requires_grad_(), weight.requires_grad_()], quick=False)[2:]
    assert torch.allclose(found, expected, atol=1e-3, rtol=1e-3)


def test_frozen_weights_keep_no_inputs() -> None:
    """Of a layer whose weight is frozen, what came in is not kept for its gradient."""
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    x = torch.randn(4096, 64, requires_grad=True)
    weight = torch.randn(96, 64)

    with (
        QuickProducts(),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        functional.linear(x, weight)

    assert max(kept) == weight.numel()


def test_gradients_have_gradients() -> None:
    """A loss of a gradient is differentiable, too."""
    found = []
    for context in (QuickProducts(), nullcontext()):
        x, weight = tensors(400, bias=False)
        with context:
            (of_x,) = torch.autograd.grad(functional.linear(x, weight).sin().sum(), x, create_graph=True)
            of_x.square().sum().backward()  # type: ignore[no-untyped-call]
        found.append(weight.grad)

    assert found[0] is not None
    assert found[1] is not None
    assert torch.allclose(found[0], found[1], atol=1e-3, rtol=1e-3)


def test_what_is_computed_so() -> None:
    """Large products in float32 are oneDNN's; small ones, those of other formats, and single vectors are not."""
    x, weight, _ = tensors(400)

    assert uses_onednn(x, weight)
    assert uses_onednn(x.detach(), weight.detach())
    assert not uses_onednn(x[:4], weight)
    assert not uses_onednn(x.double(), weight.double())
    assert not uses_onednn(torch.ones(20_000), torch.ones(96, 20_000))


@pytest.mark.parametrize(
    ("name", "has_mkl", "is_onednn"),
    [("AMD EPYC 9R14", True, True), ("Intel Xeon", True, False), ("Intel Xeon", False, True), ("", True, True)],
)
def test_where_mkl_is_quick_it_computes(
    name: str, has_mkl: bool, is_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """oneDNN computes unless torch has MKL on a processor of Intel; on other devices nothing is changed."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name} if name else {}, raising=False)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)

    assert isinstance(quick_products(CPU), QuickProducts) == is_onednn
    assert not isinstance(quick_products(torch.device("meta")), QuickProducts)


def test_modules_stay_as_they_are() -> None:
    """The context changes no module, and other functions compute as ever."""
    layer = nn.Linear(64, 96)
    x = torch.randn(400, 64)
    expected = layer(x)

    with QuickProducts():
        inside = layer(x)
        mean = functional.layer_norm(inside, (96,)).mean()

    assert torch.allclose(inside, expected, atol=1e-5)
    assert mean.item() == pytest.approx(0, abs=1e-6)
    assert "forward" not in vars(layer)


def test_ctrl_c_while_it_is_asked() -> None:
    """torch has taken it away then, and the interrupt is what is raised."""

    def interrupted() -> None:
        with QuickProducts():
            _pop_mode()  # type: ignore[no-untyped-call]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
