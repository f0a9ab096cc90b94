"""Loaders of training data: what they yield, made into the input of a loss."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, default_collate, default_convert

from sentence_embedder.input_example import InputExample

Collate = Callable[[list[InputExample]], Any]
"""Examples → a batch."""


def twin(loader: Iterable[Any], collate: Collate) -> Iterable[Any]:
    """The same batches, collated where they are lists of examples; the loader is left as it is.

    Args:
        loader: A DataLoader, or any iterable of batches. A DataLoader without a ``collate_fn`` of its own cannot
            make batches of examples; its twin can, in as many workers.
        collate: Examples → a batch.
    """
    if not isinstance(loader, DataLoader) or loader.collate_fn not in (default_collate, default_convert):
        return _Collated(loader, collate)
    other = copy.copy(loader)
    other.collate_fn = partial(_collated, collate=collate, otherwise=loader.collate_fn)
    other._iterator = None  # that of persistent workers, which collate in the loader's way
    return other


class _Collated:
    """The batches of an iterable, collated as they come."""

    def __init__(self, batches: Iterable[Any], collate: Collate) -> None:
        self._batches = batches
        self._collate = collate

    def __iter__(self) -> Iterator[Any]:
        return (_collated(batch, self._collate, _same) for batch in self._batches)


def _collated(batch: Any, collate: Collate, otherwise: Callable[[Any], Any]) -> Any:
    is_examples = isinstance(batch, list) and all(isinstance(row, InputExample) for row in batch)
    return collate(batch) if is_examples else otherwise(batch)


def _same(batch: Any) -> Any:
    return batch
