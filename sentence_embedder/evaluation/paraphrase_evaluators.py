"""Evaluators of paraphrase mining: whether texts that mean the same are found among all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.evaluation.sentence_evaluator import Measured, MeasuringEvaluator
from sentence_embedder.retrieval import paraphrase_mining

Graph = Mapping[Any, Mapping[Any, bool]]
"""Id of a text → id of another → whether they are duplicates."""

_COLUMNS = ("precision", "recall", "f1", "threshold", "average_precision")


class ParaphraseMiningEvaluator(MeasuringEvaluator):
    """How well the pairs that are most similar, among all pairs of many texts, are those that are duplicates.

    Metrics: ``average_precision``, which counts, of the ranking of all pairs that are mined, where a duplicate that
    is not mined has a precision of 0; ``f1`` at the threshold that is best for it, ``precision`` and ``recall``
    there, and that ``threshold``. Pairs of equal similarity are found together.

    Args:
        sentences_map: Id → text.
        duplicates_list: Pairs of ids of texts that are duplicates; those of other texts are left out.
        duplicates_dict: Id → id → whether they are; in one direction or in both.
        add_transitive_closure: Whether duplicates of a duplicate are duplicates.
        query_chunk_size: How many texts are compared at once.
        corpus_chunk_size: With how many they are compared at once.
        max_pairs: How many pairs are mined at the most.
        top_k: How many of its nearest a text proposes as pairs.
        show_progress_bar: Whether ``encode`` shows one.
        batch_size: Of ``encode``.
        name: What is put before the names of the metrics, and into that of the CSV file.
        write_csv: Whether figures are appended to a CSV file.
        truncate_dim: Width to which embeddings are cut; by default the model's.

    Raises:
        ValueError: No two of the texts are duplicates, or a number is not positive.
    """

    def __init__(
        self,
        sentences_map: Mapping[Any, str],
        duplicates_list: Iterable[Sequence[Any]] | None = None,
        duplicates_dict: Graph | None = None,
        add_transitive_closure: bool = False,
        query_chunk_size: int = 5000,
        corpus_chunk_size: int = 100_000,
        max_pairs: int = 500_000,
        top_k: int = 100,
        show_progress_bar: bool | None = False,
        batch_size: int = 16,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        self.ids = list(sentences_map)
        self.sentences = list(sentences_map.values())
        known = (pair for pair in duplicates_list or () if all(key in sentences_map for key in pair))
        self.duplicates: Graph = _graph([*_pairs(duplicates_dict or {}), *known])
        if add_transitive_closure:
            self.duplicates = self.add_transitive_closure(self.duplicates)
        self._positive = self._places(self.duplicates)
        self.total_num_duplicates = len(self._positive)
        if not self.total_num_duplicates:
            raise ValueError(
                f"expected duplicates among the {len(self.ids)} texts of sentences_map, found none; "
                f"its ids look like {self.ids[:1]}"
            )
        self.mining: dict[str, Any] = {
            "query_chunk_size": query_chunk_size,
            "corpus_chunk_size": corpus_chunk_size,
            "max_pairs": max_pairs,
            "top_k": top_k,
        }
        for option, number in self.mining.items():
            if number < 1:
                raise ValueError(f"{option}: expected 1 or more, found {number}")

    @property
    def _default_csv_file(self) -> str:
        return self.file_name("paraphrase_mining_evaluation")

    def measured(self, model: Any) -> Measured:
        """The metrics of a model."""
        mined = paraphrase_mining(
            model,
            self.sentences,
            show_progress_bar=self.show_progress_bar,
            batch_size=self.batch_size,
            truncate_dim=self.truncate_dim,
            **self.mining,
        )
        # A model that has gone wrong gives similarities that are not numbers: nothing is mined by these.
        found = [pair for pair in mined if not math.isnan(pair[0])]
        scores, firsts, seconds = np.asarray(found, dtype=np.float64).reshape(-1, 3).T
        is_duplicate = np.isin(firsts * len(self.ids) + seconds, self._positive)
        figures = _figures(scores, is_duplicate, self.total_num_duplicates)
        return Measured(
            metrics=figures, primary="average_precision", columns={name: figures[name] for name in _COLUMNS}
        )

    def _places(self, graph: Graph) -> NDArray[np.int64]:
        """The pairs of two texts that are duplicates, each one number: i × texts + j, i < j their places."""
        place = {key: number for number, key in enumerate(self.ids)}
        pairs = (sorted((place[a], place[b])) for a, b in _pairs(graph) if a in place and b in place)
        return np.array(sorted({i * len(place) + j for i, j in pairs if i != j}), dtype=np.int64)

    @staticmethod
    def add_transitive_closure(graph: Graph) -> defaultdict[Any, defaultdict[Any, bool]]:
        """The same graph, and an edge between any two that a way connects.

        Args:
            graph: Id → id → whether they are duplicates; in one direction or in both. It is left as it is.

        Example:
            >>> closed = ParaphraseMiningEvaluator.add_transitive_closure({"a": {"b": True}, "b": {"c": True}})
            >>> closed["c"]["a"]
            True
        """
        edges = _graph(_pairs(graph))
        return _graph(pair for members in _components(edges) for pair in permutations(members, 2))


def _pairs(graph: Graph) -> Iterator[tuple[Any, Any]]:
    """The edges of a graph."""
    return ((first, second) for first, others in graph.items() for second, is_edge in others.items() if is_edge)


def _graph(pairs: Iterable[Sequence[Any]]) -> defaultdict[Any, defaultdict[Any, bool]]:
    """The graph of edges, each in both directions; whatever is asked for beyond them is False."""
    graph: defaultdict[Any, defaultdict[Any, bool]] = defaultdict(partial(defaultdict, bool))
    for first, second in pairs:
        graph[first][second] = graph[second][first] = True
    return graph


def _components(graph: Graph) -> Iterator[list[Hashable]]:
    """The groups of nodes that are connected."""
    seen: set[Hashable] = set()
    for start in graph:
        if start not in seen:
            seen.add(start)
            members = [start]
            for node in members:  # which grows meanwhile
                fresh = [other for other in graph[node] if other not in seen]
                seen.update(fresh)
                members += fresh
            yield members


def _figures(scores: NDArray[Any], is_duplicate: NDArray[np.bool_], total: int) -> dict[str, float]:
    """The metrics of pairs, the most similar first.

    Args:
        scores: Similarities (pairs,), falling.
        is_duplicate: Which are duplicates (pairs,).
        total: How many duplicates there are, mined or not.
    """
    if not len(scores):
        return dict.fromkeys(("average_precision", "f1", "precision", "recall", "threshold"), 0.0)
    right = np.cumsum(is_duplicate)
    ends = np.flatnonzero(np.append(np.diff(scores) != 0, True))  # a threshold lies between different scores
    right = right[ends]
    precision, recall = right / (ends + 1), right / total
    f1 = 2 * precision * recall / np.where(right > 0, precision + recall, 1)
    best = int(np.argmax(f1))
    threshold = (scores[ends[best]] + scores[min(ends[best] + 1, len(scores) - 1)]) / 2
    return {
        "average_precision": float((precision * np.diff(right, prepend=0)).sum() / total),
        "f1": float(f1[best]),
        "precision": float(precision[best]),
        "recall": float(recall[best]),
        "threshold": float(threshold) if f1[best] > 0 else 0.0,
    }
