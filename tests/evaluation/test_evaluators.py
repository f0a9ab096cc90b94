"""Evaluators: figures and files are those of sentence-transformers."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sentence_embedder import InputExample, SentenceTransformer, evaluation
from sentence_embedder.evaluation.retrieval_evaluators import _most_similar
from tests.evaluation.cases import CASES, OTHERS, SCORES, SOURCES, TARGETS, _collection, outcome
from tests.minilm import minilm_folder
from tests.reference.environment import record_evaluators
from tests.reference.golden import GOLDEN


@pytest.fixture(scope="module")
def golden() -> Any:
    """What the evaluators of sentence-transformers 6.2.0 say of MiniLM."""
    return json.loads((GOLDEN / "evaluators.json").read_text(encoding="utf-8"))


def _precision(name: str) -> float:
    """A millionth; but where embeddings are steps of eight bits, their last digit can make one more or less."""
    return 1e-3 if "int8" in name else 1e-6


def _assert_alike(found: dict[str, Any], expected: dict[str, Any], precision: float) -> None:
    """Figures agree to a precision, everything else exactly."""
    assert found["metrics"] == pytest.approx(expected["metrics"], rel=1e-6, abs=precision)
    assert list(found["metrics"]) == list(expected["metrics"])
    assert found["primary"] == expected["primary"]
    assert found["files"].keys() == expected["files"].keys()
    for name, (header, *rows) in found["files"].items():
        if not name.endswith(".csv"):
            _assert_predictions_alike([header, *rows], expected["files"][name], precision)
            continue
        assert header == expected["files"][name][0]
        for row, other in zip(rows, expected["files"][name][1:], strict=True):
            assert [float(cell) for cell in row] == pytest.approx(
                [float(cell) for cell in other], rel=1e-6, abs=precision
            )


def _assert_predictions_alike(found: list[Any], expected: list[Any], precision: float) -> None:
    """The same documents for each query, with scores that agree to a precision."""

    def scores(lines: list[Any]) -> list[float]:
        return [hit["score"] for line in lines for hit in line["results"]]

    def others(lines: list[Any]) -> list[Any]:
        return [[*line, line["query_id"], line["query"], *map(_document, line["results"])] for line in lines]

    assert others(found) == others(expected)
    assert scores(found) == pytest.approx(scores(expected), rel=1e-6, abs=precision)


def _document(hit: dict[str, Any]) -> list[Any]:
    return [*hit, hit["corpus_id"]]


@pytest.mark.parametrize("name", CASES)
def test_figures_and_files_are_those_of_the_reference(
    name: str, golden: Any, minilm: SentenceTransformer, tmp_path: Path
) -> None:
    """An evaluator returns the same figures under the same names, and appends the same rows to the same files."""
    found = outcome(CASES[name], evaluation, minilm, tmp_path / "out")

    _assert_alike(found, golden[name], _precision(name))


@pytest.mark.reference
def test_the_reference_says_the_same_today(golden: Any, tmp_path: Path) -> None:
    """What was recorded is what the installed sentence-transformers gives."""
    record_evaluators("6.2", minilm_folder(), tmp_path / "evaluators.json")

    live = json.loads((tmp_path / "evaluators.json").read_text(encoding="utf-8"))
    for name in CASES:
        _assert_alike(live[name], golden[name], _precision(name))


def test_nothing_is_written_without_a_folder(
    minilm: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder, or with ``write_csv=False``, no file is made; the model's truncation stays as it was."""
    monkeypatch.chdir(tmp_path)
    pairs = (SOURCES, TARGETS, SCORES)

    evaluation.EmbeddingSimilarityEvaluator(*pairs, truncate_dim=8)(minilm)
    evaluation.EmbeddingSimilarityEvaluator(*pairs, write_csv=False)(minilm, str(tmp_path))

    assert list(tmp_path.iterdir()) == []
    assert minilm.truncate_dim is None


def test_evaluators_of_examples(minilm: SentenceTransformer) -> None:
    """Examples with two texts and a score, or with three texts, make evaluators, too."""
    pairs = [
        InputExample(texts=[*texts], label=score) for *texts, score in zip(SOURCES, TARGETS, SCORES, strict=True)
    ]
    triplets = [InputExample(texts=[*texts]) for texts in zip(SOURCES, TARGETS, OTHERS, strict=True)]

    of_pairs = evaluation.EmbeddingSimilarityEvaluator.from_input_examples(pairs, name="dev")
    of_triplets = evaluation.TripletEvaluator.from_input_examples(triplets, margin={"cosine": 2.0})

    assert of_pairs(minilm) == evaluation.EmbeddingSimilarityEvaluator(SOURCES, TARGETS, SCORES, name="dev")(minilm)
    assert of_triplets(minilm) == {"cosine_accuracy": 0.0}


def test_evaluators_of_users_in_a_sequence(minilm: SentenceTransformer) -> None:
    """A sequence takes evaluators that return a float, and a function of the scores."""

    def constant(*_: Any) -> float:
        return 0.25

    sequence = evaluation.SequentialEvaluator(
        [constant, evaluation.TranslationEvaluator(SOURCES, SOURCES)],  # type: ignore[list-item]
        main_score_function=sum,
    )

    found = minilm.evaluate(sequence)

    assert found["sequential_score"] == 1.25
    assert found["mean_accuracy"] == 1.0
    with pytest.raises(ValueError, match="at least one"):
        evaluation.SequentialEvaluator([])

    class Wrong(evaluation.SentenceEvaluator):
        primary_metric = "missing"

        def __call__(self, *_: Any, **__: Any) -> dict[str, float]:
            return {"found": 1.0}

    with pytest.raises(ValueError, match="Wrong: expected its primary_metric 'missing'"):
        evaluation.SequentialEvaluator([Wrong()])(minilm)


def test_wrong_matches_are_logged(minilm: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    """Texts with another translation nearest can be looked at."""
    caplog.set_level(logging.INFO, logger="sentence_embedder.evaluation")

    evaluation.TranslationEvaluator(["cat", "dog"], ["a dog", "a cat"], print_wrong_matches=True)(minilm, epoch=2)

    assert "'cat': nearest is 'a cat', not 'a dog'" in caplog.text
    assert "TranslationEvaluator after epoch 2: " in caplog.text


def test_columns_of_different_lengths_are_refused(minilm: SentenceTransformer) -> None:
    """As many of one as of the others are expected."""
    with pytest.raises(ValueError, match=r"'sentences1': 8, 'sentences2': 7, 'scores': 8"):
        evaluation.EmbeddingSimilarityEvaluator(SOURCES, TARGETS[:7], SCORES)
    with pytest.raises(ValueError, match="cosin"):
        evaluation.TripletEvaluator(SOURCES, TARGETS, OTHERS, margin={"cosin": 1})
    with pytest.raises(ValueError, match="cosin"):
        evaluation.EmbeddingSimilarityEvaluator(SOURCES, TARGETS, SCORES, similarity_fn_names=["cosin"])
    with pytest.raises(ValueError, match="'negatives': 1"):
        evaluation.TripletEvaluator(SOURCES, TARGETS, OTHERS[:1])
    with pytest.raises(ValueError, match="'target_sentences': 1"):
        evaluation.MSEEvaluator(SOURCES, TARGETS[:1], teacher_model=minilm)
    with pytest.raises(ValueError, match="'target_sentences': 1"):
        evaluation.TranslationEvaluator(SOURCES, TARGETS[:1])


def test_without_scipy_it_is_said_what_to_install(
    minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where scipy is not installed the error names the extra."""
    monkeypatch.setitem(sys.modules, "scipy.stats", None)

    with pytest.raises(ImportError, match=r"sentence-embedder\[eval\]"):
        evaluation.EmbeddingSimilarityEvaluator(SOURCES, TARGETS, SCORES)(minilm)


def test_documents_that_are_embedded_already(minilm: SentenceTransformer) -> None:
    """The embeddings of documents can be given, or another model for them; a collection without anything relevant,
    and a main similarity that is not measured, are refused.
    """
    queries, corpus, relevant = _collection()
    evaluator = evaluation.InformationRetrievalEvaluator(queries, corpus, relevant)
    expected = evaluator(minilm)

    embeddings = minilm.encode_document(list(corpus.values()), convert_to_tensor=True)

    assert evaluator(minilm, corpus_embeddings=embeddings) == pytest.approx(expected)
    assert evaluator(minilm, corpus_embeddings=embeddings.flip(0)) != pytest.approx(expected)
    with pytest.raises(ValueError, match="expected 16 rows, found 3"):
        evaluator(minilm, corpus_embeddings=embeddings[:3])
    other = SentenceTransformer(modules=[*minilm][:2], device="cpu", truncate_dim=200)
    cut = evaluation.InformationRetrievalEvaluator(queries, corpus, relevant, truncate_dim=384)
    assert cut(minilm, corpus_model=other) == pytest.approx(expected)
    with pytest.raises(ValueError, match="expected relevant documents"):
        evaluation.InformationRetrievalEvaluator(queries, corpus, {})
    with pytest.raises(ValueError, match=r"main_score_function: expected one of \['cosine'\], found 'dot'"):
        evaluation.InformationRetrievalEvaluator(queries, corpus, relevant, main_score_function="dot")(minilm)
    with pytest.raises(ValueError, match="corpus_chunk_size"):
        evaluation.InformationRetrievalEvaluator(queries, corpus, relevant, corpus_chunk_size=0)


def test_documents_in_arrays(minilm: SentenceTransformer) -> None:
    """Embeddings of documents, and the ids of those that are relevant, may be arrays of numpy."""
    queries, corpus, relevant = _collection()
    arrays = {key: np.array(sorted(documents)) for key, documents in relevant.items()}
    embeddings = minilm.encode_document(list(corpus.values()))
    embeddings.flags.writeable = False
    expected = evaluation.InformationRetrievalEvaluator(queries, corpus, relevant)(minilm)

    found = evaluation.InformationRetrievalEvaluator(queries, corpus, arrays, corpus_chunk_size=5)(
        minilm, corpus_embeddings=embeddings
    )

    assert found == pytest.approx(expected)


@pytest.mark.parametrize("text", [SOURCES[0], SOURCES[3], TARGETS[1]])
def test_equal_documents_are_equally_similar(text: str, minilm: SentenceTransformer) -> None:
    """Wherever they stand in a chunk, and however large it is, their ids alone decide which come first."""
    corpus = {f"d{number:02}": text for number in range(40, 0, -1)}
    relevant = {"q": {"d01", "d02", "d03"}}
    embedding = minilm.encode([text])
    for size in (3, 7, 16, 40):
        evaluator = evaluation.InformationRetrievalEvaluator(
            {"q": SOURCES[1]}, corpus, relevant, precision_recall_at_k=[3], corpus_chunk_size=size
        )
        metrics = evaluator(minilm, corpus_embeddings=embedding.repeat(40, axis=0))
        assert metrics["cosine_precision@3"] == 1, size


def test_of_equal_scores_no_more_are_kept_than_count() -> None:
    """All that are above the last that counts, and of those that equal it the ones with the lowest ids."""
    scores = torch.tensor([[1.0, 2.0, 1.0, 1.0, 3.0, 1.0], [0.0] * 6])
    ids = ["f", "e", "d", "c", "b", "a"]

    one, other = _most_similar(torch.zeros(2, 1), torch.zeros(6, 1), ids, lambda *_: scores, 4)

    assert sorted(one) == [(1.0, "a"), (1.0, "c"), (2.0, "e"), (3.0, "b")]
    assert sorted(other) == [(0.0, "a"), (0.0, "b"), (0.0, "c"), (0.0, "d")]


def test_the_name_of_the_csv_file_can_be_set(minilm: SentenceTransformer, tmp_path: Path) -> None:
    """Figures are appended to the file of the name that was given, in place of the usual one."""
    evaluator = evaluation.EmbeddingSimilarityEvaluator(SOURCES, TARGETS, SCORES, name="dev")
    assert evaluator.csv_file == "similarity_evaluation_dev_results.csv"

    evaluator.csv_file = "mine.csv"
    evaluator(minilm, str(tmp_path))

    assert [path.name for path in tmp_path.iterdir()] == ["mine.csv"]


def test_samples_and_labels_are_checked() -> None:
    """Samples without documents of both kinds, labels beyond 0 and 1, and scores of no pair are named."""
    with pytest.raises(ValueError, match="expected one with positive and negative documents, found 1 without"):
        evaluation.RerankingEvaluator([{"query": "a", "positive": [], "negative": ["b"]}])
    with pytest.raises(ValueError, match=r"labels: expected 0 and 1, found \[0, 2\]"):
        evaluation.BinaryClassificationEvaluator(["a", "b"], ["c", "d"], [0, 2])
    with pytest.raises(ValueError, match="expected those of a pair at least"):
        evaluation.BinaryClassificationEvaluator.find_best_acc_and_threshold(np.ones(0), np.ones(0), True)


def test_without_positive_pairs_there_is_no_f1() -> None:
    """Where no pair belongs together, the f1 is 0."""
    found = evaluation.BinaryClassificationEvaluator.find_best_f1_and_threshold(np.arange(3.0), np.zeros(3), True)

    assert found == (0, 0, 0, 0)


@pytest.mark.parametrize("is_higher_better", [True, False])
def test_accuracy_and_f1_are_attained_at_their_thresholds(is_higher_better: bool) -> None:
    """Whatever scores are equal, and whatever labels there are: taking the pairs from the threshold on gives the
    accuracy and the f1 that were found, and no threshold gives more.
    """
    find = evaluation.BinaryClassificationEvaluator
    generator = np.random.default_rng(5)
    for case in range(300):
        count = 1 + case % 7
        scores = generator.integers(0, 4, count).astype(np.float32) / 4
        labels = generator.integers(0, 2, count) if case % 3 else np.full(count, case % 2)
        signs = scores if is_higher_better else -scores

        def figures(threshold: float, signs: Any = signs, labels: Any = labels) -> tuple[float, float]:
            taken = signs >= (threshold if is_higher_better else -threshold)
            hits = (taken & (labels == 1)).sum()
            return (taken == labels).mean(), 2 * hits / max(1, taken.sum() + labels.sum())

        accuracy, threshold = find.find_best_acc_and_threshold(scores, labels, is_higher_better)
        f1 = find.find_best_f1_and_threshold(scores, labels, is_higher_better)
        every = [figures(limit) for limit in (-1, *scores, 2)]

        assert (figures(threshold)[0], accuracy) == pytest.approx((max(one for one, _ in every),) * 2)
        assert f1.f1 == pytest.approx(max(other for _, other in every))
        if f1.f1 > 0:
            assert figures(f1.threshold)[1] == pytest.approx(f1.f1)


def test_a_threshold_is_not_rounded_to_the_next_score() -> None:
    """Between scores that are neighbours as numbers the threshold is the higher one."""
    scores = np.array([np.nextafter(np.float32(1), np.float32(2)), 1], dtype=np.float32)

    _, threshold = evaluation.BinaryClassificationEvaluator.find_best_acc_and_threshold(
        scores, np.array([1, 0]), True
    )

    assert threshold == scores[0]


def test_labels_may_be_tensors(minilm: SentenceTransformer) -> None:
    """A tensor of labels, or a list of tensors, says the same as numbers; a single pair gives figures, too."""
    texts = (["a cat", "rain"], ["a kitten", "a dog"])
    expected = evaluation.BinaryClassificationEvaluator(*texts, [1, 0])(minilm)

    for labels in (torch.tensor([1, 0]), [torch.tensor(1), torch.tensor(0)], np.array([1, 0])):
        assert evaluation.BinaryClassificationEvaluator(*texts, labels)(minilm) == expected
    alone = evaluation.BinaryClassificationEvaluator(["a cat"], ["a kitten"], [1])(minilm)

    assert (alone["cosine_accuracy"], alone["cosine_f1"], alone["cosine_ap"]) == (1, 1, 1)


def test_texts_in_arrays(minilm: SentenceTransformer) -> None:
    """Texts may be an array of numpy, or a column of pandas."""
    texts = ["a cat", "the dog", "red"]
    translation = evaluation.TranslationEvaluator(texts, texts)(minilm)
    distance = evaluation.MSEEvaluator(texts, texts, teacher_model=minilm)(minilm)

    columns: list[Any] = [np.array(texts), pd.Series(texts)]
    for column in columns:
        assert evaluation.TranslationEvaluator(column, column)(minilm) == translation
        assert evaluation.MSEEvaluator(column, column, teacher_model=minilm)(minilm) == distance
        with pytest.raises(ValueError, match="found none"):
            evaluation.TranslationEvaluator(column[:0], column[:0])


def test_an_evaluator_says_how_it_judges(minilm: SentenceTransformer) -> None:
    """The class itself judges nothing: that is for those that derive from it."""
    with pytest.raises(NotImplementedError):
        evaluation.SentenceEvaluator()(minilm)


def test_reranking_embeds_queries_and_documents_each_in_their_way(minilm: SentenceTransformer) -> None:
    """Queries get the prompt for queries and documents that for documents: figures are those of texts that hold
    the prompts already.
    """
    prompted = SentenceTransformer(modules=[*minilm], device="cpu", prompts={"query": "rain ", "document": "dog "})
    samples = [
        {"query": "a cat", "positive": ["the sun", "a kitten"], "negative": ["snow", "a cat and rain", "ice"]}
    ]
    written = [
        {
            "query": f"rain {sample['query']}",
            "positive": [f"dog {text}" for text in sample["positive"]],
            "negative": [f"dog {text}" for text in sample["negative"]],
        }
        for sample in samples
    ]

    found = evaluation.RerankingEvaluator(samples)(prompted)

    assert found == pytest.approx(evaluation.RerankingEvaluator(written)(minilm))
    assert found != pytest.approx(evaluation.RerankingEvaluator(samples)(minilm))


def test_reranking_takes_a_text_alone_and_a_row_of_similarities(minilm: SentenceTransformer) -> None:
    """A sole document need not stand in a list, and a similarity may return the row of a query alone."""
    listed = {"query": "a cat", "positive": ["a kitten"], "negative": ["rain", "snow"]}
    alone = {**listed, "positive": "a kitten"}

    def of_row(query: Any, documents: Any) -> Any:
        return documents @ query.reshape(-1)

    found = evaluation.RerankingEvaluator([alone], similarity_fct=of_row)(minilm)

    assert found == evaluation.RerankingEvaluator([listed])(minilm)


def test_predictions_are_written_where_there_is_a_folder(
    minilm: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found is written for each similarity, without a CSV file as well, anew each time; and only with a
    folder. Ids may be numbers of numpy.
    """
    monkeypatch.chdir(tmp_path)
    ids = np.arange(3)
    evaluator = evaluation.InformationRetrievalEvaluator(
        {ids[0]: "a cat"},
        dict(zip(ids, ["a dog", "a cat", "a kitten"], strict=True)),
        {ids[0]: {ids[1]}},
        score_functions={"near": minilm.similarity, "far": lambda a, b: -minilm.similarity(a, b)},
        write_csv=False,
        write_predictions=True,
    )

    evaluator(minilm)
    assert list(tmp_path.iterdir()) == []
    for _ in range(2):
        evaluator(minilm, str(tmp_path / "new"))

    found = {}
    for path in (tmp_path / "new").iterdir():
        (line,) = path.read_text(encoding="utf-8").splitlines()
        found[path.name] = [hit["corpus_id"] for hit in json.loads(line)["results"]]
    assert found == {
        "Information-Retrieval_evaluation_predictions_near.jsonl": [1, 2, 0],
        "Information-Retrieval_evaluation_predictions_far.jsonl": [0, 2, 1],
    }


def test_rows_without_a_text_are_left_out(minilm: SentenceTransformer) -> None:
    """A row counts where both languages have a text; a DataFrame says the same as a list of rows, and a pair of
    languages that is named twice counts once.
    """
    rows: list[dict[str, Any]] = [
        {"en": "a cat", "de": "a kitten", "fr": "rain"},
        {"en": "a dog", "de": None, "fr": ""},
        {"en": "the sun", "fr": "the moon"},
    ]
    pairs = [("en", "de"), ("en", "fr"), ("en", "de")]
    of_pairs = [
        evaluation.MSEEvaluator(sources, targets, teacher_model=minilm)(minilm)["negative_mse"]
        for sources, targets in ((["a cat"], ["a kitten"]), (["a cat", "the sun"], ["rain", "the moon"]))
    ]

    for table in (rows, pd.DataFrame(rows)):
        evaluator = evaluation.MSEEvaluatorFromDataFrame(table, minilm, pairs)
        assert evaluator(minilm) == pytest.approx({"negative_mse": sum(of_pairs) / 2})
        assert evaluator.combinations == pairs[:2]
    with pytest.raises(
        ValueError, match=r"rows with texts for 'en' and 'ed', found none; the first of 3 has \['en'"
    ):
        evaluation.MSEEvaluatorFromDataFrame(rows, minilm, [("en", "ed")])
    with pytest.raises(ValueError, match="combinations: expected a pair"):
        evaluation.MSEEvaluatorFromDataFrame(rows, minilm, [])
