"""ParaphraseMiningEvaluator: the metrics of a ranking of pairs, and what counts as a duplicate."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

from sentence_embedder import SentenceTransformer, evaluation
from sentence_embedder.evaluation.paraphrase_evaluators import ParaphraseMiningEvaluator, _figures
from sentence_embedder.evaluation.statistics import average_precision

MAP = {"a": "a cat", "b": "a kitten", "c": "a dog", "d": "a puppy"}


def test_the_ranking_is_judged_as_scikit_learn_does() -> None:
    """Where every duplicate is mined, the average precision is scikit-learn's, with equal scores as well; where
    some are not, it is that share of it.
    """
    generator = np.random.default_rng(0)
    for _ in range(20):
        scores = np.sort(generator.integers(0, 8, 30) / 8)[::-1]
        is_duplicate = np.append(generator.random(29) < 0.3, True)
        count = int(is_duplicate.sum())

        expected = average_precision(is_duplicate, scores)

        assert _figures(scores, is_duplicate, count)["average_precision"] == pytest.approx(expected)
        assert _figures(scores, is_duplicate, 4 * count)["average_precision"] == pytest.approx(expected / 4)


def test_a_threshold_lies_between_different_scores() -> None:
    """Pairs of equal similarity are taken together, and the threshold is halfway to the next."""
    scores = np.array([0.75, 0.5, 0.5, 0.25])

    found = _figures(scores, np.array([True, True, False, False]), 2)

    assert found == {
        "average_precision": pytest.approx((1 + 2 / 3) / 2),
        "f1": pytest.approx(0.8),
        "precision": pytest.approx(2 / 3),
        "recall": 1.0,
        "threshold": 0.375,
    }
    assert _figures(scores, np.zeros(4, dtype=bool), 2) == dict.fromkeys(found, 0.0)


def test_a_closure_joins_what_a_way_connects() -> None:
    """Duplicates of duplicates are duplicates, in whichever direction they are named; the graph stays as it is."""
    graph: dict[str, dict[str, bool]] = {"a": {"b": True, "x": False}, "c": {"b": True}, "x": {"y": True}}
    before = deepcopy(graph)

    closed = ParaphraseMiningEvaluator.add_transitive_closure(graph)

    assert closed == {
        "a": {"b": True, "c": True},
        "b": {"a": True, "c": True},
        "c": {"a": True, "b": True},
        "x": {"y": True},
        "y": {"x": True},
    }
    assert closed["a"]["x"] is False
    assert graph == before


def test_what_counts_as_a_duplicate() -> None:
    """Each pair of two different texts counts once, however often and in whichever direction it is named."""
    named: dict[str, dict[str, bool]] = {"a": {"b": True, "a": True, "z": True}, "c": {"d": False}}
    before = deepcopy(named)

    def count(**arguments: Any) -> int:
        return ParaphraseMiningEvaluator(MAP, **arguments).total_num_duplicates

    assert count(duplicates_dict=named) == 1
    assert count(duplicates_dict=named, duplicates_list=[("b", "a"), ("b", "c"), ("c", "z")]) == 2
    assert count(duplicates_list=iter([("b", "a"), ("b", "c")]), add_transitive_closure=True) == 3
    assert named == before


def test_nothing_to_find_is_refused() -> None:
    """Without a duplicate among the texts nothing can be judged, which is said before any training."""
    with pytest.raises(ValueError, match=r"duplicates among the 4 texts of sentences_map, found none; .*\['a'\]"):
        ParaphraseMiningEvaluator(MAP, [(1, 2)])
    with pytest.raises(ValueError, match="top_k: expected 1 or more, found 0"):
        ParaphraseMiningEvaluator(MAP, [("a", "b")], top_k=0)


def test_embeddings_are_made_once(minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many chunks are compared, the model embeds all texts in one call; ids may be of any kind."""
    calls = []
    encode = minilm.encode

    def counted(texts: Any, **options: Any) -> Any:
        calls.append(texts)
        return encode(texts, **options)

    monkeypatch.setattr(minilm, "encode", counted)
    texts = {7: "a cat", ("b", 1): "a kitten", None: "the stock market"}

    evaluator = evaluation.ParaphraseMiningEvaluator(
        texts, [(7, ("b", 1))], query_chunk_size=1, corpus_chunk_size=1
    )

    assert evaluator(minilm)["average_precision"] == 1.0
    assert calls == [["a cat", "a kitten", "the stock market"]]


def test_a_model_that_has_gone_wrong_mines_nothing() -> None:
    """Embeddings that are not numbers are no good model's."""

    class Broken:
        def encode(self, sentences: Any, **_: Any) -> Any:
            return torch.full((len(sentences), 4), float("nan"))

    evaluator = ParaphraseMiningEvaluator({"a": "one", "b": "two", "c": "three"}, duplicates_list=[("a", "b")])

    assert set(evaluator(Broken()).values()) == {0.0}
