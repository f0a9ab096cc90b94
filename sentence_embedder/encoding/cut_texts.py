"""CutTexts: which texts of a call were longer than the model reads, and what is made of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.encoding.inputs import DistinctTexts

Truncation = Literal["warn", "ignore", "error"]
_TRUNCATIONS: tuple[Truncation, ...] = get_args(Truncation)


class CutTexts:
    """Takes the places of texts that were cut.

    Args:
        truncation: What is made of them: they are counted, or they are an error.
        limit: How many tokens of a text are read, if that is known.
        start: The row of place 0, if these texts are a part of more.

    Raises:
        ValueError: There is no such way.
    """

    def __init__(self, truncation: Truncation = "warn", limit: int | None = None, start: int = 0) -> None:
        if truncation not in _TRUNCATIONS:
            raise ValueError(f"truncation: expected one of {list(_TRUNCATIONS)}, found {truncation!r}")
        self.truncation = truncation
        self.limit = limit
        self.start = start
        self._places: list[NDArray[np.int64]] = []

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self._places))

    @property
    def places(self) -> NDArray[np.int64]:
        """The places, ascending."""
        return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *self._places]))

    def add(self, places: Sequence[int] | NDArray[np.int64]) -> None:
        """Take some.

        Raises:
            ValueError: None may be cut.
        """
        if len(places) == 0:
            return
        if self.truncation == "error":
            raise ValueError(
                f"row {self.start + int(np.min(places))}: expected a text of no more than "
                f"{told_of_limit(self.limit)}, found a longer one, and {len(places) - 1:,} more among those after "
                "it so far: split them, or let truncation be 'warn'"
            )
        self._places.append(np.asarray(places, dtype=np.int64))

    def repeat(self, texts: DistinctTexts) -> None:
        """Take those, too, that are equal to one that was cut."""
        if self._places:
            cut = self.places
            for places, originals in texts.repeated():
                self.add(places[np.isin(originals, cut)])

    def part(self, start: int, count: int) -> CutTexts:
        """Those among so many texts from a place on, with places among these."""
        part = CutTexts(self.truncation, self.limit)
        places = self.places
        part._places = [places[(places >= start) & (places < start + count)] - start]
        return part

    def told(self, count: int) -> str:
        """What there is to say of them, among so many texts."""
        return told_of_cuts(self.count, count, self.limit)


def told_of_limit(limit: int | None) -> str:
    """What a text may have, where ``limit`` is how many tokens of it are read, if that is known."""
    return "the model reads" if limit is None else f"{limit:,} tokens"


def told_of_cuts(cut: int, count: int, limit: int | None) -> str:
    """What there is to say of texts that were cut.

    Args:
        cut: How many.
        count: How many texts there are.
        limit: How many tokens of a text are read, if that is known.
    """
    to = "what" if limit is None else f"{limit:,} tokens, all that"
    return f"{cut:,} of {count:,} texts were cut to {to} the model reads: what follows is not in their embeddings"
