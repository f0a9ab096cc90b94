"""TextFile: a file of texts, read row by row."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentence_embedder.cli.usage_error import UsageError

Record = dict[str, Any]
"""A row: column → value."""

_TEXT = "text"
_CHARACTERS_AT_ONCE = 2**20
_ROWS_AT_ONCE = 4096
_LONGEST_FIELD = 2**31 - 1
_HALF = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class TextFile:
    """A file of texts: a text a line, or a table with a column of texts.

    Args:
        path: The file; its suffix says the format.
        column: The column of the texts; by default ``text``, or the only one.

    Raises:
        UsageError: The suffix is of no known format, or a file without columns is to have one.
    """

    path: Path
    column: str | None = None

    def __post_init__(self) -> None:
        if self.path.suffix.lower() not in _FORMATS:
            raise UsageError(f"{self.path}: expected a file that ends in {', '.join(_FORMATS)}")
        if self.column is not None and self.path.suffix.lower() == ".txt":
            raise UsageError(f"--column {self.column}: {self.path} has a text a line, and no columns")

    @property
    def stamp(self) -> dict[str, Any]:
        """What changes when the file does.

        Raises:
            FileNotFoundError: There is no such file.
        """
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path}: expected a file, found {self._instead()}")
        found = self.path.stat()
        return {"path": str(self.path.resolve()), "bytes": found.st_size, "changed": found.st_mtime_ns}

    def texts(self) -> Iterator[str]:
        """The texts, in the order of the file.

        Raises:
            ValueError: There is no such column; or a row has no text, or cannot be read.
        """
        column = self.column
        for row, record in enumerate(self._records(only_texts=True)):
            if column is None:
                column = self._chosen_of(list(record))
            if column not in record:
                raise self._no_column(column, list(record), f", row {row}")
            text = record[column]
            if not isinstance(text, str):
                found = "nothing" if text is None else type(text).__name__
                raise ValueError(f"{self.path}, row {row}: expected a text in {column!r}, found {found}")
            yield text

    def records(self) -> Iterator[Record]:
        """The rows with all of their columns."""
        return self._records(only_texts=False)

    def schema(self) -> Any:
        """The ``pyarrow.Schema`` of a Parquet file; None for all others."""
        return _parquet_file(self.path).schema_arrow if self.path.suffix.lower() == ".parquet" else None

    @property
    def has_strings_alone(self) -> bool:
        """Whether every value is a string, by the format."""
        return self.path.suffix.lower() in (".txt", ".csv", ".tsv")

    def columns(self) -> Sequence[str]:
        """The columns of a file that has strings alone."""
        suffix = self.path.suffix.lower()
        return [_TEXT] if suffix == ".txt" else _csv_columns(self.path)

    def count(self) -> int:
        """How many rows there are; all are read, but of Parquet."""
        if self.path.suffix.lower() == ".parquet":
            return int(_parquet_file(self.path).metadata.num_rows)
        return sum(1 for _ in self._records(only_texts=True))

    def _records(self, *, only_texts: bool) -> Iterator[Record]:
        suffix = self.path.suffix.lower()
        if suffix != ".parquet":
            yield from _FORMATS[suffix](self.path)
            return
        columns = list(_parquet_file(self.path).schema_arrow.names)
        yield from _parquet_rows(self.path, [self._chosen_of(columns)] if only_texts else columns)

    def _chosen_of(self, columns: Sequence[str]) -> str:
        column = self.column or (columns[0] if len(columns) == 1 else _TEXT)
        if column not in columns:
            raise self._no_column(column, columns)
        return column

    def _no_column(self, column: str, columns: Sequence[str], where: str = "") -> ValueError:
        return ValueError(
            f"{self.path}{where}: expected a column {column!r}, found {list(columns)}: name one with --column"
        )

    def _instead(self) -> str:
        return "a folder" if self.path.is_dir() else "nothing of that name"


def in_chunks(texts: Iterator[str], rows: int) -> Iterator[list[str]]:
    """Texts by so many, or by fewer where they are long: always the same ones, wherever one begins to read."""
    chunk: list[str] = []
    characters = 0
    for text in texts:
        chunk.append(text)
        characters += len(text)
        if len(chunk) == rows or characters >= _CHARACTERS_AT_ONCE:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _lines(path: Path) -> Iterator[str]:
    with _readable(path), path.open(encoding="utf-8-sig", newline="\n") as file:
        for line in file:
            yield line.removesuffix("\n").removesuffix("\r")


def _line_rows(path: Path) -> Iterator[Record]:
    return ({_TEXT: line} for line in _lines(path))


def _json_rows(path: Path) -> Iterator[Record]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: expected JSON, found {line[:40]!r}: {error}") from error
        if "\\u" in line:
            value = _without_halves(value)
        if not isinstance(value, (str, dict)):
            raise ValueError(f"{path}, line {number}: expected an object or a text, found {line[:40]!r}")
        yield {_TEXT: value} if isinstance(value, str) else value


def _without_halves(value: Any) -> Any:
    """Halves of surrogate pairs, which no file can hold, as U+FFFD: so they are encoded, too."""
    if isinstance(value, str):
        return _HALF.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_halves(each) for each in value]
    if isinstance(value, dict):
        return {_without_halves(name): _without_halves(each) for name, each in value.items()}
    return value


@contextmanager
def _csv_reader(path: Path) -> Iterator[tuple[list[str], Any]]:
    """The names of the columns, and a reader of what follows them."""
    csv.field_size_limit(_LONGEST_FIELD)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with _readable(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        names = next(reader, [])
        _check_names(names, f"{path}, line 1")
        yield names, reader


def _csv_columns(path: Path) -> list[str]:
    with _csv_reader(path) as (names, _):
        return names


def _csv_rows(path: Path) -> Iterator[Record]:
    with _csv_reader(path) as (names, reader):
        for values in reader:
            if not values:  # an empty line
                continue
            if len(values) != len(names):
                raise ValueError(
                    f"{path}, line {reader.line_num}: expected {len(names)} fields, as in the first line, "
                    f"found {len(values)}"
                )
            yield dict(zip(names, values, strict=True))


def _parquet_file(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f"{path}: Parquet needs pyarrow: pip install 'sentence-embedder[parquet]'", name="pyarrow"
        ) from error
    file = parquet.ParquetFile(path)
    _check_names(file.schema_arrow.names, str(path))
    return file


def _check_names(names: Sequence[str], where: str) -> None:
    """Raise a ValueError if two columns have one name: they could not be told apart."""
    if len(set(names)) < len(names):
        raise ValueError(f"{where}: expected a name a column, found {list(names)}")


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    for batch in _parquet_file(path).iter_batches(batch_size=_ROWS_AT_ONCE, columns=list(columns)):
        yield from batch.to_pylist()


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8, found the byte 0x{error.object[error.start]:02x}") from error
    except csv.Error as error:
        raise ValueError(f"{path}: expected a table of {path.suffix.lower()}: {error}") from error


_FORMATS: Mapping[str, Callable[[Path], Iterator[Record]]] = {
    ".txt": _line_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _json_rows,
    ".parquet": lambda path: _parquet_rows(path, _parquet_file(path).schema_arrow.names),
}
"""Suffix → how the rows are read."""
