"""The planner: lengths to batches."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sentence_embedder.acceleration.sizes import rounded_up
from sentence_embedder.encoding.planner import by_padded_tokens, by_texts, by_tokens


@given(lengths=st.lists(st.integers(0, 99)), batch_size=st.integers(1, 20))
def test_every_text_is_in_one_batch(lengths: list[int], batch_size: int) -> None:
    """Each text is in exactly one batch; batches are full but for the last, and from long texts to short ones."""
    batches = by_texts(np.array(lengths, dtype=np.int64), batch_size)

    places = [place for batch in batches for place in batch]
    assert sorted(places) == list(range(len(lengths)))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert [lengths[place] for place in places] == sorted(lengths, reverse=True)


@given(count=st.integers(0, 50), batch_size=st.integers(1, 20))
def test_texts_of_one_length_stay_in_order(count: int, batch_size: int) -> None:
    """Texts that are equally long keep their order, so that a call gives the same batches every time."""
    batches = by_texts(np.full(count, 7, dtype=np.int64), batch_size)

    assert [place for batch in batches for place in batch] == list(range(count))


@given(
    lengths=st.lists(st.integers(0, 99)),
    tokens=st.integers(1, 3000),
    most=st.integers(1, 3000),
    workers=st.integers(1, 4),
)
def test_batches_of_tokens(lengths: list[int], tokens: int, most: int, workers: int) -> None:
    """Each text is in exactly one batch, in each from long texts to short ones, and the longest that is left begins
    the next; no batch of several texts has more tokens than it may.
    """
    batches = by_tokens(np.array(lengths, dtype=np.int64), tokens, most=most, workers=workers)

    places = [place for batch in batches for place in batch]
    assert sorted(places) == list(range(len(lengths)))
    assert all(len(batch) > 0 for batch in batches)
    by_batch = [[lengths[place] for place in batch] for batch in batches]
    assert all(in_batch == sorted(in_batch, reverse=True) for in_batch in by_batch)
    assert all(
        in_batch[0] == max(max(other) for other in by_batch[number:]) for number, in_batch in enumerate(by_batch)
    )
    sums = [sum(in_batch) for in_batch in by_batch]
    assert all(total <= most for total, batch in zip(sums, batches, strict=True) if len(batch) > 1)


@given(
    lengths=st.lists(st.integers(0, 99)),
    tokens=st.integers(1, 3000),
    batch_size=st.integers(1, 20),
    most=st.integers(1, 3000),
    workers=st.integers(1, 4),
)
def test_batches_of_padded_tokens(
    lengths: list[int], tokens: int, batch_size: int, most: int, workers: int
) -> None:
    """Each text is in exactly one batch, from long texts to short ones; no batch has more texts, nor, padded, more
    tokens than it may, unless it is a single text.
    """
    batches = by_padded_tokens(
        np.array(lengths, dtype=np.int64), tokens, batch_size=batch_size, most=most, workers=workers
    )

    places = [place for batch in batches for place in batch]
    assert sorted(places) == list(range(len(lengths)))
    assert [lengths[place] for place in places] == sorted(lengths, reverse=True)
    assert all(0 < len(batch) <= batch_size for batch in batches)
    assert all(len(batch) * lengths[batch[0]] <= min(tokens, most) for batch in batches if len(batch) > 1)


@given(count=st.integers(1, 500), length=st.integers(1, 30), workers=st.integers(1, 4))
def test_batches_of_tokens_are_alike(count: int, length: int, workers: int) -> None:
    """All batches fill few sizes, for each of which a product is prepared; all but the last ones have one."""
    batches = by_tokens(np.full(count, length, dtype=np.int64), 512, most=4096, workers=workers)

    sums = [len(batch) * length for batch in batches]
    kinds = 1 if workers == 1 or len(sums) <= 8 else 2
    assert len({rounded_up(size) for size in sums[:-1]}) <= kinds
    assert len(set(sums[:-1])) <= kinds
    assert sums == sorted(sums, reverse=True)
    assert sums[-1] <= sums[0] <= 512


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(200, 400), workers=st.integers(2, 4))
def test_the_last_batches_are_small(seed: int, count: int, workers: int) -> None:
    """Of many batches each worker has small ones in the end, and none waits for another's large one."""
    lengths = np.random.default_rng(seed).integers(20, 129, count)

    sums = [int(lengths[batch].sum()) for batch in by_tokens(lengths, 512, most=8192, workers=workers)]

    assert all(total <= 128 for total in sums[-2 * workers :])
    busy = [0] * workers
    for total in sums:  # whoever is free takes the next one
        busy[busy.index(min(busy))] += total
    assert max(busy) - min(busy) <= 128


def test_many_workers_have_large_batches() -> None:
    """Where there are not many batches for each worker, none of them is made small."""
    lengths = np.full(510, 16, dtype=np.int64)

    sums = [int(lengths[batch].sum()) for batch in by_tokens(lengths, 512, most=8192, workers=16)]

    assert len(sums) == 16
    assert min(sums) > 256


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(200, 400))
def test_batches_are_full(seed: int, count: int) -> None:
    """Where the next text is too long, shorter ones fill the batch: hardly a token is computed for nothing."""
    lengths = np.random.default_rng(seed).integers(20, 257, count)

    batches = by_tokens(lengths, 768, most=8192, workers=2)

    sums = [int(lengths[batch].sum()) for batch in batches]
    assert sum(rounded_up(total) for total in sums) <= 1.015 * lengths.sum()


def test_short_texts_are_not_torn_apart() -> None:
    """What a small gap would save is less than what a text among longer ones takes: like lengths stay together."""
    lengths = np.repeat([17, 13, 7], 100)

    batches = by_tokens(lengths, 512, most=8192, workers=1)

    assert [lengths[place] for batch in batches for place in batch] == lengths.tolist()


@given(lengths=st.lists(st.one_of(st.integers(400, 512), st.integers(1, 20)), max_size=200))
def test_padding_has_a_limit(lengths: list[int]) -> None:
    """A few long texts and many short ones are not put together: padded, they would take many times as much. A
    lower limit can be set, which only a text alone may exceed.
    """
    batches = by_tokens(np.array(lengths, dtype=np.int64), 768, most=8192, workers=2)
    limited = by_tokens(np.array(lengths, dtype=np.int64), 768, most=8192, workers=2, most_padded=500)

    padded = [len(batch) * max(lengths[place] for place in batch) for batch in batches]
    assert all(tokens <= 2 * 768 for tokens in padded)
    assert all(len(batch) == 1 or len(batch) * lengths[batch[0]] <= 500 for batch in limited)


def test_what_fits_is_one_batch() -> None:
    """The limit of padding is that of a whole batch, however few texts there are: a GPU gets them at once."""
    lengths = np.array([512] + [10] * 32)

    assert len(by_tokens(lengths, 32_768, most=16_384, workers=1)) == 1


def test_there_is_a_batch_for_each_worker() -> None:
    """Work that is worth it is shared by all."""
    lengths = np.full(100, 10, dtype=np.int64)

    assert len(by_tokens(lengths, 2048, most=8192, workers=2)) == 2
    assert len(by_padded_tokens(lengths, 2048, batch_size=100, most=8192, workers=2)) == 2
    assert len(by_tokens(np.full(20, 10, dtype=np.int64), 2048, most=8192, workers=2)) == 1
