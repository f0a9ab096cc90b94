"""EmbeddingsFile: a file that embeddings are written to, a chunk at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.cli.text_file import Record, TextFile
from sentence_embedder.cli.usage_error import UsageError

_COLUMN = "embedding"
_ROWS_AT_ONCE = 4096

Finished = Callable[[NDArray[Any]], NDArray[Any]]
"""Some rows as they were kept → as they are to be written."""


def check_suffix(path: Path) -> None:
    """Raise a UsageError unless a file of that name can be written."""
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{path}: expected a file that ends in {', '.join(_FORMATS)}")
    if path.suffix.lower() == ".parquet":
        _pyarrow(path)


def check_rows(texts: TextFile, suffix: str) -> None:
    """Check, before anything is computed, that the rows of a file can be written with their embeddings.

    Args:
        texts: The file with the rows, which are read for it where their types are not known.
        suffix: The suffix of the file to write.

    Raises:
        ValueError: They cannot.
    """
    if suffix.lower() == ".parquet":
        pyarrow, parquet = _pyarrow(texts.path)
        with _as_value_errors(pyarrow, texts.path):
            parquet.ParquetWriter(pyarrow.BufferOutputStream(), _whole_schema(pyarrow, texts)).close()
    elif suffix.lower() == ".jsonl" and (schema := texts.schema()) is not None:
        pyarrow, _ = _pyarrow(texts.path)
        names = [field.name for field in schema if _has_bytes(pyarrow, field.type)]
        if names:
            raise ValueError(f"{texts.path}: bytes, in {names}, have no form in JSON: write .npy or .parquet")


def _has_bytes(pyarrow: Any, kind: Any) -> bool:
    """Whether there are bytes in a type of Arrow, or in one within it."""
    within = [kind.field(place).type for place in range(kind.num_fields)]
    is_bytes = (pyarrow.types.is_binary, pyarrow.types.is_large_binary, pyarrow.types.is_fixed_size_binary)
    return any(check(kind) for check in is_bytes) or any(_has_bytes(pyarrow, each) for each in within)


@dataclass(frozen=True)
class EmbeddingsFile:
    """Embeddings, and for all formats but npy the rows that they belong to.

    Args:
        texts: The file with the rows.
        kept: Their embeddings (rows, dim), of which a part at a time is read.
        finished: What is still to be done with them.
    """

    texts: TextFile
    kept: NDArray[Any]
    finished: Finished

    def write(self, path: Path, suffix: str) -> None:
        """Write a file in the format of a suffix."""
        _FORMATS[suffix.lower()](self, path)

    def chunks(self) -> Iterator[NDArray[Any]]:
        """The embeddings as they are to be written; a chunk at least."""
        for start in range(0, max(1, len(self.kept)), _ROWS_AT_ONCE):
            yield self.finished(self.kept[start : start + _ROWS_AT_ONCE])

    def rows(self) -> Iterator[tuple[list[Record], NDArray[Any]]]:
        """Rows and their embeddings."""
        records = self.texts.records()
        for chunk in self.chunks():
            yield list(itertools.islice(records, len(chunk))), chunk


def _write_npy(source: EmbeddingsFile, path: Path) -> None:
    chunks = source.chunks()
    first = next(chunks)
    with path.open("wb") as file:
        shape = (len(source.kept), first.shape[1])
        header = {"descr": first.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in itertools.chain([first], chunks):
            file.write(np.ascontiguousarray(chunk).tobytes())


def _write_json(source: EmbeddingsFile, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for records, embeddings in source.rows():
            for record, embedding in zip(records, embeddings, strict=True):
                values = {**record, _COLUMN: _shortest(embedding)}
                file.write(json.dumps(values, ensure_ascii=False, default=_in_words) + "\n")


def _shortest(embedding: NDArray[Any]) -> list[Any]:
    """The numbers with as few digits as tell them from their neighbours in their own format."""
    if embedding.dtype.kind != "f":
        return list(embedding.tolist())
    return [float(str(value)) for value in embedding]


def _in_words(value: Any) -> str:
    if isinstance(value, (date, time, timedelta, Decimal)):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON: write .npy or .parquet")


def _write_parquet(source: EmbeddingsFile, path: Path) -> None:
    pyarrow, parquet = _pyarrow(path)
    with _as_value_errors(pyarrow, source.texts.path):
        schema = _whole_schema(pyarrow, source.texts)
    writer = None
    try:
        for records, embeddings in source.rows():
            with _as_value_errors(pyarrow, source.texts.path):
                table = pyarrow.Table.from_pylist(records, schema=schema)
            if _COLUMN in table.schema.names:
                table = table.drop_columns([_COLUMN])
            values = pyarrow.array(np.ascontiguousarray(embeddings).reshape(-1))
            column = pyarrow.FixedSizeListArray.from_arrays(values, embeddings.shape[1])
            table = table.append_column(_COLUMN, column)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _as_value_errors(pyarrow: Any, path: Path) -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, TypeError) as error:
        raise ValueError(
            f"{path}: expected values of one type a column, for Parquet: {error}: write .npy or .jsonl"
        ) from error


def _whole_schema(pyarrow: Any, texts: TextFile) -> Any:
    """The types of all rows: what the first ones have may be narrower, and would narrow the others."""
    known = texts.schema()
    if known is not None:
        return known
    records = texts.records()
    whole = pyarrow.schema([])
    while chunk := list(itertools.islice(records, _ROWS_AT_ONCE)):
        whole = pyarrow.unify_schemas([whole, _schema_of(pyarrow, chunk)], promote_options="permissive")
        if texts.has_strings_alone:
            break
    return whole


def _schema_of(pyarrow: Any, records: list[Record]) -> Any:
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: [record.get(name) for record in records] for name in names}
    return pyarrow.Table.from_pydict(columns).schema


def _pyarrow(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            f"{path}: Parquet needs pyarrow: pip install 'sentence-embedder[parquet]'", name="pyarrow"
        ) from error
    return pyarrow, parquet


_FORMATS: Mapping[str, Callable[[EmbeddingsFile, Path], None]] = {
    ".npy": _write_npy,
    ".jsonl": _write_json,
    ".parquet": _write_parquet,
}
"""Suffix → how it is written."""
