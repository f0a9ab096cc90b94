"""Search in indices of FAISS and of usearch: the same hits as by comparing with everything."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sentence_embedder.quantization import quantize_embeddings, semantic_search_faiss, semantic_search_usearch
from sentence_embedder.quantization.precision import Precision
from sentence_embedder.util import dot_score, semantic_search

Search = Callable[..., Any]

LIBRARIES: dict[str, Search] = {"faiss": semantic_search_faiss, "usearch": semantic_search_usearch}
CASES: list[tuple[str, Precision]] = [
    *[("faiss", precision) for precision in ("float32", "uint8", "ubinary")],
    *[("usearch", precision) for precision in ("float32", "int8", "binary", "ubinary")],
]
QUANTIZED = [case for case in CASES if case[1] != "float32"]


def embeddings_of(count: int, dimension: int, seed: int = 0) -> NDArray[np.float32]:
    """Random embeddings of length 1."""
    rows = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def ranges_of(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Minimum and maximum of each dimension."""
    return np.stack([embeddings.min(axis=0), embeddings.max(axis=0)])


def restored(corpus: NDArray[Any], precision: Precision, ranges: NDArray[np.float32], dimension: int) -> Any:
    """What quantised embeddings stand for."""
    if precision in ("binary", "ubinary"):
        raw = corpus.view(np.uint8) ^ (0x80 if precision == "binary" else 0)
        return np.unpackbits(raw.astype(np.uint8), axis=1)[:, :dimension].astype(np.float32)
    levels = corpus.astype(np.float32) + (128 if precision == "int8" else 0)
    return levels * (ranges[1] - ranges[0]) / 255 + ranges[0]


def places(hits: Any) -> list[list[int]]:
    """The places of hits, query by query."""
    return [[hit["corpus_id"] for hit in of_query] for of_query in hits]


# ── Right ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("library", LIBRARIES)
def test_floats_are_found_as_by_exact_search(library: str) -> None:
    """Of floats the hits are those of semantic_search, and so are the scores of FAISS."""
    queries, corpus = embeddings_of(7, 24), embeddings_of(200, 24, seed=1)
    expected = semantic_search(queries, corpus, top_k=5, score_function=dot_score)

    hits, seconds = LIBRARIES[library](queries, corpus, top_k=5)

    assert places(hits) == places(expected)
    assert seconds >= 0
    if library == "faiss":
        found = [[hit["score"] for hit in of_query] for of_query in hits]
        np.testing.assert_allclose(found, [[hit["score"] for hit in row] for row in expected], atol=1e-6)


@pytest.mark.parametrize(("library", "precision"), QUANTIZED)
@given(
    count=st.integers(1, 40),
    asked=st.integers(1, 4),
    dimension=st.integers(1, 20),
    top_k=st.integers(1, 50),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_all_entries_in_the_order_of_the_floats(
    library: str, precision: Precision, count: int, asked: int, dimension: int, top_k: int, seed: int
) -> None:
    """If all of the corpus is looked at again, hits and scores are those of the queries in floats with what the
    quantised entries stand for, whatever the shapes.
    """
    floats = embeddings_of(count, dimension, seed)
    queries = embeddings_of(asked, dimension, seed + 1)
    ranges = ranges_of(np.concatenate([floats, queries]))
    corpus = quantize_embeddings(floats, precision, ranges=ranges)
    scores = queries @ restored(corpus, precision, ranges, dimension).T

    hits, _ = LIBRARIES[library](
        queries, corpus, corpus_precision=precision, top_k=top_k, ranges=ranges, rescore_multiplier=count
    )

    for of_query, expected in zip(hits, scores, strict=True):
        found = [hit["score"] for hit in of_query]
        assert len({hit["corpus_id"] for hit in of_query}) == len(found) == min(top_k, count)
        np.testing.assert_allclose(found, np.sort(expected)[::-1][: len(found)], atol=1e-5)
        np.testing.assert_allclose(found, expected[[hit["corpus_id"] for hit in of_query]], atol=1e-5)


@pytest.mark.parametrize(("library", "precision"), QUANTIZED)
def test_what_is_found_in_fewer_bits(library: str, precision: Precision) -> None:
    """With the default multiplier most of the nearest entries are found, more than without a second look."""
    queries, floats = embeddings_of(50, 128), embeddings_of(500, 128, seed=1)
    ranges = ranges_of(floats)
    corpus = quantize_embeddings(floats, precision, ranges=ranges)
    expected = places(semantic_search(queries, floats, top_k=10, score_function=dot_score))

    def recall(**arguments: Any) -> float:
        hits, _ = LIBRARIES[library](queries, corpus, corpus_precision=precision, ranges=ranges, **arguments)
        pairs = zip(places(hits), expected, strict=True)
        return float(np.mean([len({*found} & {*known}) / 10 for found, known in pairs]))

    again, once = recall(), recall(rescore=False)

    assert again >= once
    assert again > (0.9 if precision in ("int8", "uint8") else 0.25)


@pytest.mark.parametrize(("library", "precision"), CASES)
def test_queries_in_the_precision_of_the_corpus(library: str, precision: Precision) -> None:
    """Queries that are quantised already are taken as they are; for bits the score is how many differ."""
    floats = embeddings_of(40, 16)
    quantized = quantize_embeddings(floats, precision, ranges=ranges_of(floats))

    hits, _ = LIBRARIES[library](quantized[:5], quantized, corpus_precision=precision, top_k=1)

    if precision in ("binary", "ubinary", "float32"):
        assert places(hits) == [[row] for row in range(5)]
    if precision in ("binary", "ubinary"):
        assert [row[0]["score"] for row in hits] == [0] * 5


@pytest.mark.parametrize(("library", "precision"), CASES)
@pytest.mark.parametrize("exact", [True, False])
def test_an_index_is_used_again(library: str, precision: Precision, exact: bool) -> None:
    """The index of a call finds the same in the next one; an approximate one finds most."""
    search = LIBRARIES[library]
    queries, floats = embeddings_of(3, 32), embeddings_of(60, 32, seed=1)
    ranges = ranges_of(floats)
    corpus = quantize_embeddings(floats, precision, ranges=ranges)
    arguments: dict[str, Any] = {"corpus_precision": precision, "ranges": ranges, "top_k": 4, "exact": exact}

    hits, _, index = search(queries, corpus, output_index=True, **arguments)
    again, _ = search(queries, corpus_index=index, **arguments)

    assert places(again) == places(hits)
    exact_hits, _ = search(queries, corpus, **{**arguments, "exact": True})
    common = sum(len({*one} & {*other}) for one, other in zip(places(hits), places(exact_hits), strict=True))
    assert common >= 9


@pytest.mark.parametrize(("library", "precision"), CASES)
def test_a_corpus_in_floats(library: str, precision: Precision) -> None:
    """A corpus in floats is brought to its precision, with ranges of its own; so are tensors, and a lone query."""
    search = LIBRARIES[library]
    queries, floats = embeddings_of(4, 32), embeddings_of(300, 32, seed=1)
    ranges = ranges_of(floats)
    corpus = quantize_embeddings(floats, precision, ranges=ranges)
    arguments: dict[str, Any] = {"corpus_precision": precision, "rescore_multiplier": 300}
    expected, _ = search(queries, corpus, ranges=ranges, **arguments)

    hits, _ = search(torch.from_numpy(queries), torch.from_numpy(floats), **arguments)
    lone, _ = search(queries[0], floats, **arguments)

    assert places(hits) == places(expected)
    assert places(lone) == places(expected)[:1]


@pytest.mark.parametrize(("library", "precision"), CASES)
def test_an_empty_corpus(library: str, precision: Precision) -> None:
    """Nothing is found in nothing."""
    width = 2 if precision in ("binary", "ubinary") else 16
    dtype = {"float32": np.float32, "int8": np.int8, "binary": np.int8}.get(precision, np.uint8)

    hits, _ = LIBRARIES[library](
        embeddings_of(2, 16),
        np.empty((0, width), dtype=dtype),
        corpus_precision=precision,
        ranges=ranges_of(embeddings_of(9, 16)),
    )

    assert hits == [[], []]


@pytest.mark.parametrize("shape", [(0, 16), (0,)])
@pytest.mark.parametrize(("library", "precision"), CASES)
def test_no_queries(library: str, precision: Precision, shape: tuple[int, ...]) -> None:
    """Nobody who asks nothing finds anything."""
    hits, _ = LIBRARIES[library](np.empty(shape, np.float32), embeddings_of(9, 16), corpus_precision=precision)

    assert hits == []


# ── Wrong ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "expected corpus_embeddings or corpus_index, found neither"),
        ({"corpus_embeddings": embeddings_of(2, 8), "corpus_index": object()}, "found both"),
        (
            {"corpus_embeddings": embeddings_of(2, 8), "corpus_precision": "float16"},
            "corpus_precision: expected one",
        ),
        ({"corpus_embeddings": embeddings_of(2, 8), "top_k": 0}, "top_k: expected 1 or more, found 0"),
    ],
)
def test_what_makes_no_sense(library: str, arguments: dict[str, Any], message: str) -> None:
    """It is an error that names the argument."""
    with pytest.raises(ValueError, match=message):
        LIBRARIES[library](embeddings_of(2, 8), **arguments)


@pytest.mark.parametrize(("library", "precision"), [("faiss", "int8"), ("faiss", "binary"), ("usearch", "uint8")])
def test_precisions_of_the_other_library(library: str, precision: Precision) -> None:
    """Each library has precisions that the other lacks."""
    with pytest.raises(ValueError, match="corpus_precision: expected one of"):
        LIBRARIES[library](embeddings_of(2, 8), embeddings_of(4, 8), corpus_precision=precision)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_not_installed(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error that names the extra."""
    imported = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith(library):
            raise ImportError(name)
        return imported(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)

    with pytest.raises(ImportError, match=r"pip install 'sentence-embedder\[search\]'"):
        LIBRARIES[library](embeddings_of(2, 8), embeddings_of(4, 8))
