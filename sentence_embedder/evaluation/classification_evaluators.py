"""Evaluators of pairs that belong together or do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

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
        labels: 1 if they belong together, else 0; a tensor, or tensors, will do.
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
        labels: Sequence[int | Tensor] | NDArray[Any] | Tensor,
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
        self.labels = [label.item() if isinstance(label, (Tensor, np.generic)) else label for label in labels]
        check_lengths(sentences1=sentences1, sentences2=sentences2, labels=self.labels)
        if not set(self.labels) <= {0, 1}:
            raise ValueError(f"labels: expected 0 and 1, found {sorted(set(self.labels))!r:.80}")
        self.sentences1 = sentences1
        self.sentences2 = sentences2
        self.similarity_fn_names = parsed(similarity_fn_names)

    @classmethod
    def from_input_examples(
        cls, examples: Sequence[InputExample], **arguments: Any
    ) -> BinaryClassificationEvaluator:
        """The evaluator of examples with two texts and a label each."""
        first, second = columns_of(examples, 2)
        return cls(first, second, [example.label for example in examples], **arguments)

    @property
    def _default_csv_file(self) -> str:
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
        """The highest accuracy that a threshold gives, and that threshold: it may lie above or below all scores.

        Args:
            scores: Shape (pairs,).
            labels: 0 or 1, likewise.
            high_score_more_similar: Whether pairs above the threshold belong together, rather than those below.

        Raises:
            ValueError: There is no pair.
        """
        scores, labels = _ranked(scores, labels, high_score_more_similar)
        counts = np.append(0, _counts(scores))
        found = np.append(0, np.cumsum(labels))[counts]
        right = found + (labels == 0).sum() - (counts - found)
        best = int(np.argmax(right))
        beyond = np.inf if high_score_more_similar else -np.inf
        above_all = np.nextafter(scores[0], beyond, dtype=np.result_type(scores.dtype, np.float16))
        threshold = float(above_all) if best == 0 else _threshold(scores, counts[best])
        return float(right[best] / len(labels)), threshold

    @staticmethod
    def find_best_f1_and_threshold(
        scores: NDArray[Any], labels: NDArray[Any], high_score_more_similar: bool
    ) -> BestF1:
        """The best f1 that a threshold gives; arguments and errors as for ``find_best_acc_and_threshold``."""
        scores, labels = _ranked(scores, labels, high_score_more_similar)
        counts = _counts(scores)
        found = np.cumsum(labels)[counts - 1]
        precision, recall = found / counts, found / max(1, labels.sum())
        f1 = 2 * precision * recall / np.where(found > 0, precision + recall, 1)
        best = int(np.argmax(f1))
        if f1[best] == 0:
            return BestF1(0.0, 0.0, 0.0, 0.0)
        return BestF1(
            float(f1[best]), float(precision[best]), float(recall[best]), _threshold(scores, counts[best])
        )


def _ranked(
    scores: NDArray[Any], labels: NDArray[Any], is_higher_better: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Scores and labels, the most similar pair first."""
    if len(scores) < 1:
        raise ValueError("scores: expected those of a pair at least, to find a threshold for, found none")
    scores, labels = np.asarray(scores), np.asarray(labels)
    order = np.argsort(-scores if is_higher_better else scores, kind="stable")
    return scores[order], labels[order]


def _counts(scores: NDArray[Any]) -> NDArray[Any]:
    """How many of the first pairs a threshold can take: no threshold lies between equal scores."""
    return np.append(np.flatnonzero(scores[1:] != scores[:-1]) + 1, len(scores))


def _threshold(scores: NDArray[Any], count: int) -> float:
    """The threshold that takes so many of the first pairs: half-way to the next one, if it is not rounded to it."""
    if count == len(scores):
        return float(scores[-1])
    middle = (scores[count - 1] + scores[count]) / 2
    return float(scores[count - 1] if middle == scores[count] else middle)


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
