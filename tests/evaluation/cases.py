"""Evaluators on fixed texts, for this package and for sentence-transformers alike."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

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


def _texts() -> dict[str, str]:
    """Id → text: sources, targets, others, and one of the sources twice."""
    return {f"t{number}": text for number, text in enumerate([*SOURCES, *TARGETS, *OTHERS, SOURCES[0]])}


def _duplicates() -> list[tuple[str, str]]:
    """Sources and their targets, two of them also with what is like them; and a pair of which one is not there."""
    pairs = [(f"t{number}", f"t{number + 8}") for number in range(8)]
    return [*pairs, ("t16", "t0"), ("t19", "t3"), ("t24", "t0"), ("t1", "t99")]


def _graph(edges: Mapping[tuple[str, str], bool]) -> defaultdict[str, defaultdict[str, bool]]:
    """Id → id → whether they are duplicates, in both directions."""
    graph: defaultdict[str, defaultdict[str, bool]] = defaultdict(lambda: defaultdict(bool))
    for (first, second), are_duplicates in edges.items():
        graph[first][second] = graph[second][first] = are_duplicates
    return graph


def _languages() -> list[dict[str, str]]:
    """Rows of texts in three languages, of which some are missing."""
    return [
        {"en": source, "de": target, "fr": other if number % 3 else " "}
        for number, (source, target, other) in enumerate(zip(SOURCES, TARGETS, OTHERS, strict=True))
    ]


def classifier_and_loader(evaluation: Any, model: Any, batch_size: int = 3) -> tuple[Any, Any]:
    """A SoftmaxLoss whose weights are a wave, and a DataLoader of pairs with a class, of either library."""
    library = evaluation.__name__.partition(".")[0]
    loss = import_module(f"{library}.losses").SoftmaxLoss(model, 384, 3)
    with torch.no_grad():
        loss.classifier.weight.copy_(torch.arange(3 * 3 * 384.0).sin().view(3, -1))
        loss.classifier.bias.zero_()
    example = import_module(library).InputExample
    pairs = zip(SOURCES + OTHERS, TARGETS + SOURCES, strict=True)
    examples = [example(texts=[*texts], label=number % 3) for number, texts in enumerate(pairs)]
    return loss, DataLoader(examples, batch_size=batch_size)  # type: ignore[arg-type]


def _accuracy(evaluation: Any, model: Any, **arguments: Any) -> Any:
    loss, loader = classifier_and_loader(evaluation, model)
    return evaluation.LabelAccuracyEvaluator(loader, softmax_model=loss, **arguments)


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
    "retrieval with predictions": lambda e, _: e.InformationRetrievalEvaluator(
        *_collection(),
        name="dev",
        mrr_at_k=[2],
        ndcg_at_k=[3],
        accuracy_at_k=[1],
        precision_recall_at_k=[1],
        map_at_k=[2],
        corpus_chunk_size=5,
        write_predictions=True,
    ),
    "mining": lambda e, _: e.ParaphraseMiningEvaluator(_texts(), _duplicates(), name="dev"),
    "mining, closed": lambda e, _: e.ParaphraseMiningEvaluator(
        _texts(), _duplicates(), add_transitive_closure=True, truncate_dim=64
    ),
    "mining of a few, by chunks": lambda e, _: e.ParaphraseMiningEvaluator(
        _texts(),
        duplicates_dict=_graph({("t0", "t24"): True, ("t0", "t8"): True, ("t0", "t9"): False}),
        query_chunk_size=4,
        corpus_chunk_size=7,
        max_pairs=20,
        top_k=2,
    ),
    "classes": lambda e, model: _accuracy(e, model, name="dev"),
    "classes, without a name": _accuracy,
    "teacher, languages": lambda e, model: e.MSEEvaluatorFromDataFrame(
        _languages(), model, [("en", "de"), ("en", "fr"), ("de", "en")], name="dev"
    ),
    "teacher, two languages": lambda e, model: e.MSEEvaluatorFromDataFrame(
        _languages(), teacher_model=model, combinations=[("de", "fr")], truncate_dim=32
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
    files: dict[str, list[Any]] = {}
    for path in sorted(folder.iterdir()):
        with path.open(newline="", encoding="utf-8") as file:
            is_csv = path.suffix == ".csv"
            files[path.name] = list(csv.reader(file)) if is_csv else [json.loads(line) for line in file]
    return {
        "metrics": {name: float(figure) for name, figure in metrics.items()},
        "primary": evaluator.primary_metric,
        "files": files,
    }
