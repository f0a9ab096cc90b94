"""Lengths of texts → batches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def plan(lengths: NDArray[np.int64], batch_size: int) -> list[list[int]]:
    """Batches of texts of like length, so that little is padding; the longest first, so that a batch that does
    not fit into memory fails at once.

    Args:
        lengths: How long each text is, shape (texts,).
        batch_size: The most texts in a batch.

    Returns:
        For each batch the places of its texts. Every text is in one batch.

    Example:
        >>> plan(np.array([3, 9, 4]), batch_size=2)
        [[1, 2], [0]]
    """
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size].tolist() for start in range(0, len(order), batch_size)]
