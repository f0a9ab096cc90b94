"""Lengths of texts → batches."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.acceleration.sizes import rounded_up

_FEWEST_TOKENS = 256
"""Fewer are not worth a thread of their own."""

_SMALLEST_GAP = 1 / 32
"""A smaller part of a batch is not worth a text: alone among longer ones, as each length has attention of its own,
it takes as long as what is filled up in its place."""

FEW_BATCHES = 8
"""So many are alike anyway; of more, the last one is what is left over."""

_SMALL = 4
"""Small batches are so many times smaller than others."""

_MOST_PADDED = 2
"""Times the tokens that a batch should have: so many it has at most when it is padded to its longest text, as for
the modules that follow a Transformer."""


def by_texts(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Batches of texts of like length, so that little is padding; the longest first, so that a batch that does
    not fit into memory fails at once.

    Args:
        lengths: How long each text is, shape (texts,).
        batch_size: The most texts in a batch.

    Returns:
        For each batch the places of its texts. Every text is in one batch.

    Example:
        >>> by_texts(np.array([3, 9, 4]), batch_size=2)
        [array([1, 2]), array([0])]
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def by_padded_tokens(
    lengths: NDArray[np.int64], tokens: int, *, batch_size: int, most: int, workers: int
) -> list[NDArray[np.int64]]:
    """Batches of texts of like length, the longest first, of about as many tokens each when they are padded.

    Args:
        lengths: How many tokens each text has, shape (texts,).
        tokens: How many tokens a batch should have.
        batch_size: The most texts in a batch.
        most: How many tokens it may have; a single text may have more.
        workers: How many batches are computed at the same time.

    Returns:
        For each batch the places of its texts. Every text is in one batch.

    Example:
        >>> by_padded_tokens(np.array([300, 500, 200, 100, 200]), 512, batch_size=32, most=1024, workers=1)
        [array([1]), array([0]), array([2, 4]), array([3])]
    """
    order = np.argsort(-lengths, kind="stable")
    size = _size(int(lengths.sum()), tokens, most, workers)
    batches, start = [], 0
    while start < len(order):
        count = min(batch_size, max(1, size // max(1, int(lengths[order[start]]))))
        batches.append(order[start : start + count])
        start += count
    return batches


def by_tokens(
    lengths: NDArray[np.int64], tokens: int, *, most: int, workers: int, most_padded: int | None = None
) -> list[NDArray[np.int64]]:
    """Batches of about as many tokens each: the longest texts first, and where the next is too long for what is
    left of a batch, the longest that fits, as long as not too much of a padded batch would be padding.

    Args:
        lengths: How many tokens each text has, shape (texts,).
        tokens: How many tokens a batch should have.
        most: How many it may have; a single text may have more.
        workers: How many batches are computed at the same time: their number is about a multiple of it.
        most_padded: How many it may have when it is padded, if there is a limit; a single text may have more.

    Returns:
        For each batch the places of its texts. Every text is in one batch.

    Example:
        >>> by_tokens(np.array([300, 500, 200, 100, 200]), 512, most=1024, workers=1)
        [array([1]), array([0, 3]), array([2, 4])]
    """
    if len(lengths) == 1:
        return [np.zeros(1, dtype=np.int64)]
    order = np.argsort(-lengths, kind="stable")
    total = int(lengths.sum())
    size = _size(total, tokens, most, workers)
    count = -(-total // size)
    if count > 1:
        count = -(-count // workers) * workers
    size = min(most, rounded_up(-(-total // max(count, 1))))
    padded = _MOST_PADDED * max(size, min(tokens, most))
    padded = padded if most_padded is None else min(padded, most_padded)
    return [order[ranks] for ranks in _evened(lengths[order].tolist(), size, padded, workers)]


def _size(total: int, tokens: int, most: int, workers: int) -> int:
    """How many tokens of so many a batch should have, so that no worker is idle if there are few."""
    return max(1, min(tokens, most, max(_FEWEST_TOKENS, -(-total // workers))))


def _evened(lengths: Sequence[int], size: int, padded: int, workers: int) -> list[list[int]]:
    """The ranks of each batch's texts, the last ones in small batches, so that no worker waits long for another.

    Args:
        lengths: How many tokens each text has, from long to short.
        size: How many a batch has; a single text may have more.
        padded: How many it has at most when it is padded, likewise.
        workers: How many batches are computed at the same time.
    """
    batches = list(_filled(lengths, size, padded))
    last = workers + len(batches) % workers
    if workers == 1 or len(batches) <= max(FEW_BATCHES, 2 * last - 1):
        return batches
    rest = sorted(chain.from_iterable(batches[-last:]))
    small = _filled([lengths[rank] for rank in rest], size // _SMALL, padded)
    return batches[:-last] + [[rest[rank] for rank in ranks] for ranks in small]


def _filled(lengths: Sequence[int], size: int, padded: int) -> Iterator[list[int]]:
    """The ranks of each batch's texts.

    Args:
        lengths: How many tokens each text has, from long to short.
        size: How many a batch has; a single text may have more.
        padded: How many it has at most when it is padded, likewise.
    """
    left, shortness = _Left(len(lengths)), [-length for length in lengths]
    while (rank := left.at(0)) < len(lengths):
        ranks: list[int] = []
        gap, most = size, padded // max(1, lengths[rank])
        while rank < len(lengths) and (not ranks or (lengths[rank] <= gap and len(ranks) < most)):
            ranks.append(rank)
            left.take(rank)
            gap -= lengths[rank]
            rank = left.at(rank + 1)
            if rank < len(lengths) and lengths[rank] > gap >= size * _SMALLEST_GAP:
                rank = left.at(bisect_left(shortness, -gap))
        yield ranks


class _Left:
    """The ranks that are in no batch yet.

    Args:
        count: How many there are.
    """

    def __init__(self, count: int) -> None:
        self._next = list(range(count + 1))

    def at(self, rank: int) -> int:
        """The first that is left from a rank on; their number if there is none."""
        following = self._next
        while following[rank] != rank:
            following[rank] = following[following[rank]]  # half of the way, for the next time
            rank = following[rank]
        return rank

    def take(self, rank: int) -> None:
        """This one is in a batch."""
        self._next[rank] = rank + 1
