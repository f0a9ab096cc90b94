"""The planner: lengths to batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sentence_embedder.encoding.planner import plan


@given(lengths=st.lists(st.integers(0, 99)), batch_size=st.integers(1, 20))
def test_every_text_is_in_one_batch(lengths: list[int], batch_size: int) -> None:
    """Each text is in exactly one batch; batches are full but for the last, and from long texts to short ones."""
    batches = plan(np.array(lengths, dtype=np.int64), batch_size)

    places = [place for batch in batches for place in batch]
    assert sorted(places) == list(range(len(lengths)))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert [lengths[place] for place in places] == sorted(lengths, reverse=True)


@given(count=st.integers(0, 50), batch_size=st.integers(1, 20))
def test_texts_of_one_length_stay_in_order(count: int, batch_size: int) -> None:
    """Texts that are equally long keep their order, so that a call gives the same batches every time."""
    batches = plan(np.full(count, 7, dtype=np.int64), batch_size)

    assert [place for batch in batches for place in batch] == list(range(count))
