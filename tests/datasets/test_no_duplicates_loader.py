"""NoDuplicatesDataLoader: batches without repeated texts."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentence_embedder import InputExample
from sentence_embedder.datasets import NoDuplicatesDataLoader


def _examples(*rows: str) -> list[InputExample]:
    """An example a row, whose letters are its texts."""
    return [InputExample(texts=list(row)) for row in rows]


def _epoch(loader: NoDuplicatesDataLoader, seed: int = 0) -> list[list[str]]:
    torch.manual_seed(seed)
    return [["".join(example.texts) for example in batch] for batch in loader]


@given(rows=st.lists(st.text("abcdefgh", min_size=1, max_size=3)), size=st.integers(1, 4), seed=st.integers(0, 9))
def test_no_two_examples_of_a_batch_share_a_text(rows: list[str], size: int, seed: int) -> None:
    """An epoch has ⌊n / size⌋ full batches without repeated texts, or there is an error that says why not."""
    loader = NoDuplicatesDataLoader(_examples(*rows), size)
    try:
        batches = _epoch(loader, seed)
    except ValueError as error:
        assert "reduce batch_size" in str(error)  # noqa: PT017  # either is right
        return

    assert len(batches) == len(loader) == len(rows) // size
    for batch in batches:
        assert len(batch) == size
        texts = Counter(letter for row in batch for letter in set(row))
        assert set(texts.values()) == {1}


@given(rows=st.lists(st.sampled_from("abcdef"), min_size=1), size=st.integers(1, 7), seed=st.integers(0, 9))
def test_there_is_an_error_exactly_if_no_batch_is_possible(rows: list[str], size: int, seed: int) -> None:
    """Of examples with one text each, as many fit into a batch as there are texts; no more can be asked for."""
    loader = NoDuplicatesDataLoader(_examples(*rows), size)
    if len(rows) < size or len(set(rows)) >= size:
        assert len(_epoch(loader, seed)) == len(rows) // size
        return

    with pytest.raises(ValueError, match=f"expected {size} examples .* found {len(set(rows))} among {len(rows)}"):
        _epoch(loader, seed)


@given(rows=st.lists(st.sampled_from("abcdef"), unique=True, min_size=1), size=st.integers(1, 3))
def test_without_duplicates_every_example_comes_once(rows: list[str], size: int) -> None:
    """Where nothing is repeated, no example comes twice, and those that are missing do not fill a batch."""
    found = Counter(row for batch in _epoch(NoDuplicatesDataLoader(_examples(*rows), size)) for row in batch)

    assert set(found.values()) <= {1}
    assert len(rows) - len(found) < size


def test_examples_wait_for_a_later_batch() -> None:
    """Of pairs of equal texts none is left out for good; mostly each example comes once."""
    loader = NoDuplicatesDataLoader(_examples(*"aabbccddeeff"), 4)

    for seed in range(20):
        found = Counter(row for batch in _epoch(loader, seed) for row in batch)
        assert sum(found.values()) == 12
        assert len(found) == 6
    complete = [
        Counter(row for batch in _epoch(loader, seed) for row in batch) == Counter("aabbccddeeff")
        for seed in range(20)
    ]
    assert sum(complete) > 10


def test_a_frequent_text_comes_in_every_batch() -> None:
    """Of a text that more examples have than there are batches, each batch has one; others come again for it."""
    loader = NoDuplicatesDataLoader(_examples(*"xxxxxxx", *"abc"), 2)

    batches = _epoch(loader)

    assert len(batches) == 5
    assert all(sum(row == "x" for row in batch) == 1 for batch in batches)
    assert Counter(row for batch in batches for row in batch).keys() == set("xabc")


def test_an_example_that_fits_to_nothing_is_no_dead_end() -> None:
    """``ab`` shares a text with each of the others; batches are made of those."""
    loader = NoDuplicatesDataLoader(_examples("ab", "a", "b", "b"), 2)

    for seed in range(20):
        assert all(set(batch) == {"a", "b"} for batch in _epoch(loader, seed))


def test_case_and_spaces_around_do_not_count() -> None:
    """``Yes`` and `` yes `` are one text; within one example a text may be repeated."""
    texts = [["Yes", "yes"], [" yes ", "no"], ["perhaps", "Perhaps "]]
    loader = NoDuplicatesDataLoader([InputExample(texts=pair) for pair in texts], 2)

    for _ in range(10):
        (batch,) = loader
        assert InputExample(texts=texts[2]).texts in [example.texts for example in batch]


def test_what_is_no_text_equals_nothing() -> None:
    """Images, say, are left out of the comparison."""
    image = object()
    loader = NoDuplicatesDataLoader([InputExample(texts=[image, letter]) for letter in "ab"], 2)

    assert len(list(loader)) == 1


def test_an_order_depends_on_the_random_state_at_its_start_alone() -> None:
    """A seed, or a state, gives an order again, whatever else is drawn while batches are made; without one, each
    epoch has another order. The list that was handed in keeps its own.
    """
    examples = _examples(*(chr(number) for number in range(100, 150)), *"aabbcc")
    places = list(examples)
    loader = NoDuplicatesDataLoader(examples, 4)

    first = _epoch(loader, 1)
    state = torch.get_rng_state()
    second = [["".join(example.texts) for example in batch] for batch in loader]
    torch.set_rng_state(state)
    disturbed = []
    epoch = iter(loader)
    torch.manual_seed(99)
    for batch in epoch:
        disturbed.append(["".join(example.texts) for example in batch])
        torch.rand(3)
        random.random()  # noqa: S311

    assert first == _epoch(loader, 1) == _epoch(NoDuplicatesDataLoader(examples, 4), 1)
    assert first != second == disturbed
    assert examples == places


def test_batches_are_lists_or_what_the_collate_function_makes() -> None:
    """Without a collate function a batch is a list of the examples handed in; with one it is what that returns."""
    examples = _examples("a", "b")
    loader = NoDuplicatesDataLoader(examples, 2)

    (batch,) = loader
    assert isinstance(batch, list)
    assert {id(example) for example in batch} == {id(example) for example in examples}
    collate: Any = len
    loader.collate_fn = collate
    assert list(loader) == [2]


def test_time_is_in_proportion_to_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most examples share a text, each is looked at a few times, not once for every batch."""
    from sentence_embedder.datasets import no_duplicates_loader

    looks = 0

    class Counted(list[tuple[int, ...]]):
        def __getitem__(self, place: Any) -> Any:
            nonlocal looks
            looks += 1
            return super().__getitem__(place)

    shared = no_duplicates_loader._shared_texts
    monkeypatch.setattr(no_duplicates_loader, "_shared_texts", lambda examples: Counted(shared(examples)))
    examples = _examples(*"x" * 3000, *map(chr, range(1000, 1200)))

    assert len(list(NoDuplicatesDataLoader(examples, 8))) == 400
    assert looks < 4 * 3200


def test_a_batch_size_is_positive() -> None:
    """A batch without examples is an error."""
    with pytest.raises(ValueError, match="batch_size: expected at least 1, found 0"):
        NoDuplicatesDataLoader(_examples("a"), 0)
