"""Gradients are recorded after a call as before it, whatever ended the call."""

from __future__ import annotations

import pytest
import torch

from sentence_embedder import SentenceTransformer
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
