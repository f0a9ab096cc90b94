"""What a caller hands to ``encode`` → a list of items."""

from __future__ import annotations

from collections import UserString
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Number
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["texts", "texts and pairs", "anything"]
"""What the rows of a model are: texts alone; pairs and ``{key: text}``, too; or whatever its first module takes."""

_ACCEPTED: Mapping[Kind, str] = {
    "texts": "a text, or a collection of them",
    "texts and pairs": "a text, a pair of texts, {key: text}, or a collection of them",
    "anything": "a text, a pair of texts, {key: text}, or a collection of them",
}


def as_items(sentences: Any, kind: Kind = "texts and pairs", start: int = 0) -> tuple[list[Any], bool]:
    """The items of a list, tuple, array, Series, column or iterator; a lone text is a list of one.

    Args:
        sentences: What the caller gave.
        kind: What the rows are. Of texts, numbers, dates and others that are printed in one way are taken, too.
        start: The row of the first item, for messages.

    Returns:
        The items in their order, and whether there was a lone one.

    Raises:
        TypeError: It is no text and no ordered collection, or one of its rows is missing or is no text.
        ValueError: A row has more or fewer texts than a pair, or than ``{key: text}``.

    Example:
        >>> as_items("hello")
        (['hello'], True)
        >>> as_items(word for word in ("one", "two"))
        (['one', 'two'], False)
    """
    if isinstance(sentences, np.ndarray) and sentences.dtype.names is None:
        sentences = sentences.tolist()
    if _is_lone(sentences):
        if not isinstance(sentences, str):
            _check_item(start, sentences, kind)
        return [sentences], True
    _check_collection(sentences, _ACCEPTED[kind])
    items = list(sentences)
    for row, item in enumerate(items, start=start):
        if not isinstance(item, str):
            _check_item(row, item, kind)
    return items, False


_NO_COLLECTIONS = (bytes, bytearray, memoryview, set, frozenset, np.ndarray)
"""What can be iterated, but has no order, or no texts."""


def _is_lone(sentences: object) -> bool:
    """Whether it is one item, no collection of them."""
    return isinstance(sentences, (str, Mapping, UserString)) or _is_image(sentences)


def _check_collection(sentences: Any, accepted: str) -> None:
    """Raise a TypeError, which says what is accepted, unless it is an ordered collection of items."""
    if hasattr(sentences, "columns"):
        columns = list(sentences.columns)
        raise TypeError(
            f"encode: expected one column of texts, found a table: pass one of its columns {columns!r:.80}"
        )
    has_texts = isinstance(sentences, Iterable) and not _is_of(sentences, "torch")
    if isinstance(sentences, _NO_COLLECTIONS) or not has_texts:
        raise TypeError(f"encode: expected {accepted}, found {type(sentences).__name__}: {sentences!r:.80}")


def _is_image(item: object) -> bool:
    """Whether an item is an image of Pillow, which need not be installed."""
    return _is_of(item, "PIL.Image")


def _is_of(item: object, module: str) -> bool:
    """Whether the class of an item, or one that it derives from, is of a module, which need not be imported."""
    return any(ancestor.__module__ == module for ancestor in type(item).__mro__)


def _check_item(row: int, item: Any, kind: Kind) -> None:
    """Raise an error for what would silently become the embedding of a word like "nan", or of what Python prints of
    an object.
    """
    if kind != "texts" and isinstance(item, (list, tuple, Mapping)):
        if kind == "texts and pairs" and len(item) != (1 if isinstance(item, Mapping) else 2):
            raise ValueError(f"row {row}: expected a text, a pair of texts or {{key: text}}, found {item!r:.80}")
        for part in item.values() if isinstance(item, Mapping) else item:
            # What else than texts may be inside, a first module of somebody else's may know.
            _check_item(row, part, "anything" if kind == "anything" else "texts")
    elif not isinstance(item, str) and (_is_missing(item) or (kind != "anything" and not _is_printable(item))):
        raise TypeError(f"encode: expected a text in row {row}, found {type(item).__name__}: {_shown(item):.80}")


def _is_missing(item: Any) -> bool:
    """Whether it stands for nothing, as NaN does, or is bytes, whose text is not known."""
    if item is None or type(item).__name__ in ("NAType", "NaTType") or isinstance(item, (bytes, bytearray)):
        return True
    try:
        return isinstance(item, (Number, np.generic)) and bool(item != item)
    except (ArithmeticError, ValueError):  # a NaN of Decimal that signals
        return True


def _is_printable(item: Any) -> bool:
    """Whether it is printed in one way that means something, as numbers, dates and paths are."""
    if isinstance(item, (Number, np.generic, UserString)):
        return True
    own_form: object = type(item).__str__
    if (
        own_form is object.__str__
        or callable(item)
        or isinstance(item, (Iterable, BaseException))
        or _is_image(item)
    ):
        return False
    try:
        str(item)
    except Exception:  # noqa: BLE001  # whatever it raises, there is no text
        return False
    return True


def _shown(item: Any) -> str:
    try:
        return repr(item)
    except Exception as error:  # noqa: BLE001  # of somebody's own class
        return f"what cannot be shown ({type(error).__name__})"


def chunks_of(sentences: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """A stream of items as lists of so many, read as they are needed.

    Args:
        sentences: The stream.
        size: How many items a list has; the last one may have fewer.

    Raises:
        TypeError: It is no collection of texts.
        ValueError: The size is not positive.

    Example:
        >>> list(chunks_of(iter(["a", "b", "c"]), 2))
        [['a', 'b'], ['c']]
    """
    if isinstance(sentences, np.ndarray) and sentences.dtype.names is None:
        sentences = _items_of(sentences, size) if sentences.ndim else sentences.item()
    if _is_lone(sentences):
        raise TypeError(
            f"encode: expected a stream of texts, found {type(sentences).__name__}: {sentences!r:.80}: "
            "put a lone text into a list"
        )
    _check_collection(sentences, "a stream of texts")
    if size < 1:
        raise ValueError(f"chunk_size: expected at least 1, found {size}")
    stream = iter(sentences)
    return iter(lambda: list(islice(stream, size)), [])


def _items_of(array: NDArray[Any], at_once: int) -> Iterator[Any]:
    """The items of an array as ``as_items`` has them, so many of them in memory at once."""
    for start in range(0, len(array), at_once):
        yield from array[start : start + at_once].tolist()


@dataclass(frozen=True)
class DistinctTexts:
    """Which of several texts are computed: each once.

    Args:
        computed: The place of the first one of each kind, ascending, shape (distinct texts,).
        originals: For each text the place of the first one that is equal to it, shape (texts,).
    """

    computed: NDArray[np.int64]
    originals: NDArray[np.int64]

    @staticmethod
    def of(items: Sequence[Any]) -> DistinctTexts:
        """The distinct ones among texts; of anything but texts, all.

        Example:
            >>> DistinctTexts.of(["yes", "no", "yes"]).computed
            array([0, 1])
        """
        if len(items) < 2 or not all(type(item) is str for item in items) or _have_distinct_hashes(items):
            return DistinctTexts.every(len(items))
        first: dict[str, int] = {}
        originals = np.fromiter(
            (first.setdefault(text, place) for place, text in enumerate(items)), dtype=np.int64, count=len(items)
        )
        return DistinctTexts(np.flatnonzero(originals == np.arange(len(items))), originals)

    @staticmethod
    def every(count: int) -> DistinctTexts:
        """So many texts, each of which is computed."""
        places = np.arange(count)
        return DistinctTexts(places, places)

    @property
    def count(self) -> int:
        """How many texts there are."""
        return len(self.originals)

    def repeated(self, at_once: int = 16_384) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """The places of texts that are not computed, and of those that they are equal to, some at a time."""
        if len(self.computed) == self.count:
            return
        places = np.flatnonzero(self.originals != np.arange(self.count))
        for start in range(0, len(places), at_once):
            some = places[start : start + at_once]
            yield some, self.originals[some]


def _have_distinct_hashes(texts: Sequence[str]) -> bool:
    """Whether texts differ in their hashes already, which take little memory."""
    hashes = np.fromiter(map(hash, texts), dtype=np.int64, count=len(texts))
    hashes.sort()
    return not bool((hashes[1:] == hashes[:-1]).any())
