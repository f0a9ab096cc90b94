"""Attention over packed texts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from sentence_embedder.acceleration import attention as attention_module
from sentence_embedder.acceleration.attention import Attention, GroupedAttention, Mask, PaddedAttention

_HEADS, _DIM = 3, 8
_DEVICE = torch.device("cpu")


_Parts = tuple[Tensor, Tensor, Tensor]


def _parts(lengths: list[int], *, key_heads: int = _HEADS) -> _Parts:
    random = torch.Generator().manual_seed(0)
    joined = torch.randn(sum(lengths), _HEADS + 2 * key_heads, _DIM, generator=random).transpose(0, 1)
    query, key, value = torch.split(joined, [_HEADS, key_heads, key_heads])
    return query, key, value


def _to(dtype: torch.dtype, parts: _Parts) -> _Parts:
    query, key, value = parts
    return query.to(dtype), key.to(dtype), value.to(dtype)


@cache
def _hidden(mask: Mask, width: int) -> Tensor:
    """Which keys a query does not see, shape (queries, keys)."""
    places = range(width)
    return torch.tensor(
        [
            [
                (mask.causal and key > query) or (mask.window is not None and abs(query - key) > mask.window)
                for key in places
            ]
            for query in places
        ]
    )


def _written_down(lengths: list[int], parts: _Parts, mask: Mask, scale: float) -> Tensor:
    """Attention text by text, head by head, in double precision."""
    rows = []
    for query, key, value in zip(*(torch.split(part.double(), lengths, dim=1) for part in parts), strict=True):
        heads = []
        for head in range(_HEADS):
            key_head = head * len(key) // _HEADS
            scores = query[head] @ key[key_head].T * scale
            scores[_hidden(mask, query.shape[1])] = -torch.inf
            if mask.bias is not None:
                scores += mask.bias(query.shape[1])[head]
            heads.append(scores.softmax(dim=-1) @ value[key_head])
        rows.append(torch.cat(heads, dim=-1))
    return torch.cat(rows)


def _both(lengths: list[int]) -> list[Attention]:
    return [GroupedAttention(np.array(lengths)), PaddedAttention(np.array(lengths), _DEVICE)]


def _bias(width: int) -> Tensor:
    places = torch.arange(width)
    return ((places[:, None] - places) % 5 * torch.arange(1, _HEADS + 1)[:, None, None]) / 4


_MASKS = [Mask(), Mask(causal=True), Mask(window=3), Mask(causal=True, window=2), Mask(bias=_bias)]
_MASK_NAMES = ["all", "causal", "window", "causal window", "bias"]


@pytest.mark.parametrize("mask", _MASKS, ids=_MASK_NAMES)
@settings(max_examples=15)
@given(runs=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12)), min_size=1, max_size=4))
def test_it_is_attention_within_each_text(mask: Mask, runs: list[tuple[int, int]]) -> None:
    """Whatever their lengths, texts attend to themselves alone, as the formula has it."""
    lengths = [length for length, count in runs for _ in range(count)]
    parts = _parts(lengths)
    expected = _written_down(lengths, parts, mask, 0.4)
    for attention in _both(lengths):
        found = attention(*parts, mask, 0.4)
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mask", _MASKS, ids=_MASK_NAMES)
@pytest.mark.parametrize("longest_in_products", [24, 256])
def test_longer_texts_either_way(mask: Mask, longest_in_products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of all scores and torch's fused kernel make the same of longer texts."""
    monkeypatch.setattr(attention_module, "_longest_in_products", lambda _dtype: longest_in_products)
    lengths = [250, 120, 120, 120, 40, 25]
    parts = _parts(lengths)
    expected = _written_down(lengths, parts, mask, 0.35)
    found = GroupedAttention(np.array(lengths))(*parts, mask, 0.35)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mask", _MASKS, ids=_MASK_NAMES)
@pytest.mark.parametrize("longest_in_products", [24, 256])
@pytest.mark.parametrize("length", [1, 9, 15, 16, 24, 25, 63, 64])
def test_a_lone_text(mask: Mask, longest_in_products: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text without company is attended to as the formula has it, in whichever way is quickest; filling, which may
    be anything, is not looked at, and is left with zeros.
    """
    monkeypatch.setattr(attention_module, "_longest_in_products", lambda _dtype: longest_in_products)
    parts = _parts([length])
    expected = _written_down([length], parts, mask, 0.35)
    for filling in (0, 3):
        query, key, value = (functional.pad(part, (0, 0, 0, filling), value=torch.nan) for part in parts)
        found = GroupedAttention(np.array([length]))(query, key, value, mask, 0.35)
        torch.testing.assert_close(found[:length].double(), expected, rtol=0, atol=1e-5)
        assert found[length:].equal(torch.zeros(filling, expected.shape[1]))


@pytest.mark.parametrize("length", [5, 40])
def test_heads_share_keys(length: int) -> None:
    """Several heads of the queries can use one head of keys and values."""
    for count in (1, 20):
        lengths = [length] * count
        parts = _parts(lengths, key_heads=1)
        expected = _written_down(lengths, parts, Mask(), 0.3)
        for attention in _both(lengths):
            torch.testing.assert_close(attention(*parts, Mask(), 0.3).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shift", [-400.0, -90.0, -30.0, 30.0, 90.0, 400.0])
def test_scores_may_be_of_any_height(dtype: torch.dtype, shift: float) -> None:
    """Scores whose exponentials no float holds make the same attention as moderate ones."""
    lengths = [6] * 40
    parts = _to(dtype, _parts(lengths))
    mask = Mask(bias=lambda width: torch.full((_HEADS, width, width), shift))
    expected = _written_down(lengths, parts, Mask(), 0.3)
    found = GroupedAttention(np.array(lengths))(*parts, mask, 0.3)
    # A score of about 400 is exact to 3e-5 in float32, but to 1 in bfloat16.
    assert found.isfinite().all()
    if dtype == torch.float32:
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-4)


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    """Leaves the number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads_as_before")
@pytest.mark.parametrize("count", [1, 63, 2 * 64**2, 2**15 + 1, 12 * 101**2, 12 * 255**2])
def test_exponentials_do_not_depend_on_the_number_of_threads(count: int) -> None:
    """torch computes what is left over of the part of a thread in another way; here nothing is."""
    scores = torch.randn(count, generator=torch.Generator().manual_seed(0))
    found = []
    for threads in range(1, 6):
        torch.set_num_threads(threads)
        powers = torch.zeros(attention_module._whole_vectors(count))
        powers[:count] = scores
        found.append(powers.exp2_()[:count])
    for powers in found[1:]:
        assert torch.equal(powers, found[0])


@pytest.mark.usefixtures("threads_as_before")
def test_attention_does_not_depend_on_who_shares_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread makes the same of texts of any length as two, to the last bit."""
    monkeypatch.setattr(attention_module, "_longest_in_products", lambda _dtype: 256)
    for length in [*range(1, 20), *range(25, 256, 6)]:
        lengths = [length] * 3
        parts = _parts(lengths)
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(GroupedAttention(np.array(lengths))(*parts, Mask(), 2.0))
        assert torch.equal(*found), length


def test_one_row_of_low_scores_is_not_lost_among_high_ones() -> None:
    """A text whose exponentials vanish is attended to as well as its neighbours."""
    lengths = [6] * 40
    query, key, value = _parts(lengths)
    key[:, :6] = 50.0
    query[:, :6] -= 50.0
    expected = _written_down(lengths, (query, key, value), Mask(), 0.3)
    found = GroupedAttention(np.array(lengths))(query, key, value, Mask(), 0.3)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", _MASKS, ids=_MASK_NAMES)
# Of the last, so many at once are more than stay near the processor: they come in parts.
@pytest.mark.parametrize(("length", "count"), [(3, 25), (20, 25), (40, 3), (60, 25), (90, 1), (150, 25)])
@pytest.mark.parametrize("longest_in_products", [24, 256])
def test_halves_are_near(
    dtype: torch.dtype,
    length: int,
    count: int,
    mask: Mask,
    longest_in_products: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attention in half precision keeps the direction of what it makes, whatever the processor is quick at."""
    monkeypatch.setattr(attention_module, "_longest_in_products", lambda _dtype: longest_in_products)
    lengths = [length] * count
    parts = _parts(lengths)
    expected = _written_down(lengths, parts, mask, 0.35)
    found = GroupedAttention(np.array(lengths))(*_to(dtype, parts), mask, 0.35)
    assert found.dtype == dtype
    similarity = torch.cosine_similarity(found.double(), expected, dim=-1)
    assert similarity.min() > 0.999


@pytest.mark.parametrize(
    ("capabilities", "longest"),
    [
        ({"cpu_name": "AMD EPYC", "amx_bf16": False}, [256, math.inf, math.inf]),
        ({"cpu_name": "Intel(R) Xeon(R)", "amx_bf16": False}, [24, math.inf, math.inf]),
        ({"cpu_name": "Intel(R) Xeon(R)", "amx_bf16": True}, [24, 24, math.inf]),
    ],
    ids=["AMD", "no tiles", "tiles"],
)
def test_which_texts_are_left_to_the_fused_kernel(
    capabilities: dict[str, Any], longest: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 longer ones where MKL is not at home, in bfloat16 any but short ones where there are tiles."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    found = attention_module._longest_in_products.__wrapped__
    assert [found(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)] == longest


def test_what_is_handed_in_stays() -> None:
    """Queries, keys and values are only read."""
    lengths = [6] * 20
    parts = _parts(lengths)
    before = [part.clone() for part in parts]
    GroupedAttention(np.array(lengths))(*parts, Mask(), 0.3)
    assert all(torch.equal(*pair) for pair in zip(parts, before, strict=True))


@pytest.mark.parametrize("attention_class", [GroupedAttention, PaddedAttention])
def test_texts_without_tokens(attention_class: Any) -> None:
    """Where no text has a token, there is only filling, and of it come zeros."""
    lengths = np.array([0, 0])
    attention = (
        GroupedAttention(lengths)
        if attention_class is GroupedAttention
        else PaddedAttention(lengths, torch.device("cpu"))
    )
    query, key, value = torch.randn(3, 4, 2, 8)

    attended = attention(query, key, value, Mask(), 1.0)

    assert torch.equal(attended, torch.zeros(2, 32))
