"""What type checkers and editors say that ``encode`` returns: ``make check`` reads it here, a run compares it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_what_is_known_when_it_runs(model: SentenceTransformer) -> None:
    """What depends on a value that is known only then, may be anything."""
    as_tensor = bool(TEXTS)
    found = assert_type(model.encode(TEXTS, convert_to_tensor=as_tensor), Any)

    assert isinstance(found, Tensor)
