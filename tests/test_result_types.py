"""What type checkers and editors say that methods return: ``make check`` reads it here, a run compares it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import assert_type

from sentence_embedder import SentenceTransformer
from sentence_embedder.features import Features

TEXTS = ["the cat sat", "a dog"]


@pytest.fixture(scope="module")
def model(tiny_folders: dict[str, Path]) -> SentenceTransformer:
    """A tiny BERT that no test changes."""
    return SentenceTransformer(str(tiny_folders["bert"]), device="cpu")


def test_arrays(model: SentenceTransformer) -> None:
    """Without further words it is an array, of one text or of several."""
    one = assert_type(model.encode("a"), NDArray[Any])
    several = assert_type(model.encode(TEXTS, "query", None, 8, normalize_embeddings=True), NDArray[Any])
    small = assert_type(model.encode_query(TEXTS, precision="int8"), NDArray[Any])

    assert [array.ndim for array in (one, several, small)] == [1, 2, 2]


def test_tensors(model: SentenceTransformer) -> None:
    """``convert_to_tensor=True`` makes one tensor, whatever else is asked for."""
    one = assert_type(model.encode("a", convert_to_tensor=True), Tensor)
    several = assert_type(model.encode_document(TEXTS, convert_to_tensor=True, device="cpu"), Tensor)

    assert isinstance(one, Tensor)
    assert isinstance(several, Tensor)


def test_lists_of_tensors(model: SentenceTransformer) -> None:
    """``convert_to_numpy=False`` makes a list of tensors; a lone text has one."""
    one = assert_type(model.encode("a", convert_to_numpy=False), Tensor)
    several = assert_type(model.encode(TEXTS, convert_to_numpy=False), list[Tensor])

    assert isinstance(one, Tensor)
    assert [type(row) for row in several] == [Tensor, Tensor]


def test_token_embeddings(model: SentenceTransformer) -> None:
    """Token embeddings are a tensor a text."""
    one = assert_type(model.encode("a", output_value="token_embeddings"), Tensor)
    several = assert_type(model.encode(TEXTS, output_value="token_embeddings"), list[Tensor])

    assert one.ndim == 2
    assert [row.ndim for row in several] == [2, 2]


def test_all_features(model: SentenceTransformer) -> None:
    """All features are a dict a text."""
    one = assert_type(model.encode("a", output_value=None), Features)
    several = assert_type(model.encode(TEXTS, output_value=None), list[Features])

    assert [type(row) for row in (one, *several)] == [dict, dict, dict]


def test_chunks(model: SentenceTransformer) -> None:
    """Parts of a text are rows of an array or a tensor; of several texts, one for each."""
    one = assert_type(model.encode_chunks("the cat", [(0, 3)]), NDArray[Any])
    several = assert_type(model.encode_chunks(TEXTS, [[(0, 3)], [(0, 1)]]), list[NDArray[Any]])
    tensor = assert_type(model.encode_chunks("the cat", [(0, 3)], convert_to_tensor=True), Tensor)
    tensors = assert_type(
        model.encode_chunks(TEXTS, [[(0, 3)], [(0, 1)]], None, "", convert_to_tensor=True), list[Tensor]
    )

    assert [type(rows) for rows in (one, *several)] == [np.ndarray] * 3
    assert [type(rows) for rows in (tensor, *tensors)] == [Tensor] * 3


def test_tokens(model: SentenceTransformer) -> None:
    """A lone text has a number of tokens, and an array of places; several have an array, and a list of arrays."""
    count = assert_type(model.count_tokens("the cat"), int)
    counts = assert_type(model.count_tokens(TEXTS), NDArray[np.int64])
    places = assert_type(model.token_offsets("the cat"), NDArray[np.int64])
    several = assert_type(model.token_offsets(TEXTS), list[NDArray[np.int64]])

    assert type(count) is int
    assert counts.dtype == places.dtype == np.int64
    assert [len(rows) for rows in several] == counts.tolist()


def test_what_is_known_when_it_runs(model: SentenceTransformer) -> None:
    """What depends on a value that is known only then, may be anything."""
    as_tensor = bool(TEXTS)
    found = assert_type(model.encode(TEXTS, convert_to_tensor=as_tensor), Any)

    assert isinstance(found, Tensor)
