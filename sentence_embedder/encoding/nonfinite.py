"""NonFiniteRows: embeddings that are not finite, and what is made of them."""

from __future__ import annotations

import logging
import math
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.encoding.inputs import DistinctTexts

logger = logging.getLogger(__name__)

OnNonFinite = Literal["nan", "raise"]
_WAYS: tuple[OnNonFinite, ...] = get_args(OnNonFinite)

_SHOWN = 5


class NonFiniteError(ValueError):
    """Some embeddings are not finite, even if their texts are computed alone, in float32.

    Args:
        rows: Their rows, ascending, shape (rows,).
        embeddings: All rows, of a lone text, too, as ``encode`` would have returned them, or in float32 if they
            were to be quantised: nothing that is done is lost.
        precision: What they were to be.
    """

    def __init__(self, rows: NDArray[np.int64], embeddings: Any, precision: str = "float32") -> None:
        remedy = "on_nonfinite='nan'" if precision == "float32" else f"precision='float32', unlike {precision},"
        super().__init__(
            f"{rows_in_words(rows)}: not finite, even computed alone in float32: the weights or a module make NaN "
            f"of these texts; error.embeddings holds all rows, and {remedy} returns them"
        )
        self.rows = rows
        self.embeddings = embeddings
        self._precision = precision

    def __reduce__(self) -> tuple[type[NonFiniteError], tuple[NDArray[np.int64], Any, str]]:
        return NonFiniteError, (self.rows, self.embeddings, self._precision)


class NonFiniteRows:
    """Takes the places of texts whose embeddings are not finite.

    Args:
        on_nonfinite: What is made of them in the end: their rows are NaN as a whole, or they are an error.
        start: The row of place 0, if these texts are a part of more.

    Raises:
        ValueError: There is no such way.
    """

    def __init__(self, on_nonfinite: OnNonFinite = "nan", start: int = 0) -> None:
        if on_nonfinite not in _WAYS:
            raise ValueError(f"on_nonfinite: expected one of {list(_WAYS)}, found {on_nonfinite!r}")
        self.on_nonfinite = on_nonfinite
        self.tried: int | None = None
        """How many of them were computed again before the others were left; None for all."""
        self._start = start
        self._places: set[int] = set()
        self._unread: list[tuple[NDArray[np.int64], Tensor]] = []

    @property
    def places(self) -> NDArray[np.int64]:
        """The places, ascending."""
        if self._unread:
            places, flags = zip(*self._unread, strict=True)
            self._unread = []
            self._take(np.concatenate(places), torch.cat(flags).cpu().numpy())
        return np.array(sorted(self._places), dtype=np.int64)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows that their caller knows them by, ascending."""
        return self.places + self._start

    def look_at(self, places: NDArray[np.int64], rows: Tensor) -> None:
        """Find the rows that are not finite, and take back those that are.

        Args:
            places: The place of each row among all.
            rows: The rows, shape (rows, …).
        """
        if rows.device.type == "cpu" and not self._places and are_finite(rows):
            return
        self.add(places, torch.isfinite(rows).flatten(1).all(dim=1))

    def add(self, places: NDArray[np.int64], is_finite: Tensor) -> None:
        """Take those of some places that are not finite, and take back those that are.

        Args:
            places: The places.
            is_finite: For each whether it is, shape (places,). A GPU is not waited for: it is read in the end.
        """
        if is_finite.device.type == "cpu":
            self._take(places, is_finite.numpy())
        else:
            self._unread.append((places, is_finite))

    def _take(self, places: NDArray[np.int64], is_finite: NDArray[np.bool_]) -> None:
        self._places.difference_update(places[is_finite].tolist())
        self._places.update(places[~is_finite].tolist())

    def repeat(self, texts: DistinctTexts) -> None:
        """Take those, too, whose texts are equal to one of them."""
        self._places.update(np.flatnonzero(np.isin(texts.originals, self.places)).tolist())

    def part(self, start: int, count: int) -> NonFiniteRows:
        """Those among so many texts from a place on, with places among these."""
        part = NonFiniteRows(self.on_nonfinite)
        part._places = {place - start for place in self.places.tolist() if start <= place < start + count}
        return part

    def told(self) -> str:
        """What there is to say of them."""
        tried = "" if self.tried is None else f", which was tried with {self.tried}"
        return (
            f"{rows_in_words(self.rows)}: the model makes no finite numbers of these texts, even computed alone in "
            f"float32{tried}"
        )

    def judge(self, rows: Any) -> None:
        """Log which they are, or make them an error, if there are any.

        Args:
            rows: All results.

        Raises:
            NonFiniteError: There are some, and they are to be an error.
        """
        named = self.rows
        if len(named) and self.on_nonfinite == "raise":
            raise NonFiniteError(named, rows)
        if len(named):
            logger.warning("%s: their embeddings are NaN; on_nonfinite='raise' makes it an error", self.told())


def are_finite(rows: Tensor) -> bool:
    """Whether all numbers of a tensor on the CPU are finite."""
    if len(rows) == 1 and math.isfinite(rows.sum().item()):
        return True
    # By numpy, in this thread: torch would take processors from those that compute a batch.
    if rows.dtype in (torch.float32, torch.float64, torch.float16):
        return bool(np.logical_and.reduce(np.isfinite(rows.numpy()), axis=None))
    return bool(torch.isfinite(rows).all())


def rows_in_words(rows: NDArray[np.int64]) -> str:
    """Rows in words, a few of many."""
    shown = ", ".join(f"{row:,}" for row in rows[:_SHOWN].tolist())
    more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}{more}"
