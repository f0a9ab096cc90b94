"""What people hand to ``encode`` by mistake, or find in a dirty corpus: a defined result, or an error with the row.

Nothing is left out, and nothing changes its place.
"""

from __future__ import annotations

import datetime
import decimal
import fractions
import math
import pathlib
import uuid
from collections import ChainMap, UserList, UserString, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sentence_embedder import SentenceTransformer

OK = "the cat sat"


class Silent:
    """An object that says nothing of itself."""


class Failing:
    """An object that cannot be printed."""

    def __str__(self) -> str:
        raise OSError("gone")

    __repr__ = __str__


class Shouting(str):
    """A text that prints itself in another way."""

    __slots__ = ()

    def __str__(self) -> str:
        return "hello world"


@dataclass(frozen=True)
class Case:
    """An input, and what happens.

    Args:
        name: What it is.
        given: Makes what is handed to ``encode``.
        like: The texts that it is encoded as; a lone text is a lone result.
        error: The error, if it is one.
        says: What its message says.
    """

    name: str
    given: Callable[[], Any]
    like: Any = None
    error: type[Exception] | None = None
    says: str = ""


def _wrong(name: str, given: Callable[[], Any], says: str, error: type[Exception] = TypeError) -> Case:
    return Case(name, given, error=error, says=says)


def _row(name: str, item: Callable[[], Any], says: str = "", error: type[Exception] = TypeError) -> Case:
    """Something that no row may be: the message names the row, and what it is."""
    return Case(
        f"a row: {name}", lambda: [OK, OK, item()], error=error, says=says or "expected a text in row 2, found"
    )


def _printed(name: str, item: Callable[[], Any], text: str) -> Case:
    """Something that is encoded as it is printed."""
    return Case(f"a row: {name}", lambda: [OK, item()], like=[OK, text])


_NOT_A_TEXT = "expected a text, a pair of texts, {key: text}, or a collection of them, found"
_NO_PAIR = "row 2: expected a text, a pair of texts or {key: text}, found"

CASES: list[Case] = [
    # What is no collection of texts.
    _wrong("None", lambda: None, f"{_NOT_A_TEXT} NoneType"),
    _wrong("a whole number", lambda: 5, f"{_NOT_A_TEXT} int: 5"),
    _wrong("a number", lambda: 1.5, f"{_NOT_A_TEXT} float: 1.5"),
    _wrong("NaN", lambda: math.nan, f"{_NOT_A_TEXT} float: nan"),
    _wrong("a truth value", lambda: True, f"{_NOT_A_TEXT} bool: True"),
    _wrong("bytes", lambda: b"a", f"{_NOT_A_TEXT} bytes"),
    _wrong("a bytearray", lambda: bytearray(b"a"), f"{_NOT_A_TEXT} bytearray"),
    _wrong("a memoryview", lambda: memoryview(b"a"), f"{_NOT_A_TEXT} memoryview"),
    _wrong("a set", lambda: {"a"}, f"{_NOT_A_TEXT} set"),
    _wrong("a frozenset", lambda: frozenset({"a"}), f"{_NOT_A_TEXT} frozenset"),
    _wrong("an object", Silent, f"{_NOT_A_TEXT} Silent"),
    _wrong("a class", lambda: Silent, f"{_NOT_A_TEXT} type"),
    _wrong("a function", lambda: len, f"{_NOT_A_TEXT} builtin_function_or_method"),
    _wrong("a path", lambda: pathlib.PurePosixPath("a"), f"{_NOT_A_TEXT} PurePosixPath"),
    _wrong("a tensor", lambda: torch.tensor([1, 2]), f"{_NOT_A_TEXT} Tensor"),
    _wrong("a tensor of one number", lambda: torch.tensor(1), f"{_NOT_A_TEXT} Tensor"),
    _wrong("a table", lambda: pd.DataFrame({"a": ["x"]}), "found a table: pass one of its columns ['a']"),
    _wrong(
        "a table of numpy", lambda: np.array([("a", 1)], dtype=[("x", "U1"), ("y", int)]), f"{_NOT_A_TEXT} ndarray"
    ),
    _wrong("a dict of columns", lambda: {"a": "x", "b": "y"}, "row 0: expected a text, a pair", ValueError),
    _wrong("an empty dict", dict, "row 0: expected a text, a pair", ValueError),
    _wrong("a dict without a text", lambda: {"title": None}, "expected a text in row 0, found NoneType"),
    _wrong("a dict with a list", lambda: {"title": ["a", "b"]}, "expected a text in row 0, found list"),
    # Columns and arrays with holes.
    _wrong("an array with NaN", lambda: np.array([1.0, np.nan]), "expected a text in row 1, found float: nan"),
    _wrong("an array with None", lambda: np.array(["a", None]), "expected a text in row 1, found NoneType"),
    _wrong("an array of three axes", lambda: np.array([[["a", "b"]] * 2]), "expected a text in row 0, found list"),
    _wrong(
        "a column with NA", lambda: pd.Series(["a", "b", pd.NA], dtype="string"), "expected a text in row 2, found"
    ),
    _wrong("a column with None", lambda: pd.Series(["a", None]), "expected a text in row 1, found"),
    _wrong("a column of dates with a hole", lambda: pd.Series([pd.NaT]), "expected a text in row 0, found NaTType"),
    _wrong("lists in lists in a list", lambda: [[["a"], ["b"]]], "expected a text in row 0, found list"),
    # Rows that are missing, or no texts.
    _row("None", lambda: None, "expected a text in row 2, found NoneType: None"),
    _row("NaN", lambda: math.nan, "expected a text in row 2, found float: nan"),
    _row("NaN of numpy", lambda: np.float32("nan"), "expected a text in row 2, found float32"),
    _row("NaN of Decimal", lambda: decimal.Decimal("nan")),
    _row("a signalling NaN of Decimal", lambda: decimal.Decimal("snan")),
    _row("a complex NaN", lambda: complex("nan")),
    _row("NaT of numpy", lambda: np.datetime64("NaT", "D")),
    _row("a span of time that is NaT", lambda: np.timedelta64("NaT", "D")),
    _row("NA of pandas", lambda: pd.NA),
    _row("NaT of pandas", lambda: pd.NaT),
    _row("bytes", lambda: b"a", "expected a text in row 2, found bytes: b'a'"),
    _row("a bytearray", lambda: bytearray(b"a")),
    _row("a memoryview", lambda: memoryview(b"a")),
    _row("a set", lambda: {"a"}, "expected a text in row 2, found set: {'a'}"),
    _row("an object", Silent, "expected a text in row 2, found Silent"),
    _row("an object that cannot be printed", Failing, "found Failing: what cannot be shown (OSError)"),
    _row("a class", lambda: Silent, "expected a text in row 2, found type"),
    _row("a function", lambda: len),
    _row("an error", lambda: ValueError("x")),
    _row("a generator", lambda: (text for text in "ab"), "expected a text in row 2, found generator"),
    _row("a range", lambda: range(2)),
    _row("a tensor", lambda: torch.tensor([1]), "expected a text in row 2, found Tensor"),
    _row("an array", lambda: np.array(["a", "b"]), "expected a text in row 2, found ndarray"),
    _row("a column", lambda: pd.Series(["a"]), "expected a text in row 2, found Series"),
    _row("a pair of one", lambda: ("a",), f"{_NO_PAIR} ('a',)", ValueError),
    _row("an empty pair", tuple, f"{_NO_PAIR} ()", ValueError),
    _row("a pair of three", lambda: ("a", "b", "c"), f"{_NO_PAIR} ('a', 'b', 'c')", ValueError),
    _row("a dict of two", lambda: {"a": "x", "b": "y"}, f"{_NO_PAIR} {{'a': 'x', 'b': 'y'}}", ValueError),
    _row("an empty dict", dict, f"{_NO_PAIR} {{}}", ValueError),
    _row("a pair with None", lambda: ("a", None)),
    _row("a pair with bytes", lambda: ("a", b"b")),
    _row("a pair with a pair", lambda: (("a", "b"), "c"), "expected a text in row 2, found tuple"),
    _row("a pair with a dict", lambda: ({"a": "x"}, "c"), "expected a text in row 2, found dict"),
    _row("a dict with NaN", lambda: {"a": math.nan}),
    # Rows that are encoded as they are printed.
    _printed("a whole number", lambda: 5, "5"),
    _printed("a number", lambda: 1.5, "1.5"),
    _printed("a truth value", lambda: True, "True"),
    _printed("a number of numpy", lambda: np.int64(7), "7"),
    _printed("a text of numpy", lambda: np.str_("a dog"), "a dog"),
    _printed("a Decimal", lambda: decimal.Decimal("1.50"), "1.50"),
    _printed("a fraction", lambda: fractions.Fraction(1, 2), "1/2"),
    _printed("a complex number", lambda: 1j, "1j"),
    _printed("infinity", lambda: math.inf, "inf"),
    _printed("a date", lambda: datetime.date(2020, 1, 2), "2020-01-02"),
    _printed("a path", lambda: pathlib.PurePosixPath("a/b"), "a/b"),
    _printed("an identifier", lambda: uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    _printed("a UserString", lambda: UserString("a dog"), "a dog"),
    _printed("a text that prints otherwise", lambda: Shouting("a"), "hello world"),
    Case("a pair with a number", lambda: [OK, ("a dog", 5)], like=[OK, ("a dog", "5")]),
    # Collections of all kinds.
    Case("an array of no axes", lambda: np.array("a dog"), like="a dog"),
    Case("an array of two axes", lambda: np.array([["a", "b"], ["c", "d"]]), like=[("a", "b"), ("c", "d")]),
    Case("a UserString", lambda: UserString("a dog"), like="a dog"),
    Case("a UserList", lambda: UserList(["a", "b"]), like=["a", "b"]),
    Case("a ChainMap", lambda: ChainMap({"title": "a dog"}), like={"title": "a dog"}),
    Case("a dict with a key that is a number", lambda: {1: "a dog"}, like="a dog"),
    Case("a deque", lambda: deque(["a", "b"]), like=["a", "b"]),
    Case("keys", lambda: {"a": 1, "b": 2}.keys(), like=["a", "b"]),
    Case("a range", lambda: range(3), like=["0", "1", "2"]),
    Case("pairs from zip", lambda: zip("ab", "cd", strict=True), like=[("a", "c"), ("b", "d")]),
    Case("categories", lambda: pd.Series(["a", "b", "a"], dtype="category"), like=["a", "b", "a"]),
    Case("an index", lambda: pd.Index(["a", "b"]), like=["a", "b"]),
    Case("an iterator that is used up", lambda: iter(()), like=[]),
    Case("an array of no texts", lambda: np.array([], dtype=object), like=[]),
    Case(
        "all kinds together", lambda: [1, "a", ("b", "c"), {"k": "d"}, 2.5], like=["1", "a", ("b", "c"), "d", "2.5"]
    ),
    # Texts that are hard to read.
    Case("an empty text", lambda: [OK, ""], like=[OK, ""]),
    Case("spaces alone", lambda: [OK, "   "], like=[OK, ""]),
    Case("rare spaces and line ends", lambda: [OK, "\u00a0\u2003\n\r\t"], like=[OK, ""]),
    Case("the first half of a surrogate", lambda: [OK, "a \ud800"], like=[OK, "a \ufffd"]),
    Case("the other half", lambda: [OK, "\udfff a"], like=[OK, "\ufffd a"]),
    Case("both halves", lambda: [OK, "\ud83d\ude00"], like=[OK, "\ufffd\ufffd"]),
    Case("a surrogate in a pair", lambda: [OK, ("a", "\udc80")], like=[OK, ("a", "\ufffd")]),
    Case("a zero in the middle", lambda: [OK, "a\0dog"], like=[OK, "adog"]),
    Case("control characters", lambda: [OK, "".join(map(chr, range(1, 32))) + "dog"], like=[OK, "dog"]),
    Case("a byte order mark", lambda: [OK, "\ufeffdog"], like=[OK, "dog"]),
    Case("marks of direction", lambda: [OK, "\u202edog\u202c"], like=[OK, "dog"]),
    Case("thousands of accents", lambda: [OK, "a" + "\u0301" * 5000], like=[OK, "a"]),
    Case("words that nobody knows", lambda: [OK, "\u0238\u0239"], like=[OK, "[UNK]"]),
    Case("names of special tokens", lambda: [OK, "[CLS] [PAD] [MASK]"], like=[OK, " [CLS] [PAD] [MASK] "]),
    Case("ten million letters", lambda: [OK, "a" * 10_000_000], like=[OK, "a" * 10_000]),
    Case("ten million spaces", lambda: [OK, " " * 10_000_000], like=[OK, ""]),
    Case("ten million letters in words", lambda: [OK, "the cat " * 1_250_000], like=[OK, "the cat " * 100]),
]


@pytest.fixture(scope="module")
def shared(tiny_folders: dict[str, Any]) -> SentenceTransformer:
    """A tiny BERT that no test changes."""
    return SentenceTransformer(str(tiny_folders["bert"]), device="cpu", prompts={})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_table(case: Case, shared: SentenceTransformer) -> None:
    """Each input has the embeddings of the texts that it means, or is an error that says what it is."""
    if case.error is not None:
        with pytest.raises(case.error) as caught:
            shared.encode(case.given())
        assert case.says in str(caught.value)
        return

    found = shared.encode(case.given())

    expected = shared.encode(case.like)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_table_is_long_enough() -> None:
    """Eighty inputs and more, each of its own name."""
    assert len({case.name for case in CASES}) == len(CASES) >= 80


@pytest.mark.parametrize("method", ["encode_query", "encode_document", "count_tokens", "token_offsets"])
@pytest.mark.parametrize("case", [case for case in CASES if case.error], ids=lambda case: case.name)
def test_other_methods_say_the_same(case: Case, method: str, shared: SentenceTransformer) -> None:
    """What is an error for ``encode`` is one for all that take texts."""
    with pytest.raises((TypeError, ValueError)):
        getattr(shared, method)(case.given())


OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    *[({"batch_size": size}, ValueError, "batch_size: expected 1 or more") for size in (0, -1, 1.5, "8", None)],
    ({"precision": "int4"}, ValueError, "precision: expected one of"),
    ({"precision": 8}, ValueError, "precision: expected one of"),
    ({"output_value": "words"}, ValueError, "output_value: expected one of"),
    ({"output_value": None, "precision": "int8"}, ValueError, "all features are returned as they are"),
    *[({"truncate_dim": width}, ValueError, "truncate_dim: expected a whole number") for width in (1.5, "8")],
    ({"prompt_name": "missing"}, ValueError, "prompt_name"),
    ({"truncation": "no"}, ValueError, "truncation: expected one of"),
    ({"on_nonfinite": "no"}, ValueError, "on_nonfinite: expected one of"),
    ({"pool": "pool"}, TypeError, "pool: expected what start_multi_process_pool returns"),
    ({"words": 1}, TypeError, "no such argument: ['words']"),
    ({"out": [0.0]}, ValueError, "out: expected an array"),
    ({"out": np.zeros((5, 32), np.float32)}, ValueError, "out: expected the shape (2, dim)"),
    ({"out": np.zeros((2, 7), np.float32)}, ValueError, "out: expected the shape (2, 32)"),
    ({"out": np.zeros((2, 32), np.int32)}, ValueError, "out: expected float32"),
    ({"device": "abacus"}, RuntimeError, "abacus"),
]


@pytest.mark.parametrize(("options", "error", "says"), OPTIONS, ids=str)
def test_options_that_do_not_exist(
    options: dict[str, Any], error: type[Exception], says: str, shared: SentenceTransformer
) -> None:
    """Each is an error that names the option and what is accepted; the model is as it was."""
    before = shared.encode(OK)

    with pytest.raises(error) as caught:
        shared.encode([OK, "a dog"], **options)

    assert says in str(caught.value)
    np.testing.assert_array_equal(shared.encode(OK), before)


def test_a_million_short_texts(shared: SentenceTransformer) -> None:
    """They are as many rows, each that of its text."""
    kinds = [f"a cat {number}" for number in range(50)]

    rows = shared.encode(kinds * 20_000)

    assert rows.shape == (1_000_000, 32)
    expected = shared.encode(kinds)
    for start in (0, 499_950, 999_950):
        np.testing.assert_allclose(rows[start : start + 50], expected, atol=1e-6)


def test_the_row_of_a_stream(shared: SentenceTransformer) -> None:
    """A stream gives what came before the bad row, and counts it from the beginning."""

    def texts() -> Iterator[Any]:
        yield from ["a dog"] * 7
        yield None

    chunks = shared.encode_iter(texts(), chunk_size=3)

    assert [len(next(chunks)) for _ in range(2)] == [3, 3]
    with pytest.raises(TypeError, match="expected a text in row 7, found NoneType"):
        next(chunks)


def test_the_row_of_a_stream_that_is_too_long(model: SentenceTransformer) -> None:
    """So does the error of a text that does not fit."""
    model.max_batch_tokens = 8
    chunks = model.encode_iter([*["a dog"] * 7, "the cat sat on the mat and the dog"], chunk_size=3)

    assert [len(next(chunks)) for _ in range(2)] == [3, 3]
    with pytest.raises(MemoryError, match="row 7: a text of"):
        next(chunks)


def test_an_error_of_the_callers_own(shared: SentenceTransformer) -> None:
    """What a generator raises arrives as it is."""

    def texts() -> Iterator[str]:
        yield "a"
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        shared.encode(texts())


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(alphabet=st.characters(), max_size=20),
    st.binary(max_size=4),
    st.dates(),
    st.decimals(),
    st.complex_numbers(),
    st.sampled_from([pd.NA, pd.NaT, np.float32("nan"), np.int8(3), len, Silent(), UserString("a")]),
)
_ROWS = st.recursive(
    _SCALARS,
    lambda rows: st.one_of(
        st.lists(rows, max_size=3),
        st.tuples(rows, rows),
        st.dictionaries(st.text(max_size=3), rows, max_size=2),
        st.frozensets(st.text(max_size=2), max_size=2),
    ),
    max_leaves=4,
)


@settings(max_examples=150)
@given(rows=st.lists(_ROWS, max_size=6))
@example(rows=["", "\ud800", ("a", "b"), {"k": "c"}, 1])
def test_any_rows_at_all(rows: list[Any], shared: SentenceTransformer) -> None:
    """Either each row has the embedding that it has alone, in its place, or an error names the first bad one."""
    alone = [_outcome(shared, [row]) for row in rows]
    bad = [place for place, outcome in enumerate(alone) if isinstance(outcome, str)]

    found = _outcome(shared, rows)

    if bad:
        assert f"row {bad[0]}" in found
        assert "expected a text" in found
    else:
        np.testing.assert_allclose(found, np.array(alone).reshape(len(rows), 32), atol=1e-5)


def _outcome(model: SentenceTransformer, rows: list[Any]) -> Any:
    """The embeddings, or what the error says."""
    try:
        return model.encode(rows)
    except (TypeError, ValueError) as error:
        return str(error)


@settings(max_examples=60)
@given(texts=st.lists(st.text(alphabet=st.characters(), max_size=60), min_size=1, max_size=8))
def test_any_text_at_all(texts: list[str], shared: SentenceTransformer) -> None:
    """Whatever characters there are, every text has its row, which is finite and the same alone."""
    rows = shared.encode(texts)

    assert rows.shape == (len(texts), 32)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows, np.stack([shared.encode(text) for text in texts]), atol=1e-5)
