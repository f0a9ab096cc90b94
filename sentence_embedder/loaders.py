"""Loaders: what those of users yield → batches, the Features of each column and the labels."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate, default_convert

from sentence_embedder.features import Features, to_device
from sentence_embedder.similarity import as_tensor

Batch = tuple[list[Features], Any]
"""The Features of each column of texts, and the labels of the rows: a tensor, or None."""

LABEL_COLUMNS = ("label", "labels", "score", "scores")
"""Columns that hold labels; all others hold texts."""


class Collating(Protocol):
    """What collation needs of a model."""

    def tokenize(self, texts: Any) -> Features:
        """Texts → Features."""

    def smart_batching_collate(self, batch: Any) -> tuple[list[Features], Tensor]:
        """Examples → the Features of each column, and the labels."""


class Collation:
    """What loaders yield → batches.

    Args:
        model: The model that tokenises.
    """

    def __init__(self, model: Collating) -> None:
        self.model = model
        self._is_idle = False

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Within this context batches are empty: they are only counted."""
        self._is_idle = True
        try:
            yield
        finally:
            self._is_idle = False

    def __call__(self, found: Any) -> Batch:
        """A batch of examples, of rows or columns by name, or one that is ready: (Features of each column, labels).

        Raises:
            ValueError: It is none of these.
        """
        if self._is_idle:
            return [], None
        if _is_ready(found):
            features, labels = found
            return list(features), labels
        if isinstance(found, Mapping):
            return self._of_columns(found)
        if isinstance(found, Sequence) and not isinstance(found, str) and len(found) > 0:
            if all(hasattr(row, "texts") and hasattr(row, "label") for row in found):
                return self.model.smart_batching_collate(found)
            if all(isinstance(row, Mapping) for row in found):
                return self._of_columns({name: [row[name] for row in found] for name in found[0]})
        raise ValueError(
            "expected of a loader a list of InputExamples, columns or rows by name, or a pair (Features of each "
            f"column, labels), found {found!r:.200}"
        )

    def _of_columns(self, columns: Mapping[str, Any]) -> Batch:
        texts = {name: column for name, column in columns.items() if name not in LABEL_COLUMNS}
        lone = [name for name, column in texts.items() if isinstance(column, str)]
        if lone:
            raise ValueError(
                f"expected columns of texts, found a lone text in {lone}: put a DataLoader around the rows"
            )
        cells = {name: list(column) for name, column in texts.items()}
        numbers = [name for name, column in cells.items() if column and all(map(_is_number, column))]
        if numbers:
            raise ValueError(f"expected columns of texts, found numbers in {numbers}: leave those columns out")
        labels = [as_tensor(column) for name, column in columns.items() if name in LABEL_COLUMNS]
        if len(labels) > 1 or not texts:
            raise ValueError(
                f"expected columns of texts and at most one of {list(LABEL_COLUMNS)}, found {list(columns)}"
            )
        return [self.model.tokenize(column) for column in cells.values()], labels[0] if labels else None


def _is_number(cell: Any) -> bool:
    return isinstance(cell, Number) or (isinstance(cell, Tensor) and cell.ndim == 0)


def _is_ready(found: Any) -> bool:
    return (
        isinstance(found, (tuple, list))
        and len(found) == 2
        and isinstance(found[0], (tuple, list))
        and len(found[0]) > 0
        and all(isinstance(column, Mapping) for column in found[0])
    )


def batch_to(batch: Batch, device: torch.device) -> Batch:
    """The same batch with every tensor on a device."""
    features, labels = batch
    return (
        [to_device(column, device) for column in features],
        labels.to(device) if isinstance(labels, Tensor) else labels,
    )


def batches_of(loader: Iterable[Any], collation: Collation) -> Iterable[Any]:
    """What yields the batches of a loader, which stays as it is.

    A ``DataLoader`` without a ``collate_fn`` of its own cannot make batches of examples: its twin here collates, in
    as many workers. What others yield is still to be collated.

    Args:
        loader: A ``DataLoader``, or anything else that yields batches.
        collation: What makes batches.
    """
    if not isinstance(loader, DataLoader) or loader.collate_fn not in (default_collate, default_convert):
        return loader
    twin = copy.copy(loader)
    twin.collate_fn = collation
    twin._iterator = None  # that of persistent workers, which collate in the loader's way
    return twin
