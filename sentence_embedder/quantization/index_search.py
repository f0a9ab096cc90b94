"""Search in indices of FAISS and of usearch, also among embeddings in fewer bits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.quantization.precision import (
    CALIBRATED_PRECISIONS,
    Precision,
    as_numpy,
    quantize_embeddings,
    ranges_of,
)

if TYPE_CHECKING:
    import faiss
    from usearch.index import Index

FaissPrecision = Literal["float32", "uint8", "ubinary"]
UsearchPrecision = Literal["float32", "int8", "binary", "ubinary"]
Hits = list[list[dict[str, int | float]]]
Embeddings = Tensor | NDArray[Any]

_LINKS = 16
"""How many neighbours an entry of an approximate index (HNSW) knows."""

_NOTHING = -1


def semantic_search_faiss(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings | None = None,
    corpus_index: faiss.Index | None = None,
    corpus_precision: FaissPrecision = "float32",
    top_k: int = 10,
    ranges: NDArray[Any] | None = None,
    calibration_embeddings: Embeddings | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Any, ...]:
    """The nearest entries of a corpus for each query, by an index of FAISS (extra ``search``).

    Args:
        query_embeddings: Shape (queries, dim), or (dim,) for one; floats, or in the precision of the corpus.
        corpus_embeddings: Shape (texts, dim), in ``corpus_precision``, or floats, which are brought to it.
        corpus_index: An index of an earlier call, or of one's own, instead.
        corpus_precision: ``"float32"``, ``"uint8"`` or ``"ubinary"``.
        top_k: How many hits a query gets, fewer where the corpus is smaller.
        ranges: Minimum and maximum of each dimension, shape (2, dim), by which a uint8 corpus was quantised.
        calibration_embeddings: Embeddings to read the ranges off, if there are no ``ranges``; without both they are
            read off the corpus if it is in floats, or else off the queries, which is coarse.
        rescore: Whether ``rescore_multiplier`` times as many entries are found in the corpus, and those that go
            best with the queries in floats are taken; if the queries are in floats, and the corpus is not.
        rescore_multiplier: See above.
        exact: Whether the index compares with every entry, rather than with some (HNSW).
        output_index: Whether the index is returned, too.

    Returns:
        A list per query of ``{"corpus_id": int, "score": float}``, best first; the seconds that the search took;
        and the index, if asked for. The score is the dot product, with the quantised entry where entries are put
        into order again; without that, for bits, it is the number of those that differ.

    Raises:
        ImportError: FAISS is not installed.
        ValueError: There is no corpus, or two, or the precision is none of FAISS.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(_missing("faiss-cpu")) from error
    search = _Search(corpus_precision, ("float32", "uint8", "ubinary"), top_k, ranges, calibration_embeddings)
    corpus = search.corpus(corpus_embeddings, corpus_index)
    if corpus is not None:
        corpus_index = _new_faiss_index(faiss, corpus, corpus_precision, exact=exact)
    hits, seconds = search.run(
        _FaissCorpus(corpus_index, corpus_precision), query_embeddings, rescore_multiplier if rescore else 0
    )
    return (hits, seconds, corpus_index) if output_index else (hits, seconds)


def semantic_search_usearch(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings | None = None,
    corpus_index: Index | None = None,
    corpus_precision: UsearchPrecision = "float32",
    top_k: int = 10,
    ranges: NDArray[Any] | None = None,
    calibration_embeddings: Embeddings | None = None,
    rescore: bool = True,
    rescore_multiplier: int = 2,
    exact: bool = True,
    output_index: bool = False,
) -> tuple[Any, ...]:
    """The nearest entries of a corpus for each query, by an index of usearch (extra ``search``).

    Args:
        query_embeddings: As for ``semantic_search_faiss``, like all that is not named here.
        corpus_embeddings: See above.
        corpus_index: See above.
        corpus_precision: ``"float32"``, ``"int8"``, ``"binary"`` or ``"ubinary"``.
        top_k: See above.
        ranges: See above, for int8.
        calibration_embeddings: See above.
        rescore: See above.
        rescore_multiplier: See above.
        exact: See above.
        output_index: See above.

    Returns:
        As for ``semantic_search_faiss``, but what is not put into order again has the distance of usearch for its
        score, less being nearer: one minus the cosine for floats, one minus the dot product for int8, and for bits
        the number of those that differ.

    Raises:
        ImportError: usearch is not installed.
        ValueError: There is no corpus, or two, or the precision is none of usearch.
    """
    try:
        from usearch.index import Index
    except ImportError as error:
        raise ImportError(_missing("usearch")) from error
    allowed = ("float32", "int8", "binary", "ubinary")
    search = _Search(corpus_precision, allowed, top_k, ranges, calibration_embeddings)
    corpus = search.corpus(corpus_embeddings, corpus_index)
    if corpus is not None:
        corpus_index = _new_usearch_index(Index, corpus, corpus_precision)
    found_by = _UsearchCorpus(corpus_index, corpus_precision, exact)
    hits, seconds = search.run(found_by, query_embeddings, rescore_multiplier if rescore else 0)
    return (hits, seconds, corpus_index) if output_index else (hits, seconds)


# ── The indices ───────────────────────────────────────────────────────────────────────────────────────────────


class _Corpus(Protocol):
    """A corpus in an index."""

    size: int
    compares_floats: bool
    """Whether queries in floats are compared with its steps."""

    def nearest(self, queries: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Scores and places of entries, best first, shape (queries, count); −1 where there is no other entry."""

    def entries(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """The entries at some places, as they were put in."""


class _FaissCorpus:
    def __init__(self, index: Any, precision: Precision) -> None:
        self._index = index
        self.size: int = index.ntotal
        self.compares_floats = precision == "uint8"

    def nearest(self, queries: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        scores, places = self._index.search(np.ascontiguousarray(queries), count)
        return scores, places

    def entries(self, places: NDArray[np.int64]) -> NDArray[Any]:
        return np.stack([self._index.reconstruct(int(place)) for place in places])


class _UsearchCorpus:
    compares_floats = False

    def __init__(self, index: Any, precision: Precision, exact: bool) -> None:
        self._index, self._exact = index, exact
        self._is_signed = precision == "binary"
        self.size: int = len(index)

    def nearest(self, queries: NDArray[Any], count: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        matches = self._index.search(_raw_bits(queries) if self._is_signed else queries, count, exact=self._exact)
        shape = (len(queries), -1)
        places = np.reshape(matches.keys, shape).astype(np.int64)
        counts = np.reshape(getattr(matches, "counts", places.shape[1]), shape)
        places[np.arange(places.shape[1]) >= counts] = _NOTHING
        return np.reshape(matches.distances, shape), places

    def entries(self, places: NDArray[np.int64]) -> NDArray[Any]:
        return np.stack(list(self._index.get(places.astype(np.uint64))))


def _new_faiss_index(faiss: Any, corpus: NDArray[Any], precision: Precision, *, exact: bool) -> Any:
    width = corpus.shape[1]
    if precision == "ubinary":
        index = faiss.IndexBinaryFlat(8 * width) if exact else faiss.IndexBinaryHNSW(8 * width, _LINKS)
    elif exact:
        index = faiss.IndexFlatIP(width)
    else:
        index = faiss.IndexHNSWFlat(width, _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.add(np.ascontiguousarray(corpus, dtype=np.uint8 if precision == "ubinary" else np.float32))
    return index


def _new_usearch_index(index_class: Any, corpus: NDArray[Any], precision: Precision) -> Any:
    if precision in ("binary", "ubinary"):
        index = index_class(ndim=8 * corpus.shape[1], metric="hamming", dtype="b1")
    else:
        metric, dtype = ("cos", "f32") if precision == "float32" else ("ip", "i8")
        index = index_class(ndim=corpus.shape[1], metric=metric, dtype=dtype)
    index.add(np.arange(len(corpus)), _raw_bits(corpus) if precision == "binary" else corpus)
    return index


def _raw_bits(binary: NDArray[Any]) -> NDArray[np.uint8]:
    """The bits of embeddings in ``"binary"``, which has 128 taken from each byte."""
    return binary.view(np.uint8) ^ np.uint8(0x80)


# ── Search, and order ─────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Search:
    """What is asked for, and by which ranges floats and steps are made of each other.

    Args:
        precision: That of the corpus.
        allowed: The precisions that the library has.
        top_k: How many hits a query gets.
        ranges: Minimum and maximum of each dimension.
        calibration: Embeddings to read them off.
    """

    precision: Precision
    allowed: Sequence[str]
    top_k: int
    ranges: NDArray[Any] | None
    calibration: Embeddings | None

    def __post_init__(self) -> None:
        if self.precision not in self.allowed:
            raise ValueError(f"corpus_precision: expected one of {list(self.allowed)}, found {self.precision!r}")
        if self.top_k < 1:
            raise ValueError(f"top_k: expected 1 or more, found {self.top_k!r}")

    def corpus(self, embeddings: Embeddings | None, index: Any) -> NDArray[Any] | None:
        """The corpus in its precision; None if there is an index of it."""
        if (embeddings is None) == (index is None):
            found = "neither" if index is None else "both"
            raise ValueError(f"expected corpus_embeddings or corpus_index, found {found}")
        return None if embeddings is None else self._quantized(as_numpy(embeddings))

    def run(self, corpus: _Corpus, queries: Embeddings, multiplier: int) -> tuple[Hits, float]:
        """The hits, and the seconds that it took; in the order of the floats if there is a multiplier."""
        given = as_numpy(queries)
        if not len(given):
            return [], 0.0
        floats = np.atleast_2d(given)
        is_rescored = multiplier > 0 and self.precision != "float32" and floats.dtype not in (np.int8, np.uint8)
        is_in_steps = is_rescored and corpus.compares_floats
        asked = floats * self._steps(floats) if is_in_steps else self._quantized(floats)
        count = min(self.top_k * (multiplier if is_rescored else 1), corpus.size)
        started = time.perf_counter()
        if count == 0:
            return [[] for _ in floats], time.perf_counter() - started
        scores, places = corpus.nearest(asked, count)
        if is_rescored:
            scores = self._rescored(corpus, floats, places)
            order = np.argsort(-scores, axis=1, kind="stable")[:, : self.top_k]
            scores, places = np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)
        return _hits(scores, places), time.perf_counter() - started

    def _quantized(self, embeddings: NDArray[Any]) -> NDArray[Any]:
        if embeddings.dtype in (np.int8, np.uint8):
            return embeddings
        if self.precision in CALIBRATED_PRECISIONS:
            return quantize_embeddings(embeddings, self.precision, ranges=self._known_ranges(embeddings))
        return quantize_embeddings(embeddings, self.precision)

    def _known_ranges(self, embeddings: NDArray[Any]) -> NDArray[Any]:
        if self.ranges is None:
            self.ranges = ranges_of(embeddings if self.calibration is None else self.calibration, self.precision)
        return np.asarray(self.ranges, dtype=np.float32)

    def _steps(self, embeddings: NDArray[Any]) -> NDArray[np.float32]:
        """How much a step is in each dimension.

        A query times these, times the levels of an entry, is the query times the entry, but for a number that all
        entries share. In levels of its own, a query would favour entries that are large.
        """
        minima, maxima = self._known_ranges(embeddings)
        steps: NDArray[np.float32] = (maxima - minima) / 255
        return steps

    def _rescored(self, corpus: _Corpus, floats: NDArray[Any], places: NDArray[np.int64]) -> NDArray[Any]:
        """The dot products of the queries in floats with entries, −∞ where there is none."""
        known, inverse = np.unique(places[places != _NOTHING], return_inverse=True)
        entries = self._in_floats(corpus.entries(known), floats.shape[1])
        scores = np.full(places.shape, -np.inf, dtype=np.float32)
        rows = np.nonzero(places != _NOTHING)[0]
        scores[places != _NOTHING] = np.einsum("nd,nd->n", floats[rows], entries[inverse], dtype=np.float32)
        return scores

    def _in_floats(self, entries: NDArray[Any], dimension: int) -> NDArray[np.float32]:
        if self.precision in ("binary", "ubinary"):
            return np.unpackbits(entries.view(np.uint8), axis=1)[:, :dimension].astype(np.float32)
        lowest = np.float32(128 if self.precision == "int8" else 0)
        levels = entries.astype(np.float32) + lowest
        restored: NDArray[np.float32] = levels * self._steps(levels) + self._known_ranges(levels)[0]
        return restored


def _hits(scores: NDArray[Any], places: NDArray[np.int64]) -> Hits:
    return [
        [
            {"corpus_id": place, "score": score}
            for score, place in zip(of_query, where, strict=True)
            if place != _NOTHING
        ]
        for of_query, where in zip(scores.tolist(), places.tolist(), strict=True)
    ]


def _missing(package: str) -> str:
    return f"search: expected the package {package}: pip install 'sentence-embedder[search]'"
