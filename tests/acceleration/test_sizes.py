"""Sizes of batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sentence_embedder.acceleration.sizes import rounded_up


@given(tokens=st.integers(0, 100_000))
def test_a_size_is_little_above(tokens: int) -> None:
    """A batch is filled up by an eighth at most; one of no tokens gets one."""
    assert tokens <= rounded_up(tokens) <= max(1, tokens + tokens // 8)
    assert rounded_up(rounded_up(tokens)) == rounded_up(tokens)


def test_there_are_few_sizes() -> None:
    """Batches of up to 4096 tokens have 80 sizes."""
    assert len({rounded_up(tokens) for tokens in range(1, 4097)}) == 80
