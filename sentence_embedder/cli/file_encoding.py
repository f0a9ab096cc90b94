"""FileEncoding: a file of texts on its way to a file of embeddings."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.cli.embeddings_file import EmbeddingsFile, Finished
from sentence_embedder.cli.journal import Journal
from sentence_embedder.cli.text_file import TextFile, in_chunks
from sentence_embedder.encoding.cut_texts import CutTexts, Truncation, told_of_cuts, told_of_limit
from sentence_embedder.progress import progress_bar

_ROWS_AT_ONCE = 4096

Encode = Callable[[list[str], CutTexts], NDArray[Any]]
"""Texts → embeddings as they are kept until all are there; told which of them were cut."""


@dataclass(frozen=True)
class FileEncoding:
    """How a file of texts becomes one of embeddings.

    Args:
        texts: The file with the texts.
        output: The file that will be.
        encode: What makes embeddings of a chunk.
        finished_as: The precision that they get when all are there; None if they have theirs from the beginning.
        save_every: How many texts a chunk has.
        limit: How many tokens of a text the model reads.
        truncation: What is made of texts that are longer.
        settings: All that decides what comes out, beside the file with the texts.
        stamp: What the file with the texts was when it was looked at; what it is when this begins, if None.
        schema: The types that the columns of the rows get, in a file that has them.
    """

    texts: TextFile
    output: Path
    encode: Encode
    finished_as: str | None
    save_every: int
    limit: int | None
    settings: dict[str, Any]
    truncation: Truncation = "warn"
    stamp: dict[str, Any] | None = None
    schema: Any = None

    def run(self, *, overwrite: bool) -> str:
        """Encode, from where an earlier run was interrupted, if one was.

        Returns:
            What was done, and what was not.

        Raises:
            FileExistsError: There is a file, or one begun in another way.
            ValueError: A row has no text, or a longer one than it may be; or the file was changed meanwhile.
        """
        stamp = self.texts.stamp if self.stamp is None else self.stamp
        self._check_precision()
        start = time.monotonic()
        journal = Journal(self.output)
        with journal.opened({**self.settings, "input": stamp}, overwrite=overwrite) as is_whole:
            before = journal.rows
            if journal.cut and self.truncation == "error":
                raise ValueError(
                    f"{self.texts.path}: expected texts of no more than {told_of_limit(self.limit)}, found "
                    f"{journal.cut:,} longer ones among those that are encoded already: split them, or let them "
                    "be cut"
                )
            if not is_whole:
                self._add_missing(journal)
                if self.texts.stamp != stamp:
                    raise ValueError(f"{self.texts.path}: was changed meanwhile: give --overwrite to begin anew")
                kept = journal.embeddings()
                file = EmbeddingsFile(self.texts, kept, self._finished(kept), self.schema)
                journal.place(lambda path: file.write(path, self.output.suffix))
            return self._said(journal, before, time.monotonic() - start)

    def _check_precision(self) -> None:
        """Raise a ValueError if embeddings could not be finished: before any is made."""
        from sentence_embedder.quantization.precision import check_calibration

        if self.finished_as is not None:
            check_calibration(self.finished_as, sum(1 for _ in itertools.islice(self.texts.texts(), 2)))

    def _add_missing(self, journal: Journal) -> None:
        """Encode what is not there."""
        is_shown = sys.stderr.isatty()
        total = self.texts.count() if is_shown else None
        with progress_bar(
            total, unit="text", shown=is_shown, description="Encoding", done=journal.rows
        ) as progress:
            for count in journal.add(self._missing(journal.rows)):
                progress.update(count)

    def _missing(self, done: int) -> Iterator[tuple[NDArray[Any], int]]:
        """The embeddings that are not there, by chunks, and how many texts were cut; none of no texts at all."""
        texts = self.texts.texts()
        skipped = sum(1 for _ in itertools.islice(texts, done))
        if skipped < done:
            raise ValueError(f"{self.texts.path}: was changed meanwhile: give --overwrite to begin anew")
        for chunk in in_chunks(texts, self.save_every):
            cut = CutTexts(self.truncation, self.limit, start=done)
            yield self.encode(chunk, cut), len(cut.places)
            done += len(chunk)
        if not done:
            yield self.encode([], CutTexts()), 0

    def _finished(self, kept: NDArray[Any]) -> Finished:
        """What is done when all embeddings are there: bytes need the range of each dimension."""
        from sentence_embedder.quantization.precision import quantize_embeddings

        precision: Any = self.finished_as
        if precision is None:
            return lambda rows: rows
        ranges = _ranges(kept)
        return lambda rows: quantize_embeddings(rows, precision, ranges)

    def _said(self, journal: Journal, before: int, seconds: float) -> str:
        rows, cut = journal.rows, journal.cut
        resumed = f", {before:,} of them before" if before else ""
        rate = (rows - before) / max(seconds, 1e-9)
        cuts = f"\n{told_of_cuts(cut, rows, self.limit)}" if cut and self.truncation == "warn" else ""
        return f"{self.output}: {rows:,} texts{resumed}, in {seconds:.1f} s ({rate:,.0f}/s){cuts}"


def _ranges(kept: NDArray[Any]) -> NDArray[Any]:
    """Minimum and maximum of each dimension: (2, dim)."""
    if not len(kept):
        return np.zeros((2, kept.shape[1]), np.float32)
    parts = [kept[start : start + _ROWS_AT_ONCE] for start in range(0, len(kept), _ROWS_AT_ONCE)]
    minima = np.min([part.min(axis=0) for part in parts], axis=0)
    maxima = np.max([part.max(axis=0) for part in parts], axis=0)
    return np.stack([minima, maxima])
