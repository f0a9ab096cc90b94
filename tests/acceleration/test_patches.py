"""Code of others inside a model decides what it computes, wherever they put it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import nn
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert import modeling_bert

from sentence_embedder import SentenceTransformer
from sentence_embedder.acceleration.forward import PackedForward
from sentence_embedder.acceleration.patches import is_patched
from sentence_embedder.deferred import seen
from sentence_embedder.models.stand_ins.model import StandInModel
from tests.acceleration.test_acceleration import TEXTS, assert_like_the_plain_chain, way
from tests.acceleration.tiny_transformers import CONFIGS, tiny_transformer
from tests.programs import run_program

# Longer than the texts with which what was read is compared.
LONG = [*TEXTS, "the cat sat on the mat and the dog sat on the cat " * 2]
_WINDOW = 4


def _near(*parts: Any, scaling: float | None = None, **_: Any) -> Any:
    """Attention to what is near; to all, in short texts."""
    _, query, key, value, mask = parts
    places = torch.arange(query.shape[2])
    scores = (query @ key.transpose(2, 3) * (scaling or 1)).masked_fill(
        (places[:, None] - places).abs() > _WINDOW, -torch.inf
    )
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


@pytest.fixture
def near() -> Iterator[str]:
    """The name of an attention function of somebody's own."""
    transformers.AttentionInterface.register("near", _near)
    AttentionMaskInterface.register("near", sdpa_mask)
    yield "near"
    for registered in (transformers.AttentionInterface, AttentionMaskInterface):
        del registered._global_mapping["near"]


class _Near(modeling_bert.BertSelfAttention):
    """Looks at what is near."""

    def forward(self, hidden_states: Any, attention_mask: Any = None, *_: Any, **__: Any) -> Any:
        """Attention to what is near."""
        shape = (*hidden_states.shape[:2], -1, self.attention_head_size)
        parts = [part(hidden_states).view(shape).transpose(1, 2) for part in (self.query, self.key, self.value)]
        attended, _ = _near(self, *parts, attention_mask, scaling=self.scaling)
        return attended.flatten(2), None


class _DoublingLong(nn.Module):
    """Does something only in long texts."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Double what is long."""
        return x if x.shape[1] < 8 else 2 * x


def _subclass(model: Any) -> None:
    for layer in model[0].auto_model.encoder.layer:
        layer.attention.self.__class__ = _Near


def _module(model: Any) -> None:
    model[0].auto_model.encoder.layer[0].output.dropout = _DoublingLong()


@pytest.mark.parametrize("put", [_subclass, _module])
def test_classes_of_others(put: Callable[[SentenceTransformer], None], model: SentenceTransformer) -> None:
    """A class of somebody's own computes what it computes, though the texts of the comparison do not show it."""
    before = model.encode(LONG)

    put(model)

    assert not np.allclose(model.encode(LONG), before, atol=1e-3)
    assert not isinstance(way(model), PackedForward)
    assert_like_the_plain_chain(model)


def test_a_registered_attention_function(near: str, tiny_folders: dict[str, Path]) -> None:
    """It is called for texts, and has its say."""
    arguments: dict[str, Any] = {"device": "cpu", "model_kwargs": {"attn_implementation": near}}
    model = SentenceTransformer(str(tiny_folders["bert"]), **arguments)
    plain = SentenceTransformer(str(tiny_folders["bert"]), **arguments, acceleration=False)

    assert not isinstance(way(model), PackedForward)
    np.testing.assert_allclose(model.encode(LONG), plain.encode(LONG), atol=1e-6)


def test_an_attention_function_in_place_of_another(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts from the next call on, and no longer than it is there."""
    before = model.encode(LONG)
    with monkeypatch.context() as patch:
        patch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "sdpa", _near)
        assert not np.allclose(model.encode(LONG), before, atol=1e-4)

    np.testing.assert_allclose(model.encode(LONG), before, atol=1e-6)


def _doubled(original: Any) -> Any:
    @functools.wraps(original)
    def forward(self: Any, *arguments: Any, **options: Any) -> Any:
        first, *rest = original(self, *arguments, **options)
        return (2 * first, *rest)

    return forward


def _doubled_chunk(self: Any, attention_output: torch.Tensor) -> Any:
    return self.output(self.intermediate(attention_output), 2 * attention_output)


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize("comes", ["before", "later"])
def test_other_methods_of_transformers(
    comes: str, is_loaded: bool, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that a forward pass calls counts as well, whenever it comes, and goes."""
    model: Any = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    if is_loaded:
        assert not isinstance(model[0].auto_model, StandInModel)
    expected = SentenceTransformer(str(tiny_folders["bert"]), device="cpu").encode(LONG)
    if comes == "later":
        model.encode(LONG)

    monkeypatch.setattr(modeling_bert.BertLayer, "feed_forward_chunk", _doubled_chunk)

    assert not np.allclose(model.encode(LONG), expected, atol=1e-3)
    assert_like_the_plain_chain(model)
    monkeypatch.undo()
    np.testing.assert_allclose(model.encode(LONG), expected, atol=1e-5)


REGISTERED = """
import sys, torch
from sentence_embedder import SentenceTransformer

import transformers.modeling_utils as utils
assert "transformers.models.bert.modeling_bert" not in sys.modules
attention = utils.ALL_ATTENTION_FUNCTIONS["sdpa"]


def doubled(*arguments, **options):
    first, second = attention(*arguments, **options)
    return 2 * first, second


model = SentenceTransformer(sys.argv[1], device="cpu")
before = model.encode("the cat", prompt="")
utils.AttentionInterface.register("sdpa", doubled)
other = SentenceTransformer(sys.argv[1], device="cpu").encode("the cat", prompt="")
print(abs(model.encode("the cat", prompt="") - before).max() > 0.01, abs(other - before).max() > 0.01)
"""


def test_an_attention_function_that_comes_before_the_model(tiny_folders: dict[str, Path]) -> None:
    """One that is registered before the model's own file is imported counts, where a stand-in was, or would be,
    read.
    """
    assert run_program(REGISTERED, str(tiny_folders["bert"])).split() == ["True", "True"]


@pytest.mark.parametrize("method", ["forward", "__call__"])
@pytest.mark.parametrize("is_loaded", [True, False])
def test_methods_in_classes_of_transformers(
    is_loaded: bool, method: str, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that is put into a class before a model is read counts, also where a stand-in would do, and however
    much it looks like the one that was there.
    """
    kind: Any = modeling_bert.BertSelfAttention
    expected = SentenceTransformer(str(tiny_folders["bert"]), device="cpu").encode(LONG)
    monkeypatch.setattr(kind, method, _doubled(getattr(kind, method)))
    model: Any = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    if is_loaded:
        assert not isinstance(model[0].auto_model, StandInModel)

    assert not np.allclose(model.encode(LONG), expected, atol=1e-3)
    assert not isinstance(way(model), PackedForward)
    assert not isinstance(seen(model[0]._modules["auto_model"]), StandInModel)
    assert_like_the_plain_chain(model)
    monkeypatch.undo()
    np.testing.assert_allclose(model.encode(LONG), expected, atol=1e-5)


def test_a_method_that_comes_later(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is put into a class after a stand-in was read counts, too."""
    kind: Any = modeling_bert.BertSelfAttention
    before = model.encode(LONG)

    monkeypatch.setattr(kind, "forward", _doubled(kind.forward))

    assert not np.allclose(model.encode(LONG), before, atol=1e-3)
    assert_like_the_plain_chain(model)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_is_no_patch(name: str) -> None:
    """What transformers wrote is nobody else's, decorators included."""
    assert not is_patched(tiny_transformer(name))
