"""Loaders: what they yield becomes the input of a loss, and they stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from sentence_embedder import InputExample
from sentence_embedder.loaders import twin

EXAMPLES = [InputExample(texts=[str(number)]) for number in range(5)]


class _Stream(IterableDataset[Any]):
    """Batches of two, as a dataset that makes its own."""

    def __iter__(self) -> Iterator[Any]:
        return iter([EXAMPLES[:2], EXAMPLES[2:4]])


def joined(batch: list[InputExample]) -> str:
    """The texts of a batch."""
    return "".join(str((example.texts or ())[0]) for example in batch)


@pytest.mark.parametrize(
    ("loader", "expected"),
    [
        (DataLoader(EXAMPLES, batch_size=2), ["01", "23", "4"]),  # type: ignore[arg-type]
        (DataLoader(EXAMPLES, batch_size=2, drop_last=True), ["01", "23"]),  # type: ignore[arg-type]
        (DataLoader(EXAMPLES, batch_sampler=[[4, 0], [2]]), ["40", "2"]),  # type: ignore[arg-type]
        (DataLoader(EXAMPLES, batch_size=2, collate_fn=list), ["01", "23", "4"]),  # type: ignore[arg-type]
        (DataLoader(EXAMPLES, batch_size=2, collate_fn=len), [2, 2, 1]),  # type: ignore[arg-type]
        (DataLoader(_Stream(), batch_size=None), ["01", "23"]),
        ([EXAMPLES[:3], ("features", "labels")], ["012", ("features", "labels")]),
        ([], []),
    ],
    ids=["plain", "drop_last", "batch_sampler", "own list", "own collate_fn", "stream", "list", "nothing"],
)
def test_lists_of_examples_are_collated(loader: Any, expected: list[Any]) -> None:
    """Whatever yields lists of examples yields batches, time after time; other batches stay as they are."""
    batches = twin(loader, joined)

    assert list(batches) == expected
    assert list(batches) == expected


def test_numbers_are_batched_as_torch_does() -> None:
    """A dataset of something else than examples is collated by torch, as without a twin."""
    (batch,) = twin(DataLoader([1, 2], batch_size=2), joined)  # type: ignore[arg-type]

    assert batch.tolist() == [1, 2]


def test_a_loader_with_workers_keeps_them() -> None:
    """The twin has as many workers, which collate; the loader has its own and collates as before."""
    loader: Any = DataLoader([1, 2], batch_size=1, num_workers=1, persistent_workers=True)  # type: ignore[arg-type]
    before = dict(vars(loader))
    assert [batch.tolist() for batch in loader] == [[1], [2]]
    workers = loader._iterator

    other: Any = twin(loader, joined)

    assert [batch.tolist() for batch in other] == [[1], [2]]
    assert other.num_workers == 1
    assert other._iterator is not workers
    assert loader._iterator is workers
    assert {**vars(loader), "_iterator": None} == before
