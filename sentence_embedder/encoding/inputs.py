"""What a caller hands to ``encode`` → a list of items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_ACCEPTED = "a text, a pair of texts, {key: text}, or a collection of them"


def as_items(sentences: Any) -> tuple[list[Any], bool]:
    """The items of a list, tuple, array, Series, column or iterator; a lone text is a list of one.

    Args:
        sentences: What the caller gave.

    Returns:
        The items in their order, and whether there was a lone one.

    Raises:
        TypeError: It is no text and no ordered collection, or one of its rows is missing or is no text.

    Example:
        >>> as_items("hello")
        (['hello'], True)
        >>> as_items(word for word in ("one", "two"))
        (['one', 'two'], False)
    """
    if isinstance(sentences, np.ndarray):
        sentences = sentences.tolist()
    if isinstance(sentences, (str, Mapping)):
        return [sentences], True
    if hasattr(sentences, "columns"):
        columns = list(sentences.columns)
        raise TypeError(
            f"encode: expected one column of texts, found a table: pass one of its columns {columns!r:.80}"
        )
    if isinstance(sentences, (bytes, bytearray, set, frozenset)) or not isinstance(sentences, Iterable):
        raise TypeError(f"encode: expected {_ACCEPTED}, found {type(sentences).__name__}: {sentences!r:.80}")
    items = list(sentences)
    for row, item in enumerate(items):
        if not isinstance(item, str):
            _check_item(row, item)
    return items, False


def _check_item(row: int, item: Any) -> None:
    """Raise a TypeError for what would silently become the embedding of a word like "nan"."""
    if isinstance(item, (list, tuple, Mapping)):
        for text in item.values() if isinstance(item, Mapping) else item:
            _check_item(row, text)
    is_nan = isinstance(item, (float, np.floating, np.datetime64)) and item != item
    is_missing = item is None or is_nan or type(item).__name__ in ("NAType", "NaTType")
    if is_missing or isinstance(item, (bytes, bytearray)):
        raise TypeError(f"encode: expected a text in row {row}, found {type(item).__name__}: {item!r:.80}")
