"""Evaluators of pairs that belong together or do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.evaluation.sentence_evaluator import Measured, MeasuringEvaluator, columns_of
from sentence_embedder.evaluation.similarity_evaluators import (
    SimilarityName,
    check_lengths,
    measured_similarities,
    parsed,
)
from sentence_embedder.evaluation.statistics import average_precision, matthews_correlation
from sentence_embedder.input_example import InputExample
from sentence_embedder.similarity import SimilarityFunction

_COLUMNS = (
    *("accuracy", "accuracy_threshold", "f1", "precision", "recall"),
    *("f1_threshold", "ap", "mcc"),
)
_METRICS = ("accuracy", "accuracy_threshold", "f1", "f1_threshold", "precision", "recall", "ap", "mcc")
_DISTANCES = ("euclidean", "manhattan")


class BestF1(NamedTuple):
    """The best balance of precision and recall.

    Attributes:
        f1: Their harmonic mean.
        precision: The share of those that are taken for positive and are.
        recall: The share of the positive that is taken for it.
        threshold: The score from which on a pair is.
    """

    f1: float
    precision: float
    recall: float
    threshold: float


class BinaryClassificationEvaluator(MeasuringEvaluator):
    """How well similarities tell pairs that belong together from those that do not.

    Metrics, for each similarity: ``cosine_accuracy`` and ``cosine_f1`` at the threshold that is best for each,
    these thresholds, ``cosine_precision`` and ``cosine_recall`` at that of the f1, ``cosine_ap``, the average
    precision, and ``cosine_mcc``, Matthews' correlation at the threshold of the f1; of several similarities also
    ``max_…``. What counts is the average precision, of the only similarity or the highest.

    Args:
        sentences1: The first text of each pair.
        sentences2: The second.
        labels: 1 if they belong together, else 0.
        name: What is put before the names of the metrics, and into that of the CSV file.
        batch_size: Of ``encode``.
        show_progress_bar: Whether ``encode`` shows one.
        write_csv: Whether figures are appended to a CSV file.
        truncate_dim: Width to which embeddings are cut; by default the model's.
        similarity_fn_names: Which similarities are measured; by default the model's own.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: There are not as many of one as of the others, or a label is neither 0 nor 1.
    """

    def __init__(
        self,
        sentences1: Sequence[str],
        sentences2: Sequence[str],
        labels: Sequence[int],
        name: str = "",
        batch_size: int = 32,
        show_progress_bar: bool | None = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        *,
        similarity_fn_names: Sequence[SimilarityName] | None = None,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        check_lengths(sentences1=sentences1, sentences2=sentences2, labels=labels)
        if not set(labels) <= {0, 1}:
            raise ValueError(f"labels: expected 0 and 1, found {sorted(set(labels))!r:.80}")
        self.sentences1 = sentences1
        self.sentences2 = sentences2
        self.labels = labels
        self.similarity_fn_names = parsed(similarity_fn_names)

    @classmethod
    def from_input_examples(
        cls, examples: Sequence[InputExample], **arguments: Any
    ) -> BinaryClassificationEvaluator:
        """The evaluator of examples with two texts and a label each."""
        first, second = columns_of(examples, 2)
        return cls(first, second, [example.label for example in examples], **arguments)

    @property
    def csv_file(self) -> str:
        """The name of the CSV file."""
        return self.file_name("binary_classification_evaluation")

    def measured(self, model: Any) -> Measured:
        """The metrics of a model."""
        first, second = self.embedded(model, self.sentences1, self.sentences2)
        names = measured_similarities(model, self.similarity_fn_names)
        labels = np.asarray(self.labels)
        of_names = {}
        for name in names:
            scores = SimilarityFunction.to_similarity_pairwise_fn(name)(first, second).numpy()
            # Of distances, thresholds are distances: the lower, the more similar.
            of_names[name] = _metrics(-scores if name in _DISTANCES else scores, labels, name not in _DISTANCES)
        metrics = {f"{name}_{metric}": of_names[name][metric] for name in names for metric in _METRICS}
        columns = {f"{name}_{column}": of_names[name][column] for name in names for column in _COLUMNS}
        if len(names) > 1:
            highest = {metric: max(of_names[name][metric] for name in names) for metric in _METRICS}
            metrics.update({f"max_{metric}": figure for metric, figure in highest.items()})
        return Measured(metrics=metrics, primary=f"{names[0] if len(names) == 1 else 'max'}_ap", columns=columns)

    @staticmethod
    def find_best_acc_and_threshold(
        scores: NDArray[Any], labels: NDArray[Any], high_score_more_similar: bool
    ) -> tuple[float, float]:
        """The highest accuracy that a threshold gives, and that threshold.

        Args:
            scores: Shape (pairs,).
            labels: 0 or 1, likewise.
            high_score_more_similar: Whether pairs above the threshold belong together, rather than those below.
        """
        scores, labels = _ranked(scores, labels, high_score_more_similar)
        right = np.cumsum(labels)[:-1] + np.cumsum((labels == 0)[::-1])[::-1][1:]
        best = int(np.argmax(right))
        return float(right[best] / len(labels)), float((scores[best] + scores[best + 1]) / 2)

    @staticmethod
    def find_best_f1_and_threshold(
        scores: NDArray[Any], labels: NDArray[Any], high_score_more_similar: bool
    ) -> BestF1:
        """The best f1 that a threshold gives; arguments as for ``find_best_acc_and_threshold``."""
        scores, labels = _ranked(scores, labels, high_score_more_similar)
        found = np.cumsum(labels)[:-1]
        precision, recall = found / np.arange(1, len(labels)), found / max(1, labels.sum())
        f1 = 2 * precision * recall / np.where(found > 0, precision + recall, 1)
        best = int(np.argmax(f1))
        threshold = float((scores[best] + scores[best + 1]) / 2) if f1[best] > 0 else 0.0
        return BestF1(float(f1[best]), float(precision[best]), float(recall[best]), threshold)


def _ranked(
    scores: NDArray[Any], labels: NDArray[Any], is_higher_better: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores and labels, the most similar pair first."""
    if len(scores) < 2:
        raise ValueError(f"expected two pairs or more to find a threshold between, found {len(scores)}")
    order = np.argsort(-scores if is_higher_better else scores, kind="stable")
    return scores[order], labels[order]


def _metrics(scores: NDArray[Any], labels: NDArray[Any], is_higher_better: bool) -> dict[str, float]:
    find = BinaryClassificationEvaluator
    accuracy, accuracy_threshold = find.find_best_acc_and_threshold(scores, labels, is_higher_better)
    f1, precision, recall, f1_threshold = find.find_best_f1_and_threshold(scores, labels, is_higher_better)
    predicted = scores >= f1_threshold if is_higher_better else scores <= f1_threshold
    return {
        "accuracy": accuracy,
        "accuracy_threshold": accuracy_threshold,
        "f1": f1,
        "f1_threshold": f1_threshold,
        "precision": precision,
        "recall": recall,
        "ap": average_precision(labels, scores if is_higher_better else -scores),
        "mcc": matthews_correlation(labels, predicted.astype(int)),
    }
