"""Tables: text files with a row a line, cells between delimiters."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO, cast

_GZIP = b"\x1f\x8b"


def opened(path: Path) -> TextIO:
    """A text file to read, unpacked if it is one of gzip."""
    if _is_packed(path):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8", newline=""))
    return path.open(encoding="utf-8", newline="")


def _is_packed(path: Path) -> bool:
    """Whether a file is one of gzip, by its name or, whatever that is, by its first bytes: no UTF-8 begins so."""
    if path.suffix == ".gz":
        return True
    if not path.is_file():  # nobody can look into a pipe first; what is not there, opening it says
        return False
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file, unpacked if it is one of gzip, with their numbers from 1 on.

    Raises:
        ValueError: A line is not UTF-8.
    """
    with gzip.open(path, "rb") if _is_packed(path) else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, row {number}: expected UTF-8, found {error.object[error.start : error.end]!r}"
                ) from error


def cells_of(
    path: Path, columns: Sequence[int], *, delimiter: str = "\t", quoting: int = csv.QUOTE_NONE, skipped: int = 0
) -> Iterator[list[str]]:
    """Some cells of each row.

    Args:
        path: The file.
        columns: Which cells.
        delimiter: What stands between cells.
        quoting: How cells are quoted, a constant of ``csv``.
        skipped: How many rows at the beginning are none.

    Raises:
        ValueError: A row has not so many cells.
    """
    with opened(path) as file:
        rows = csv.reader(file, delimiter=delimiter, quoting=quoting)  # type: ignore[arg-type]
        for number, row in enumerate(rows):
            if number < skipped:
                continue
            if len(row) <= max(columns):
                raise ValueError(f"{path}, row {number + 1}: expected {max(columns) + 1} cells, found {len(row)}")
            yield [row[column] for column in columns]


def most(max_examples: int) -> int | None:
    """How many examples are read at most, for ``islice``: 0 stands for all."""
    return max_examples if max_examples > 0 else None
