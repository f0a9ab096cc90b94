"""Evaluators of reranking: whether relevant documents come first among a few."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sentence_embedder.argument_names import also_named
from sentence_embedder.evaluation.retrieval_evaluators import reciprocal_rank
from sentence_embedder.evaluation.sentence_evaluator import Measured, MeasuringEvaluator
from sentence_embedder.evaluation.statistics import average_precision, normalized_gain
from sentence_embedder.similarity import cos_sim

_SAMPLES_AT_ONCE = 512


class RerankingEvaluator(MeasuringEvaluator):
    """How well the similarities to a query put its relevant documents before others.

    Metrics: ``map``, the mean of the average precision; ``mrr@k``; ``ndcg@k``, which counts.

    Args:
        samples: ``{"query": text, "positive": texts, "negative": texts}``, of one text also the text alone; those
            without either kind are left out.
        at_k: k.
        name: What is put before the names of the metrics, and into that of the CSV file.
        write_csv: Whether figures are appended to a CSV file.
        similarity_fct: Similarities of all pairs; of a single query their row alone will do.
        batch_size: Of ``encode``.
        show_progress_bar: Whether ``encode`` shows one.
        use_batched_encoding: Taken for compatibility: texts are always encoded many at a time.
        truncate_dim: Width to which embeddings are cut; by default the model's.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: No sample has documents of both kinds.
    """

    @also_named(mrr_at_k="at_k")
    def __init__(
        self,
        samples: Sequence[Mapping[str, Any]] | Mapping[Any, Mapping[str, Any]],
        at_k: int = 10,
        name: str = "",
        write_csv: bool = True,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = cos_sim,
        batch_size: int = 64,
        show_progress_bar: bool | None = False,
        use_batched_encoding: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        given = [
            {**sample, **{kind: _texts(sample[kind]) for kind in ("positive", "negative")}}
            for sample in (samples.values() if isinstance(samples, Mapping) else samples)
        ]
        self.samples = [sample for sample in given if len(sample["positive"]) > 0 and len(sample["negative"]) > 0]
        if not self.samples:
            raise ValueError(
                f"samples: expected one with positive and negative documents, found {len(given)} without"
            )
        self.at_k = at_k
        self.similarity_fct = similarity_fct
        self.use_batched_encoding = use_batched_encoding

    @property
    def _default_csv_file(self) -> str:
        return self.file_name("RerankingEvaluator").replace(".csv", f"_@{self.at_k}.csv")

    def measured(self, model: Any) -> Measured:
        """The metrics of a model."""
        figures = [
            figure
            for start in range(0, len(self.samples), _SAMPLES_AT_ONCE)
            for figure in self._figures(model, self.samples[start : start + _SAMPLES_AT_ONCE])
        ]
        precision, reciprocal, gain = np.mean(figures, axis=0).tolist()
        k = self.at_k
        return Measured(
            metrics={"map": precision, f"mrr@{k}": reciprocal, f"ndcg@{k}": gain},
            primary=f"ndcg@{k}",
            columns={"MAP": precision, f"MRR@{k}": reciprocal, f"NDCG@{k}": gain},
        )

    def _figures(self, model: Any, samples: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, float]]:
        """The metrics of some samples."""
        (queries,) = self.embedded_by(model.encode_query, [sample["query"] for sample in samples])
        columns = [[*sample["positive"], *sample["negative"]] for sample in samples]
        documents = self.embedded_by(model.encode_document, *columns)
        found = []
        for sample, query, others in zip(samples, torch.split(queries, 1), documents, strict=True):
            scores = self.similarity_fct(query, others).reshape(-1).numpy()
            labels = np.zeros(len(scores), dtype=int)
            labels[: len(sample["positive"])] = 1
            ranked = labels[np.argsort(-scores, kind="stable")] == 1
            found.append(
                (
                    average_precision(labels, scores),
                    reciprocal_rank(ranked.tolist(), self.at_k),
                    normalized_gain(labels, scores, self.at_k),
                )
            )
        return found


def _texts(given: str | Sequence[str]) -> Sequence[str]:
    """Texts, of which one may stand alone."""
    return [given] if isinstance(given, str) else given
