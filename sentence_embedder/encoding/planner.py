"""Lengths of texts → batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.acceleration.sizes import rounded_up

_FEWEST_TOKENS = 256
"""Fewer are not worth a thread of their own."""


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


def by_tokens(lengths: NDArray[np.int64], tokens: int, *, most: int, workers: int) -> list[NDArray[np.int64]]:
    """Batches of texts of like length, each with about as many tokens; the longest first.

    Args:
        lengths: How many tokens each text has, shape (texts,).
        tokens: How many tokens a batch should have.
        most: How many it may have; a single text may have more.
        workers: How many batches are computed at the same time: their number is about a multiple of it.

    Returns:
        For each batch the places of its texts. Every text is in one batch.

    Example:
        >>> by_tokens(np.array([300, 600, 100, 200]), 512, most=1024, workers=2)
        [array([1]), array([0, 3]), array([2])]
    """
    if len(lengths) == 1:
        return [np.zeros(1, dtype=np.int64)]
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    total = int(ends[-1]) if len(ends) else 0
    size = max(1, min(tokens, most, max(_FEWEST_TOKENS, -(-total // workers))))
    count = -(-total // size)
    if count > 1:
        count = -(-count // workers) * workers
    size = min(most, rounded_up(-(-total // max(count, 1))))
    batches, start = [], 0
    while start < len(order):
        before = int(ends[start - 1]) if start else 0
        # The texts whose tokens fit, at least one; texts without tokens go with those before them.
        end = max(start + 1, int(np.searchsorted(ends, before + size, side="right")))
        batches.append(order[start:end])
        start = end
    return batches
