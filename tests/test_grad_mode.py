"""Gradients are recorded after a call as before it, whatever ended the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sentence_embedder import SentenceTransformer, grad_mode
from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.features import Features
from sentence_embedder.grad_mode import grad_mode_kept


@pytest.mark.parametrize("before", [True, False])
def test_it_is_kept(before: bool) -> None:
    """What changes it within the context, and does not put it back, changes nothing after it."""

    @grad_mode_kept()
    def interrupted() -> None:
        torch.set_grad_enabled(not before)
        raise KeyboardInterrupt

    with torch.set_grad_enabled(before):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert torch.is_grad_enabled() is before


def test_a_call_that_is_interrupted(model: SentenceTransformer) -> None:
    """As if Ctrl-C came while ``torch.no_grad`` is left, after which it stays."""

    class Interrupted(torch.nn.Module):
        def forward(self, _features: Features) -> Features:
            torch.set_grad_enabled(False)
            raise KeyboardInterrupt

    model.add_module("interrupted", Interrupted())

    with pytest.raises(KeyboardInterrupt):
        model.encode("the cat")

    assert torch.is_grad_enabled()


def test_a_lean_forward_pass_that_is_interrupted(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inference mode is over when Ctrl-C comes out of the call, whoever keeps the error, and stays over."""

    def interrupted(*_: Any) -> Tensor:
        assert torch.is_inference_mode_enabled()
        raise KeyboardInterrupt

    model.encode("the cat")
    monkeypatch.setattr(Encoder, "__call__", interrupted)

    with pytest.raises(KeyboardInterrupt) as kept:
        model.encode("the cat")

    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    del kept
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_without_the_guard_of_torch(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that has none of the kind gives the same vectors."""
    expected = model.encode("the cat")
    monkeypatch.setattr(grad_mode, "_inference_guard", None)

    assert np.array_equal(model.encode("the cat"), expected)


_OUTPUTS: dict[str, Callable[[SentenceTransformer, Any], list[Tensor]]] = {
    "one tensor": lambda model, texts: [model.encode(texts, convert_to_tensor=True)],
    "scaled": lambda model, texts: [model.encode(texts, convert_to_tensor=True, normalize_embeddings=True)],
    "a list": lambda model, texts: model.encode(texts, convert_to_numpy=False),
    "tokens": lambda model, texts: model.encode(texts, output_value="token_embeddings"),
    "stream": lambda model, texts: [*model.encode_iter(texts, convert_to_tensor=True)],
    "parts": lambda model, texts: [model.encode_chunks(texts[0], [(0, 3)], convert_to_tensor=True)],
}


@pytest.mark.parametrize("output", _OUTPUTS)
def test_what_comes_back_is_of_no_mode(output: str, model: SentenceTransformer) -> None:
    """Tensors can be changed in place, and gradients of what is made of them can be had."""
    for texts in (["the cat"], ["the cat sat", "a dog"] * 40):
        for tensor in _OUTPUTS[output](model, texts):
            weight = torch.ones((), requires_grad=True)
            (weight * tensor.mul_(2)).square().sum().backward()  # type: ignore[no-untyped-call]
            assert weight.grad is not None
            assert weight.grad > 0
