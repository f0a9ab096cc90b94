"""Evaluators on fixed texts, for this package and for sentence-transformers alike."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SOURCES = [
    "A cat sits on the window sill.",
    "Hello, world.",
    "The dog runs through the park.",
    "Rain falls on the roof.",
    "He reads a book about physics.",
    "She plays the violin.",
    "They build a house of stone.",
    "The train leaves at noon.",
]
TARGETS = [
    "A kitten is sitting by the window.",
    "Greetings to everybody.",
    "A dog is running in a garden.",
    "The sun shines on the beach.",
    "A man studies a science text.",
    "A woman makes music.",
    "A house is being built.",
    "The bus departs in the morning.",
]
OTHERS = [
    "A cat lies on the sill of a window.",
    "Stocks fell sharply.",
    "The park is closed.",
    "Rain fell on the roof.",
    "She wrote a letter.",
    "The violin is old.",
    "They paint a wall.",
    "The train arrives.",
]
LABELS = [1, 0, 1, 0, 1, 1, 1, 0]
SCORES = [0.9, 0.6, 0.8, 0.1, 0.5, 0.4, 0.7, 0.3]
ALL = ["cosine", "dot", "euclidean", "manhattan"]


def _numbered(texts: list[str]) -> list[str]:
    """Twenty times as many texts, all different."""
    return [f"{text} Number {number}." for number in range(20) for text in texts]


def _samples() -> list[dict[str, Any]]:
    """Queries, each with one or two relevant documents and some others; one has none that is relevant."""
    return [
        {
            "query": source,
            "positive": [TARGETS[number], OTHERS[number]][: number % 3],
            "negative": OTHERS[:number] + TARGETS[number + 1 :],
        }
        for number, source in enumerate(SOURCES)
    ]


def _collection() -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Queries, documents, and which of these are relevant: one or two for each query, none for the last."""
    queries = {f"q{number}": text for number, text in enumerate(SOURCES)}
    corpus = {f"d{number}": text for number, text in enumerate(TARGETS + OTHERS)}
    relevant = {
        f"q{number}": {f"d{number}", f"d{number + 8}"} if number % 2 else {f"d{number}"} for number in range(7)
    }
    return queries, corpus, relevant


Make = Callable[[Any, Any], Any]
"""The module ``evaluation`` of either library, a model → an evaluator."""


class _Prompted:
    """An evaluator that judges a model with prompts for queries and documents.

    Args:
        evaluator: The evaluator.
        model: The model, which has no prompts otherwise.
    """

    def __init__(self, evaluator: Any, model: Any) -> None:
        self._evaluator = evaluator
        self._model = model

    @property
    def primary_metric(self) -> Any:
        """That of the evaluator."""
        return self._evaluator.primary_metric

    def __call__(self, model: Any, **arguments: Any) -> Any:
        """What the evaluator says."""
        before = model.prompts
        model.prompts = {"query": "who or what: ", "document": "this is some text which says: "}
        try:
            return self._evaluator(model, **arguments)
        finally:
            model.prompts = before


CASES: Mapping[str, Make] = {
    "similarity": lambda e, _: e.EmbeddingSimilarityEvaluator(SOURCES, TARGETS, SCORES, name="dev"),
    "similarity, all": lambda e, _: e.EmbeddingSimilarityEvaluator(
        SOURCES, TARGETS, SCORES, similarity_fn_names=ALL, write_csv=True
    ),
    "similarity, the main one": lambda e, _: e.EmbeddingSimilarityEvaluator(
        SOURCES, TARGETS, SCORES, similarity_fn_names=ALL, main_similarity="euclidean", truncate_dim=64
    ),
    **{
        f"similarity, {precision}": lambda e, _, precision=precision: e.EmbeddingSimilarityEvaluator(  # type: ignore[misc]
            _numbered(SOURCES), _numbered(TARGETS), SCORES * 20, precision=precision
        )
        for precision in ("int8", "uint8", "binary", "ubinary")
    },
    "triplets": lambda e, _: e.TripletEvaluator(SOURCES, TARGETS, OTHERS, name="dev"),
    "triplets, all, by a margin": lambda e, _: e.TripletEvaluator(
        SOURCES, TARGETS, OTHERS, similarity_fn_names=ALL, margin=0.1
    ),
    "translations": lambda e, _: e.TranslationEvaluator(SOURCES, TARGETS, name="dev"),
    "teacher": lambda e, model: e.MSEEvaluator(SOURCES, TARGETS, teacher_model=model),
    "teacher, named": lambda e, model: e.MSEEvaluator(SOURCES, TARGETS, teacher_model=model, name="dev"),
    "classification": lambda e, _: e.BinaryClassificationEvaluator(SOURCES, TARGETS, LABELS, name="dev"),
    "classification, all": lambda e, _: e.BinaryClassificationEvaluator(
        SOURCES, OTHERS, LABELS, similarity_fn_names=ALL
    ),
    "reranking": lambda e, _: e.RerankingEvaluator(_samples(), name="dev"),
    "reranking, few": lambda e, _: e.RerankingEvaluator(_samples(), at_k=3),
    "retrieval": lambda e, _: e.InformationRetrievalEvaluator(*_collection(), name="dev"),
    "retrieval, by chunks": lambda e, model: e.InformationRetrievalEvaluator(
        *_collection(),
        corpus_chunk_size=5,
        mrr_at_k=[1, 5],
        ndcg_at_k=[3, 5],
        map_at_k=[2, 4],
        accuracy_at_k=[2],
        precision_recall_at_k=[1, 2],
        score_functions={"z": model.similarity, "negative": lambda a, b: -model.similarity(a, b)},
        truncate_dim=128,
    ),
    "retrieval of equal documents": lambda e, _: e.InformationRetrievalEvaluator(
        {1: "a cat", 2: "a dog"},
        {number: "a cat" if number % 3 else "a dog" for number in range(30, 0, -1)},
        {1: {1, 20, 29}, 2: {3, 27}},
        corpus_chunk_size=7,
        map_at_k=[4],
    ),
    "translations of equal texts": lambda e, _: e.TranslationEvaluator(
        ["cat", "cat", "dog"], ["cat", "cat", "cat"]
    ),
    "triplets with prompts": lambda e, model: _Prompted(
        e.TripletEvaluator(SOURCES, TARGETS, OTHERS, margin=0.02), model
    ),
    "retrieval with prompts": lambda e, _: e.InformationRetrievalEvaluator(
        *_collection(), query_prompt="question: ", corpus_prompt="text: "
    ),
    "sequence": lambda e, _: e.SequentialEvaluator(
        [
            e.TripletEvaluator(SOURCES, TARGETS, OTHERS, name="first"),
            e.TranslationEvaluator(SOURCES, TARGETS, name="second"),
        ]
    ),
}
"""Name → evaluator."""


def outcome(make: Make, evaluation: Any, model: Any, folder: Path) -> dict[str, Any]:
    """What an evaluator returns, which figure counts, and what it writes, called twice."""
    folder.mkdir(parents=True)
    evaluator = make(evaluation, model)
    metrics = evaluator(model, output_path=str(folder), epoch=1, steps=10)
    evaluator(model, output_path=str(folder), epoch=1, steps=-1)
    files = {}
    for path in sorted(folder.iterdir()):
        with path.open(newline="", encoding="utf-8") as file:
            files[path.name] = list(csv.reader(file))
    return {
        "metrics": {name: float(figure) for name, figure in metrics.items()},
        "primary": evaluator.primary_metric,
        "files": files,
    }
