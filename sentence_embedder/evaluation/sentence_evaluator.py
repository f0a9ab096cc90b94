"""SentenceEvaluator: what judges a model, and what all evaluators have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sentence_embedder.evaluation.result_files import append_row
from sentence_embedder.input_example import InputExample

logger = logging.getLogger(__name__)


class SentenceEvaluator:
    """What judges a model: a subclass says how, in ``__call__``.

    Attributes:
        primary_metric: The metric that counts, known after the first call.
        greater_is_better: Whether more of it is better.
    """

    primary_metric: str | None = None
    greater_is_better: bool = True

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float] | float:
        """Judge a model.

        Args:
            model: A SentenceTransformer.
            output_path: A folder for what is written; None to write nothing.
            epoch: After which epoch of a training; -1 outside of one.
            steps: After how many steps of it; -1 at its end.

        Returns:
            Name → metric, ``primary_metric`` being one of the names; evaluators of users may return a float.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Measured:
    """What an evaluator found.

    Args:
        metrics: Name → figure.
        primary: The name of the one that counts.
        columns: Name of a column of the CSV file → figure.
    """

    metrics: Mapping[str, float]
    primary: str
    columns: Mapping[str, float]


class MeasuringEvaluator(SentenceEvaluator):
    """An evaluator of this package: it measures, and what is done with the figures is the same for all.

    Args:
        name: What is put before the names of the metrics, and into that of the CSV file.
        batch_size: Of ``encode``.
        show_progress_bar: Whether ``encode`` shows one.
        write_csv: Whether figures are appended to a CSV file.
        truncate_dim: Width to which embeddings are cut; by default the model's.
    """

    _csv_file: str | None = None

    def __init__(
        self,
        name: str,
        *,
        batch_size: int = 32,
        show_progress_bar: bool | None = False,
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        self.name = name
        self.batch_size = batch_size
        self.show_progress_bar = show_progress_bar
        self.write_csv = write_csv
        self.truncate_dim = truncate_dim

    @property
    def csv_file(self) -> str:
        """The name of the CSV file; it can be set."""
        return self._default_csv_file if self._csv_file is None else self._csv_file

    @csv_file.setter
    def csv_file(self, csv_file: str) -> None:
        self._csv_file = csv_file

    @property
    def _default_csv_file(self) -> str:
        raise NotImplementedError

    def measured(self, model: Any) -> Measured:
        """The figures of a model."""
        raise NotImplementedError

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Judge a model; see ``SentenceEvaluator``."""
        return self.reported(self.measured(model), output_path, epoch, steps)

    def reported(self, found: Measured, output_path: str | None, epoch: int, steps: int) -> dict[str, float]:
        """What was found, logged, written down, and under the names by which it is known."""
        metrics = {self._prefixed(name): float(figure) for name, figure in found.metrics.items()}
        self.primary_metric = self._prefixed(found.primary)
        logger.info("%s%s: %s", type(self).__name__, _when(epoch, steps), metrics)
        if output_path is not None and self.write_csv:
            append_row(Path(output_path) / self.csv_file, {"epoch": epoch, "steps": steps, **found.columns})
        return metrics

    def _prefixed(self, name: str) -> str:
        return f"{self.name}_{name}" if self.name else name

    def embedded(self, model: Any, *columns: Sequence[str], **arguments: Any) -> list[Tensor]:
        """The embeddings of several columns of texts, each (rows, dim) on the CPU; equal ones are computed once."""
        return self.embedded_by(model.encode, *columns, **arguments)

    def embedded_by(self, encode: Callable[..., Any], *columns: Sequence[str], **arguments: Any) -> list[Tensor]:
        """The same by a method of a model: ``encode``, ``encode_query`` or ``encode_document``."""
        together = encode(
            [text for column in columns for text in column],
            batch_size=self.batch_size,
            show_progress_bar=self.show_progress_bar,
            convert_to_numpy=True,
            truncate_dim=self.truncate_dim,
            **arguments,
        )
        return list(torch.split(torch.from_numpy(together), [len(column) for column in columns]))

    def file_name(self, what: str, *more: str) -> str:
        """The name of a CSV file for these figures."""
        return f"{'_'.join(filter(None, [what, self.name, *more, 'results']))}.csv"


class SequentialEvaluator(SentenceEvaluator):
    """Several evaluators, one after the other.

    Args:
        evaluators: The evaluators.
        main_score_function: The primary figures of all of them → the one that counts; by default that of the last.

    Raises:
        ValueError: There is none.
    """

    def __init__(
        self,
        evaluators: Iterable[SentenceEvaluator],
        main_score_function: Callable[[list[float]], float] = lambda scores: scores[-1],
    ) -> None:
        self.evaluators = list(evaluators)
        self.main_score_function = main_score_function
        if not self.evaluators:
            raise ValueError("evaluators: expected at least one, found none")

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        """Judge a model; see ``SentenceEvaluator``. All metrics, and ``sequential_score``."""
        metrics: dict[str, float] = {}
        scores = []
        for number, evaluator in enumerate(self.evaluators):
            found = evaluator(model, output_path, epoch, steps)
            if not isinstance(found, Mapping):
                found = {f"evaluator_{number}": float(found)}
            scores.append(primary_figure(evaluator, found))
            metrics.update(found)
        self.primary_metric = "sequential_score"
        return {**metrics, "sequential_score": float(self.main_score_function(scores))}


def primary_figure(evaluator: Any, metrics: Mapping[str, Any]) -> Any:
    """The metric of an evaluator that counts: its ``primary_metric``, or the first if it names none.

    Raises:
        ValueError: There is no metric of that name, or none at all.
    """
    if not metrics:
        raise ValueError(f"{type(evaluator).__name__}: expected a metric at least, found an empty dict")
    primary = getattr(evaluator, "primary_metric", None)
    if primary is None:
        return next(iter(metrics.values()))
    if primary not in metrics:
        raise ValueError(f"{type(evaluator).__name__}: expected its primary_metric {primary!r} in {list(metrics)}")
    return metrics[primary]


def columns_of(examples: Sequence[InputExample], count: int) -> list[list[Any]]:
    """The first texts of examples, the second ones, and so on: so many columns."""
    return [[(example.texts or ())[place] for example in examples] for place in range(count)]


def _when(epoch: int, steps: int) -> str:
    if epoch == -1:
        return ""
    return f" after epoch {epoch}" if steps == -1 else f" in epoch {epoch} after {steps} steps"
