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

from sentence_embedder.cli.json_text import json_text
from sentence_embedder.cli.text_file import Record, TextFile
from sentence_embedder.cli.usage_error import UsageError

_COLUMN = "embedding"
_ROWS_AT_ONCE = 4096

_KINDS_WITH_WORDS = (
    *("null", "boolean", "integer", "floating", "decimal"),
    *("string", "large_string", "string_view"),
    *("date", "time", "timestamp", "duration"),
)
"""Families of types of Arrow whose values have a form in JSON."""

Finished = Callable[[NDArray[Any]], NDArray[Any]]
"""Some rows as they were kept → as they are to be written."""


def check_suffix(path: Path) -> None:
    """Raise a UsageError unless a file of that name can be written."""
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{path}: expected a file that ends in {', '.join(_FORMATS)}")
    if path.suffix.lower() == ".parquet":
        _pyarrow(path)


def schema_for(suffix: str, texts: TextFile) -> Any:
    """The types that the columns of a file's rows get beside their embeddings, known before anything is computed.

    Args:
        suffix: The suffix of the file to write.
        texts: The file with the rows, which are read for it where their types are not known.

    Returns:
        A ``pyarrow.Schema`` for Parquet, None for other formats.

    Raises:
        ValueError: The rows cannot be written in that format.
    """
    if suffix.lower() == ".parquet":
        pyarrow, parquet = _pyarrow(texts.path)
        with _as_value_errors(pyarrow, texts.path):
            schema = _whole_schema(pyarrow, texts)
            parquet.ParquetWriter(pyarrow.BufferOutputStream(), schema).close()
        return schema
    if suffix.lower() == ".jsonl" and (known := texts.schema()) is not None:
        pyarrow, _ = _pyarrow(texts.path)
        formless = [each.name for each in known if each.name != _COLUMN and not _has_words(pyarrow, each.type)]
        if formless:
            raise ValueError(
                f"{texts.path}: bytes, or what else is in {formless}, have no form in JSON: write .npy or .parquet"
            )
    return None


def _has_words(pyarrow: Any, kind: Any) -> bool:
    """Whether values of a type of Arrow have a form in JSON."""
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _has_words(pyarrow, kind.storage_type)
    if pyarrow.types.is_dictionary(kind):
        return _has_words(pyarrow, kind.value_type)
    if pyarrow.types.is_nested(kind):
        return all(_has_words(pyarrow, kind.field(place).type) for place in range(kind.num_fields))
    return any(getattr(pyarrow.types, f"is_{name}")(kind) for name in _KINDS_WITH_WORDS)


@dataclass(frozen=True)
class EmbeddingsFile:
    """Embeddings, and for all formats but npy the rows that they belong to.

    Args:
        texts: The file with the rows.
        kept: Their embeddings (rows, dim), of which a part at a time is read.
        finished: What is still to be done with them.
        schema: What ``schema_for`` gives for them.
    """

    texts: TextFile
    kept: NDArray[Any]
    finished: Finished
    schema: Any

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
                file.write(json_text(values, default=_in_words) + "\n")


def _shortest(embedding: NDArray[Any]) -> list[Any]:
    """The numbers with as few digits as tell them from their neighbours in their own format."""
    if embedding.dtype.kind != "f":
        return list(embedding.tolist())
    return [float(str(value)) for value in embedding]


def _in_words(value: Any) -> str | float:
    if isinstance(value, np.floating):
        return float(value)
    if isinstance(value, (date, time, timedelta, Decimal)):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON: write .npy or .parquet")


def _write_parquet(source: EmbeddingsFile, path: Path) -> None:
    pyarrow, parquet = _pyarrow(path)
    writer = None
    try:
        for records, embeddings in source.rows():
            table = pyarrow.Table.from_pylist(records, schema=source.schema)
            values = pyarrow.array(np.ascontiguousarray(embeddings).reshape(-1))
            column = pyarrow.FixedSizeListArray.from_arrays(values, embeddings.shape[1])
            # Not appended: a table without columns has no rows, either.
            columns, schema = [*table.columns, column], table.schema.append(pyarrow.field(_COLUMN, column.type))
            table = pyarrow.Table.from_arrays(columns, schema=schema)
            writer = writer or parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _as_value_errors(pyarrow: Any, path: Path) -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, OverflowError) as error:
        raise ValueError(
            f"{path}: expected values of one type a column, for Parquet: {error}: write .npy or .jsonl"
        ) from error


def _whole_schema(pyarrow: Any, texts: TextFile) -> Any:
    """The types of all rows, which all of them fit: those of the first ones may be narrower than of the others."""
    known = texts.schema()
    if known is not None:
        if _COLUMN not in known.names:
            return known
        kept = [each for each in known if each.name != _COLUMN]
        return pyarrow.schema(kept, _without_column(known.metadata or {}))
    if texts.has_strings_alone:
        return pyarrow.schema([(name, pyarrow.string()) for name in texts.columns() if name != _COLUMN])
    whole = pyarrow.schema([])
    for chunk in _chunks(texts):
        whole = pyarrow.unify_schemas([whole, _schema_of(pyarrow, chunk)], promote_options="permissive")
    for chunk in _chunks(texts):  # a number among whole ones makes numbers of them, which not all can become
        pyarrow.Table.from_pylist(chunk, schema=whole)
    return whole


def _without_column(metadata: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """What a Parquet file says of itself, without what pandas noted down of a column that is replaced."""
    if b"pandas" not in metadata:
        return metadata
    noted = json.loads(metadata[b"pandas"])
    noted["columns"] = [each for each in noted["columns"] if each.get("field_name") != _COLUMN]
    noted["index_columns"] = [each for each in noted["index_columns"] if each != _COLUMN]
    return {**metadata, b"pandas": json.dumps(noted).encode()}


def _chunks(texts: TextFile) -> Iterator[list[Record]]:
    records = texts.records()
    while chunk := list(itertools.islice(records, _ROWS_AT_ONCE)):
        yield chunk


def _schema_of(pyarrow: Any, records: list[Record]) -> Any:
    names = dict.fromkeys(name for record in records for name in record if name != _COLUMN)
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
