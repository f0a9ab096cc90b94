"""Evaluators of similarities: of pairs with a score, and of triplets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sentence_embedder.evaluation.sentence_evaluator import Measured, MeasuringEvaluator, columns_of
from sentence_embedder.evaluation.statistics import pearson, spearman
from sentence_embedder.input_example import InputExample
from sentence_embedder.quantization.precision import Precision
from sentence_embedder.similarity import SimilarityFunction

SimilarityName = str | SimilarityFunction


def parsed(names: Sequence[SimilarityName] | None) -> list[str]:
    """Names of similarities, checked.

    Raises:
        ValueError: There is no such similarity.
    """
    return [SimilarityFunction.parse(name).value for name in names or ()]


def measured_similarities(model: Any, names: Sequence[str], main: str | None = None) -> list[str]:
    """Which similarities are measured: those that are asked for, or the model's own; the main one in any case."""
    chosen = list(names) or [main or model.similarity_fn_name]
    return chosen if main is None or main in chosen else [*chosen, main]


def _with_maxima(
    metrics: dict[str, float], kinds: Sequence[str], form: str, names: Sequence[str]
) -> dict[str, float]:
    """Metrics of several similarities, and the highest of each kind, if there are several."""
    if len(names) < 2:
        return metrics
    highest = {
        form.format(kind=kind, name="max"): max(metrics[form.format(kind=kind, name=name)] for name in names)
        for kind in kinds
    }
    return {**metrics, **highest}


class EmbeddingSimilarityEvaluator(MeasuringEvaluator):
    """How well the similarities of pairs agree with scores: Pearson's and Spearman's correlation.

    Metrics: ``pearson_cosine``, ``spearman_cosine`` and so on, of several similarities also ``…_max``. What counts
    is Spearman's correlation, of the main similarity, the only one, or the highest.

    Args:
        sentences1: The first text of each pair.
        sentences2: The second.
        scores: How similar they are, in any scale.
        batch_size: Of ``encode``.
        main_similarity: The similarity that counts.
        name: What is put before the names of the metrics, and into that of the CSV file.
        show_progress_bar: Whether ``encode`` shows one.
        write_csv: Whether figures are appended to a CSV file.
        precision: Of the embeddings, which are then normalised.
        truncate_dim: Width to which embeddings are cut; by default the model's.
        similarity_fn_names: Which similarities are measured; by default the model's own.

    Raises:
        ImportError: scipy is not installed.
        ValueError: There are not as many of one as of the others.
    """

    def __init__(
        self,
        sentences1: Sequence[str],
        sentences2: Sequence[str],
        scores: Sequence[float],
        batch_size: int = 16,
        main_similarity: SimilarityName | None = None,
        name: str = "",
        show_progress_bar: bool | None = False,
        write_csv: bool = True,
        precision: Precision | None = None,
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
        check_lengths(sentences1=sentences1, sentences2=sentences2, scores=scores)
        self.sentences1 = sentences1
        self.sentences2 = sentences2
        self.scores = scores
        self.main_similarity = None if main_similarity is None else SimilarityFunction.parse(main_similarity).value
        self.similarity_fn_names = parsed(similarity_fn_names)
        self.precision = precision

    @classmethod
    def from_input_examples(
        cls, examples: Sequence[InputExample], **arguments: Any
    ) -> EmbeddingSimilarityEvaluator:
        """The evaluator of examples with two texts and a score each."""
        first, second = columns_of(examples, 2)
        return cls(first, second, [example.label for example in examples], **arguments)

    @property
    def _default_csv_file(self) -> str:
        return self.file_name("similarity_evaluation", self.precision or "")

    def measured(self, model: Any) -> Measured:
        """The correlations of a model."""
        first, second = (
            _as_numbers(embeddings, self.precision)
            for embeddings in self.embedded(
                model,
                self.sentences1,
                self.sentences2,
                precision=self.precision,
                normalize_embeddings=bool(self.precision),
            )
        )
        scores = np.asarray(self.scores)
        names = measured_similarities(model, self.similarity_fn_names, self.main_similarity)
        metrics: dict[str, float] = {}
        for name in names:
            similarities = SimilarityFunction.to_similarity_pairwise_fn(name)(first, second).numpy()
            metrics[f"pearson_{name}"] = pearson(scores, similarities)
            metrics[f"spearman_{name}"] = spearman(scores, similarities)
        main = self.main_similarity or (names[0] if len(names) == 1 else "max")
        return Measured(
            metrics=_with_maxima(metrics, ("pearson", "spearman"), "{kind}_{name}", names),
            primary=f"spearman_{main}",
            columns={
                f"{name}_{kind}": metrics[f"{kind}_{name}"] for name in names for kind in ("pearson", "spearman")
            },
        )


def _as_numbers(embeddings: Tensor, precision: Precision | None) -> Tensor:
    """Embeddings of any precision as float32, those of bits as zeros and ones."""
    if precision not in ("binary", "ubinary"):
        return embeddings.float()
    packed = embeddings.numpy()
    unsigned = packed if precision == "ubinary" else (packed.astype(np.int16) + 128).astype(np.uint8)
    return torch.from_numpy(np.unpackbits(unsigned, axis=1)).float()


class TripletEvaluator(MeasuringEvaluator):
    """For how many triplets the anchor is more similar to its positive than to its negative.

    Metrics: ``cosine_accuracy`` and so on, of several similarities also ``max_accuracy``. What counts is that of
    the main similarity, the only one, or the highest.

    Args:
        anchors: The anchor of each triplet.
        positives: A text that belongs to it.
        negatives: One that does not.
        main_distance_function: The similarity that counts.
        name: What is put before the names of the metrics, and into that of the CSV file.
        batch_size: Of ``encode``.
        show_progress_bar: Whether ``encode`` shows one.
        write_csv: Whether figures are appended to a CSV file.
        truncate_dim: Width to which embeddings are cut; by default the model's.
        similarity_fn_names: Which similarities are measured; by default the model's own.
        margin: By how much it must be more similar; one number, or one for each similarity.
        main_similarity_function: The newer name of ``main_distance_function``.

    Raises:
        ValueError: There are not as many of one as of the others.
    """

    def __init__(
        self,
        anchors: Sequence[str],
        positives: Sequence[str],
        negatives: Sequence[str],
        main_distance_function: SimilarityName | None = None,
        name: str = "",
        batch_size: int = 16,
        show_progress_bar: bool | None = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
        *,
        similarity_fn_names: Sequence[SimilarityName] | None = None,
        margin: float | Mapping[str, float] | None = None,
        main_similarity_function: SimilarityName | None = None,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        check_lengths(anchors=anchors, positives=positives, negatives=negatives)
        self.anchors = anchors
        self.positives = positives
        self.negatives = negatives
        main = main_similarity_function or main_distance_function
        self.main_similarity_function = None if main is None else SimilarityFunction.parse(main).value
        self.similarity_fn_names = parsed(similarity_fn_names)
        if isinstance(margin, Mapping):
            margin = {SimilarityFunction.parse(name).value: figure for name, figure in margin.items()}
        self.margin = margin

    @classmethod
    def from_input_examples(cls, examples: Sequence[InputExample], **arguments: Any) -> TripletEvaluator:
        """The evaluator of examples with three texts each."""
        anchors, positives, negatives = columns_of(examples, 3)
        return cls(anchors, positives, negatives, **arguments)

    @property
    def _default_csv_file(self) -> str:
        return self.file_name("triplet_evaluation")

    def measured(self, model: Any) -> Measured:
        """The accuracies of a model."""
        (anchors,) = self.embedded_by(model.encode_query, self.anchors)
        positives, negatives = self.embedded_by(model.encode_document, self.positives, self.negatives)
        names = measured_similarities(model, self.similarity_fn_names, self.main_similarity_function)
        metrics = {}
        for name in names:
            similarity = SimilarityFunction.to_similarity_pairwise_fn(name)
            is_nearer = similarity(anchors, positives) > similarity(anchors, negatives) + self._margin(name)
            metrics[f"{name}_accuracy"] = float(is_nearer.double().mean())
        main = self.main_similarity_function or (names[0] if len(names) == 1 else "max")
        return Measured(
            metrics=_with_maxima(metrics, ("accuracy",), "{name}_{kind}", names),
            primary=f"{main}_accuracy",
            columns={f"accuracy_{name}": metrics[f"{name}_accuracy"] for name in names},
        )

    def _margin(self, name: str) -> float:
        if isinstance(self.margin, Mapping):
            return self.margin.get(name, 0.0)
        return self.margin or 0.0


def check_lengths(**columns: Sequence[Any]) -> None:
    """Raise a ValueError unless all columns have the same length."""
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"expected as many of one as of the others, found {lengths}")
