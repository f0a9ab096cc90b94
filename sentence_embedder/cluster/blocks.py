"""Blocks: neighbouring rows of files of texts, each of which becomes a file of its own."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sentence_embedder.threads import Threads

logger = logging.getLogger(__name__)

_FORMATS = (".parquet", ".csv", ".json", ".jsonl", ".ndjson")
_LONGEST_STEM = 100
_ROWS_AT_ONCE = 16_384
_FILES_AT_ONCE = 16
_LARGEST_PART = 2**31 - 1
"""How many bytes pyarrow parses at once at most."""

CheckColumns = Callable[[Sequence[str], str], None]
"""The names of a file's columns, the file → an error, if it has not what is needed."""


@dataclass(frozen=True)
class Location:
    """A file or folder that all machines see.

    Args:
        files: Its file system, a ``pyarrow.fs.FileSystem``.
        path: Its path there.
    """

    files: Any
    path: str

    @staticmethod
    def at(path: str) -> Location:
        """That of a path, or of a URI that Arrow knows."""
        from pyarrow import fs

        if "://" not in path:
            return Location(fs.LocalFileSystem(), os.path.abspath(path))  # noqa: PTH100  # of what may not be there
        files, there = fs.FileSystem.from_uri(path)
        return Location(files, posixpath.normpath(there))

    def inside(self, name: str) -> Location:
        """That of a name in this folder."""
        return Location(self.files, posixpath.join(self.path, name))

    def holds(self, other: Location) -> bool:
        """Whether another location is this one or inside it."""
        is_inside = f"{other.path}/".startswith(f"{self.path.rstrip('/')}/")
        return bool(self.files.type_name == other.files.type_name) and is_inside


@dataclass(frozen=True)
class Block:
    """Neighbouring rows of a file.

    Args:
        file: The file.
        start: The first row.
        stop: The row after the last one; of a file that is not Parquet -1, for its end.
        output: The name of the file that it becomes, which says where it comes from.
    """

    file: Location
    start: int
    stop: int
    output: str

    def __str__(self) -> str:
        rows = "" if self.stop < 0 else f", rows {self.start} to {self.stop - 1}"
        return f"{self.file.path}{rows}"

    def read(self, column: str) -> Any:
        """The rows as a ``pyarrow.Table``, in which a column is of texts, whatever they look like: of CSV, which
        does not say what is a number, each is.

        Raises:
            ValueError: The file has changed.
        """
        import pyarrow
        from pyarrow import csv as pyarrow_csv
        from pyarrow import json

        with self.file.files.open_input_file(self.file.path) as file:
            suffix = posixpath.splitext(self.file.path)[1].lower()
            if suffix == ".parquet":
                return self._read_parquet(file)
            text = pyarrow.string()
            # At once: in parts it would be cut within a row that is longer than one, or that has several lines.
            size = min(max(file.size(), 1), _LARGEST_PART)
            if suffix == ".csv":
                names = _first_row(file)
                return pyarrow_csv.read_csv(
                    file,
                    read_options=pyarrow_csv.ReadOptions(block_size=size),
                    parse_options=pyarrow_csv.ParseOptions(newlines_in_values=True),
                    convert_options=pyarrow_csv.ConvertOptions(column_types=dict.fromkeys((*names, column), text)),
                )
            return json.read_json(
                file,
                read_options=json.ReadOptions(block_size=size),
                parse_options=json.ParseOptions(explicit_schema=pyarrow.schema([(column, text)])),
            )

    def _read_parquet(self, file: Any) -> Any:
        """Of a Parquet file no more is read than the row groups that have some of the rows, and less is kept."""
        import pyarrow
        from pyarrow import parquet

        read = parquet.ParquetFile(file)
        groups: list[int] = []
        first = before = 0
        for number in range(read.metadata.num_row_groups):
            count = read.metadata.row_group(number).num_rows
            if before + count > self.start and before < self.stop:
                first = first if groups else before
                groups.append(number)
            before += count
        parts, place = [], first
        for batch in read.iter_batches(batch_size=_ROWS_AT_ONCE, row_groups=groups) if groups else ():
            start, stop = max(self.start - place, 0), min(self.stop - place, len(batch))
            if start < stop:
                parts.append(batch.slice(start, stop - start))
            place += len(batch)
        table = pyarrow.Table.from_batches(parts, schema=read.schema_arrow)
        if table.num_rows != self.stop - self.start:
            raise ValueError(
                f"{self}: expected {self.stop - self.start} rows, found {table.num_rows}: it has changed"
            )
        return table


def _first_row(file: Any) -> list[str]:
    """The first row of a CSV file that is not empty; the file is then at its beginning again."""
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    names = next(filter(None, csv.reader(lines)), [])
    lines.detach()  # it would close the file
    file.seek(0)
    return names


def blocks_of(paths: Sequence[str], block_rows: int, check_columns: CheckColumns) -> list[Block]:
    """The blocks of files and folders: of the same files always the same ones, each once.

    Args:
        paths: Files and folders, paths or URIs.
        block_rows: How many rows a block of a Parquet file has.
        check_columns: Called with what each Parquet file has.

    Raises:
        FileNotFoundError: There is no file of a known format.
        ValueError: The number of rows is not positive.
    """
    if block_rows < 1:
        raise ValueError(f"block_rows: expected 1 or more, found {block_rows}")
    files = [file for path in paths for file in _files_at(path)]
    with Threads(min(_FILES_AT_ONCE, len(files)), "blocks") as threads:
        ranges = threads.map(lambda file: _ranges(file[0], block_rows, check_columns), files)
        found = [
            Block(place, start, stop, _output(place, info, start))
            for (place, info), ranges_of_file in zip(files, ranges, strict=True)
            for start, stop in ranges_of_file
        ]
    return list({block.output: block for block in found}.values())


def _output(location: Location, info: Any, start: int) -> str:
    stem = posixpath.splitext(posixpath.basename(location.path))[0][:_LONGEST_STEM]
    # What a file becomes is not taken for what one of its name becomes elsewhere, or became before it was changed.
    origin = (location.files.type_name, location.path, info.size, info.mtime_ns)
    return f"{stem}-{hashlib.sha256(repr(origin).encode()).hexdigest()[:12]}-{start:012d}.parquet"


def _ranges(location: Location, block_rows: int, check_columns: CheckColumns) -> list[tuple[int, int]]:
    from pyarrow import parquet

    if not location.path.lower().endswith(".parquet"):
        return [(0, -1)]
    metadata = parquet.read_metadata(location.path, filesystem=location.files)
    check_columns(metadata.schema.to_arrow_schema().names, location.path)
    rows = metadata.num_rows
    return [(start, min(start + block_rows, rows)) for start in range(0, rows, block_rows)]


def _files_at(path: str) -> Iterator[tuple[Location, Any]]:
    """The files of a known format at a path or URI, each with what its file system says of it."""
    from pyarrow import fs

    location = Location.at(path)
    info = location.files.get_file_info(location.path)
    if info.type == fs.FileType.Directory:
        everything = location.files.get_file_info(fs.FileSelector(location.path, recursive=True))
        found = [each for each in everything if not _is_hidden(posixpath.relpath(each.path, location.path))]
    else:
        found = [info]
    files = [each for each in found if each.type == fs.FileType.File]
    known = sorted(
        (each for each in files if each.path.lower().endswith(_FORMATS)), key=lambda each: str(each.path)
    )
    if not known:
        raise FileNotFoundError(f"{path}: expected a file, or a folder with files, of {', '.join(_FORMATS)}")
    if len(known) < len(files):
        other = next(each.path for each in files if each not in known)
        logger.warning("%s: %d files of no known format are left out, %s say", path, len(files) - len(known), other)
    for each in known:
        if each.size:
            yield Location(location.files, each.path), each


def _is_hidden(path: str) -> bool:
    """Whether a path is one of those that are no data: what begins with a dot or an underscore."""
    return any(part.startswith((".", "_")) for part in path.split("/"))
