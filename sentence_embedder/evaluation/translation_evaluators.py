"""Evaluators of texts and their translations."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from sentence_embedder.evaluation.sentence_evaluator import Measured, MeasuringEvaluator
from sentence_embedder.evaluation.similarity_evaluators import check_lengths
from sentence_embedder.similarity import cos_sim

logger = logging.getLogger(__name__)

_SCORES_AT_ONCE = 2**26


class TranslationEvaluator(MeasuringEvaluator):
    """For how many texts their own translation is the nearest of all, and the other way round.

    Metrics: ``src2trg_accuracy``, ``trg2src_accuracy`` and their mean, ``mean_accuracy``, which counts.

    Args:
        source_sentences: The texts.
        target_sentences: Their translations.
        show_progress_bar: Whether ``encode`` shows one.
        batch_size: Of ``encode``.
        name: What is put before the names of the metrics, and into that of the CSV file.
        print_wrong_matches: Whether texts with another translation nearest are logged.
        write_csv: Whether figures are appended to a CSV file.
        truncate_dim: Width to which embeddings are cut; by default the model's.

    Raises:
        ValueError: There are not as many of one as of the other, or none.
    """

    def __init__(
        self,
        source_sentences: Sequence[str],
        target_sentences: Sequence[str],
        show_progress_bar: bool | None = False,
        batch_size: int = 16,
        name: str = "",
        print_wrong_matches: bool = False,
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
        _check_texts(source_sentences, target_sentences)
        self.source_sentences = source_sentences
        self.target_sentences = target_sentences
        self.print_wrong_matches = print_wrong_matches

    @property
    def _default_csv_file(self) -> str:
        return self.file_name("translation_evaluation")

    def measured(self, model: Any) -> Measured:
        """The accuracies of a model."""
        sources, targets = self.embedded(model, self.source_sentences, self.target_sentences)
        forward, backward = _nearest(sources, targets), _nearest(targets, sources)
        if self.print_wrong_matches:
            for place, other in enumerate(forward):
                found, right = self.target_sentences[other], self.target_sentences[place]
                if found != right:
                    logger.info("%r: nearest is %r, not %r", self.source_sentences[place], found, right)
        to_target = _share_of_same(self.target_sentences, forward)
        to_source = _share_of_same(self.source_sentences, backward)
        return Measured(
            metrics={
                "src2trg_accuracy": to_target,
                "trg2src_accuracy": to_source,
                "mean_accuracy": (to_target + to_source) / 2,
            },
            primary="mean_accuracy",
            columns={"src2trg": to_target, "trg2src": to_source},
        )


def _nearest(rows: torch.Tensor, others: torch.Tensor) -> list[int]:
    """For each row the place of the nearest of the others."""
    parts = torch.split(rows, max(1, _SCORES_AT_ONCE // len(others)))
    return [place for part in parts for place in cos_sim(part, others).argmax(dim=1).tolist()]


def _share_of_same(texts: Sequence[str], nearest: Sequence[int]) -> float:
    """For how many texts that at the nearest place is the same; a text may be there more than once."""
    return sum(texts[place] == text for text, place in zip(texts, nearest, strict=True)) / len(texts)


class MSEEvaluator(MeasuringEvaluator):
    """How far the embeddings of texts, or of their translations, are from those of a teacher: the mean squared
    difference, times 100.

    Metric: ``negative_mse``, so that more is better.

    Args:
        source_sentences: The texts that the teacher embeds, once.
        target_sentences: Those that the model embeds: the same, or their translations.
        teacher_model: The teacher.
        show_progress_bar: Whether ``encode`` shows one.
        batch_size: Of ``encode``.
        name: What is put before the name of the metric, and into that of the CSV file.
        write_csv: Whether figures are appended to a CSV file.
        truncate_dim: Width to which the embeddings of both are cut; by default each model's.

    Raises:
        ValueError: There are not as many of one as of the other.
    """

    def __init__(
        self,
        source_sentences: Sequence[str],
        target_sentences: Sequence[str],
        teacher_model: Any,
        show_progress_bar: bool | None = False,
        batch_size: int = 32,
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
        _check_texts(source_sentences, target_sentences)
        self.target_sentences = target_sentences
        (self.source_embeddings,) = self.embedded(teacher_model, source_sentences)

    @property
    def _default_csv_file(self) -> str:
        return f"mse_evaluation_{self.name}_results.csv"  # with both underscores, as others look for it

    def measured(self, model: Any) -> Measured:
        """The mean squared difference of a model."""
        (targets,) = self.embedded(model, self.target_sentences)
        mse = _mean_squared_difference(self.source_embeddings, targets)
        return Measured(metrics={"negative_mse": -mse}, primary="negative_mse", columns={"MSE": mse})


class MSEEvaluatorFromDataFrame(MeasuringEvaluator):
    """How far the embeddings of texts in several languages are from those of a teacher: the mean squared
    difference, times 100, for each pair of a teacher's language and a model's.

    Metric: ``negative_mse``, the mean of them, so that more is better.

    Args:
        dataframe: A dict a row, language → text, or a DataFrame with a column a language; where the text of
            either language is missing or empty, the row is left out for that pair.
        teacher_model: The teacher.
        combinations: The pairs: the language of the teacher's texts, and that of the model's; each is taken once.
        batch_size: Of ``encode``.
        name: What is put before the name of the metric, and into that of the CSV file.
        write_csv: Whether figures are appended to a CSV file.
        truncate_dim: Width to which the embeddings of both are cut; by default each model's.

    Raises:
        ValueError: There is no pair, or no row with texts for it.
    """

    def __init__(
        self,
        dataframe: Any,
        teacher_model: Any,
        combinations: Iterable[tuple[str, str]],
        batch_size: int = 8,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=None,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        rows = dataframe.to_dict("records") if hasattr(dataframe, "iterrows") else list(dataframe)
        self.data = {(source, target): _parallel(rows, source, target) for source, target in combinations}
        if not self.data:
            raise ValueError("combinations: expected a pair of languages at least, found none")
        texts = list(dict.fromkeys(text for sources, _ in self.data.values() for text in sources))
        (self.source_embeddings,) = self.embedded(teacher_model, texts)
        self._row_of = {text: row for row, text in enumerate(texts)}

    @property
    def combinations(self) -> list[tuple[str, str]]:
        """The pairs of languages."""
        return list(self.data)

    @property
    def _default_csv_file(self) -> str:
        return self.file_name("mse_evaluation")

    def measured(self, model: Any) -> Measured:
        """The mean squared differences of a model."""
        embedded = self.embedded(model, *(targets for _, targets in self.data.values()))
        columns = {}
        for ((source, target), (sources, _)), targets in zip(self.data.items(), embedded, strict=True):
            expected = self.source_embeddings[[self._row_of[text] for text in sources]]
            columns[f"{source}-{target}"] = _mean_squared_difference(expected, targets)
        return Measured(
            metrics={"negative_mse": -sum(columns.values()) / len(columns)}, primary="negative_mse", columns=columns
        )


def _parallel(rows: Sequence[Mapping[str, Any]], source: str, target: str) -> tuple[list[str], list[str]]:
    """The texts of two languages, of the rows that have both."""
    found = [(row.get(source), row.get(target)) for row in rows]
    both = [pair for pair in found if all(isinstance(text, str) and text.strip() for text in pair)]
    if not both:
        raise ValueError(
            f"dataframe: expected rows with texts for {source!r} and {target!r}, found none; "
            f"the first of {len(rows)} has {list(rows[0]) if rows else []!r:.200}"
        )
    sources, targets = zip(*both, strict=True)
    return list(sources), list(targets)


def _mean_squared_difference(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Times 100."""
    return 100 * float(((expected - found) ** 2).mean())


def _check_texts(source_sentences: Sequence[str], target_sentences: Sequence[str]) -> None:
    """Raise a ValueError unless there are as many of one as of the other, and some."""
    check_lengths(source_sentences=source_sentences, target_sentences=target_sentences)
    if len(source_sentences) == 0:
        raise ValueError("source_sentences: expected one text at least, found none")
