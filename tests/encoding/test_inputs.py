"""What a caller may hand to ``encode``."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from sentence_embedder.encoding.inputs import as_items


@pytest.mark.parametrize(
    ("given", "items"),
    [
        (["a", "b"], ["a", "b"]),
        (("a", "b"), ["a", "b"]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.array([["a", "b"], ["c", "d"]]), [["a", "b"], ["c", "d"]]),
        (pd.Series(["a", "b"], index=[5, 2]), ["a", "b"]),
        ((letter for letter in "ab"), ["a", "b"]),
        ([("a", "b"), {"k": "c"}, 3, 2.5, True], [("a", "b"), {"k": "c"}, 3, 2.5, True]),
        ([], []),
    ],
    ids=["list", "tuple", "array", "pairs", "Series", "generator", "kinds", "none"],
)
def test_collections(given: Any, items: list[Any]) -> None:
    """Every ordered collection becomes a list of its items, in their order."""
    assert as_items(given) == (items, False)


@pytest.mark.parametrize("given", ["a", "", np.array("a"), np.str_("a")], ids=repr)
def test_a_lone_text(given: Any) -> None:
    """A text is one item, not a collection of letters."""
    assert as_items(given) == ([str(given)], True)


def test_a_lone_text_with_a_key() -> None:
    """``{key: text}`` is one item."""
    assert as_items({"query": "a"}) == ([{"query": "a"}], True)


def test_the_list_that_is_given_is_not_the_one_that_is_used() -> None:
    """A list is copied: the caller may change theirs."""
    given = ["a"]

    items, _ = as_items(given)

    assert items is not given


@pytest.mark.parametrize("given", [None, 3, 2.5, b"a", bytearray(b"a"), {"a"}, frozenset("a")], ids=repr)
def test_what_is_no_text_and_no_ordered_collection(given: Any) -> None:
    """It is refused by its type, with what is accepted."""
    with pytest.raises(TypeError, match=f"expected a text, .* found {type(given).__name__}"):
        as_items(given)


def test_a_table() -> None:
    """A table is not taken for the names of its columns."""
    with pytest.raises(TypeError, match=r"found a table: pass one of its columns \['text', 'id'\]"):
        as_items(pd.DataFrame({"text": ["a"], "id": [1]}))


@pytest.mark.parametrize(
    "missing",
    [
        None,
        float("nan"),
        np.float32("nan"),
        np.datetime64("NaT", "D"),
        pd.NA,
        pd.NaT,
        b"bytes",
        ("a", None),
        ["a", float("nan")],
        {"key": None},
        {"key": b"bytes"},
    ],
    ids=repr,
)
def test_a_missing_text(missing: Any) -> None:
    """A row that is missing, or has a missing text in it, is named by its number."""
    with pytest.raises(TypeError, match="expected a text in row 2, found"):
        as_items(["a", "b", missing, "c"])
