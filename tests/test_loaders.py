"""Loaders: what they yield becomes the input of a loss, and they stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from sentence_embedder import InputExample, SentenceTransformer
from sentence_embedder.loaders import Collation, batches_of

ROWS: Any = [InputExample(texts=["a cat", "a dog"], label=0.5), InputExample(texts=["paris", "london"], label=1.0)]
COLUMNS: dict[str, list[Any]] = {"first": ["a cat", "paris"], "second": ["a dog", "london"], "score": [0.5, 1.0]}


class _Stream(IterableDataset[Any]):
    """A data set that makes its own batches."""

    def __iter__(self) -> Iterator[Any]:
        return iter([ROWS, ROWS])


class _Named:
    """A data set of rows by name, such as one of ``datasets``."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {name: column[place] for name, column in COLUMNS.items()}


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(ROWS, batch_size=2),
        DataLoader(ROWS, batch_sampler=[[0, 1]]),
        DataLoader(ROWS, batch_size=2, collate_fn=list),
        DataLoader(ROWS, batch_size=2, num_workers=1),
        DataLoader(_Stream(), batch_size=None),
        DataLoader(_Named(), batch_size=2),  # type: ignore[arg-type]
        DataLoader(_Named(), batch_size=2, collate_fn=list),  # type: ignore[arg-type]
        [ROWS],
        [COLUMNS],
        [[_Named()[0], _Named()[1]]],
    ],
    ids=[
        *(
            "examples",
            "batch_sampler",
            "own collate_fn",
            "workers",
            "stream",
            "rows by name",
            "rows by name as lists",
        ),
        *("lists of examples", "columns", "lists of rows"),
    ],
)
def test_batches_of_any_kind(loader: Any, model: SentenceTransformer) -> None:
    """Whatever a loader yields becomes the Features of each column and the labels, time after time."""
    expected, labels = model.smart_batching_collate(ROWS)
    collation = Collation(model)
    batches = batches_of(loader, collation)

    for _ in range(2):
        features, found = collation(next(iter(batches)))
        assert torch.equal(found, labels)
        for column, of_examples in zip(features, expected, strict=True):
            assert column.keys() == of_examples.keys()
            assert all(torch.equal(column[name], of_examples[name]) for name in column)


def test_batches_that_are_ready_stay_as_they_are(model: SentenceTransformer) -> None:
    """Features and labels are taken as they are."""
    ready = model.smart_batching_collate(ROWS)

    features, labels = Collation(model)(ready)

    assert features == ready[0]
    assert labels is ready[1]


def test_rows_need_no_labels(model: SentenceTransformer) -> None:
    """Without a column of labels there are none."""
    features, labels = Collation(model)({"anchor": ["a cat"], "positive": ["a dog"]})

    assert len(features) == 2
    assert labels is None


@pytest.mark.parametrize(
    "found",
    [
        [],
        "text",
        3,
        {"anchor": "a text", "positive": "another"},
        {"label": [1]},
        {"text": ["a"], "label": [1], "score": [2]},
        {"id": [1, 2], "text": ["a", "b"]},
        [{"id": np.int64(1), "text": "a"}, {"id": np.int64(2), "text": "b"}],
        {"id": torch.tensor([1, 2]), "text": ["a", "b"]},
        [1, 2],
        ("a", "b"),
        torch.ones(2),
    ],
    ids=str,
)
def test_what_is_no_batch_is_named(found: Any, model: SentenceTransformer) -> None:
    """Something else is an error that says what it is, and what is taken."""
    with pytest.raises(ValueError, match=r"expected .* found"):
        Collation(model)(found)


def test_a_loader_with_workers_keeps_them(model: SentenceTransformer) -> None:
    """The twin has as many workers, which collate; the loader has its own and collates as before."""
    numbers: Any = [1, 2]
    loader: Any = DataLoader(numbers, batch_size=1, num_workers=1, persistent_workers=True)
    before = dict(vars(loader))
    assert [batch.tolist() for batch in loader] == [[1], [2]]
    workers = loader._iterator

    other: Any = batches_of(loader, Collation(model))

    assert other.num_workers == 1
    assert other._iterator is None
    assert loader._iterator is workers
    assert {**vars(loader), "_iterator": None} == before
    del workers, loader._iterator


def test_counting_makes_no_batches(model: SentenceTransformer) -> None:
    """While it is idle, a collation makes nothing of what it is given."""
    collation = Collation(model)

    with collation.idle():
        assert collation(ROWS) == ([], None)

    assert len(collation(ROWS)[0]) == 2
