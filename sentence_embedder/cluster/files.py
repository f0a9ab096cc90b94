"""encode_files: files of texts to files with embeddings, block by block, so that it can go on where it was."""

from __future__ import annotations

import hashlib
import json
import posixpath
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sentence_embedder.cluster.datasets import check_arguments
from sentence_embedder.cluster.embedding_column import with_embeddings
from sentence_embedder.cluster.shipped_model import Resources, ShippedModel, connected_ray
from sentence_embedder.features import memory_of
from sentence_embedder.progress import progress_bar

_SETTINGS_FILE = "_settings.json"
_FORMATS = (".parquet", ".csv", ".json", ".jsonl")


@dataclass(frozen=True)
class EncodedFiles:
    """What ``encode_files`` did.

    Args:
        blocks: How many blocks it wrote.
        rows: How many rows these have.
        skipped: How many blocks were there before.
    """

    blocks: int
    rows: int
    skipped: int


@dataclass(frozen=True)
class _Block:
    """Neighbouring rows of a file, which become a file.

    Args:
        path: The file.
        start: The first row.
        stop: The row after the last one; of a file that is not Parquet -1, for its end.
        output: The name of the file to write.
    """

    path: str
    start: int
    stop: int
    output: str


def encode_files(
    paths: str | Sequence[str],
    output: str,
    model: nn.Module,
    *,
    column: str = "text",
    output_column: str = "embedding",
    concurrency: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    block_rows: int = 20_000,
    shows_progress: bool = False,
    **arguments: Any,
) -> EncodedFiles:
    """Embed the texts of Parquet, CSV or JSON files, by a cluster, into Parquet files with a column more.

    Each block of rows becomes a file, which appears when it is whole. Run again after an interruption, it computes
    only the blocks that are not there: nothing is lost, and nothing there twice. A block on a machine that is lost
    is computed by another.

    Args:
        paths: Files, or folders of files: paths that all machines see, or URIs that Arrow knows (``s3://``, ``gs://``,
            ``hdfs://``). JSON has one object a line.
        output: The folder for the files, a path or URI; made if it is not there.
        model: The SentenceTransformer. It goes through the object store, and is loaded once by each actor.
        column: The column of the texts.
        output_column: The column of the embeddings, lists of fixed size.
        concurrency: How many actors; by default as many as the cluster has room for.
        num_cpus: Cores, and threads, of each.
        num_gpus: GPUs of each.
        block_rows: How many rows a block has; of CSV and JSON files each is one block.
        shows_progress: Whether a progress bar counts blocks.
        arguments: Of ``encode``, as for ``encode_dataset``.

    Returns:
        How much was done.

    Raises:
        FileNotFoundError: There is no such file, or none of a known format in the folder.
        ImportError: Ray is not installed.
        ValueError: The folder has files of another model, or made with other arguments; or an argument is none of
            ``encode``'s.

    Example:
        >>> encode_files("in/", "out/", model, num_gpus=1)  # doctest: +SKIP
        EncodedFiles(blocks=50, rows=1000000, skipped=0)
    """
    check_arguments(arguments)
    ray = connected_ray()
    files, folder = _filesystem(output)
    files.create_dir(folder, recursive=True)
    settings = {
        "column": column,
        "output_column": output_column,
        "block_rows": block_rows,
        "arguments": {name: repr(value) for name, value in sorted(arguments.items())},
        "model": _fingerprint(model),
    }
    _check_settings(files, posixpath.join(folder, _SETTINGS_FILE), settings)
    blocks = list(_blocks([paths] if isinstance(paths, str) else paths, block_rows))
    there = _names_in(files, folder)
    missing = [block for block in blocks if block.output not in there]
    rows = 0
    if missing:
        resources = Resources(num_cpus, num_gpus)
        size = min(len(missing), concurrency or resources.room())
        receipts = ray.data.from_items(
            [vars(block) for block in missing], override_num_blocks=len(missing)
        ).map_batches(
            _BlockEncoder,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size),
            fn_constructor_args=(ShippedModel.of(model, resources), output, column, output_column, arguments),
            num_cpus=num_cpus,
            num_gpus=num_gpus or None,
        )
        with progress_bar(len(missing), unit="block", shown=shows_progress, description="Encoding") as progress:
            for receipt in receipts.iter_rows():
                rows += int(receipt["rows"])
                progress.update()
    return EncodedFiles(blocks=len(missing), rows=rows, skipped=len(blocks) - len(missing))


class _BlockEncoder:
    """An actor that reads blocks, and writes them with embeddings.

    Args:
        shipped: Its model.
        output: The folder to write to.
        column: Where the texts are.
        output_column: Where the embeddings go.
        arguments: What ``encode`` is given.
    """

    def __init__(
        self, shipped: ShippedModel, output: str, column: str, output_column: str, arguments: dict[str, Any]
    ) -> None:
        self._model = shipped.loaded()
        self._files, self._folder = _filesystem(output)
        self._columns = column, output_column
        self._arguments = arguments

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """How many rows each block has, which is then written."""
        names = ("path", "start", "stop", "output")
        blocks = [_Block(*values) for values in zip(*(batch[name].tolist() for name in names), strict=True)]
        return {"rows": [self._written(block) for block in blocks]}

    def _written(self, block: _Block) -> int:
        table = with_embeddings(_read(block), self._model, *self._columns, self._arguments)
        _write(table, self._files, posixpath.join(self._folder, block.output))
        return int(table.num_rows)


def _filesystem(path: str) -> tuple[Any, str]:
    """The file system of a path or URI, and the path there."""
    from pyarrow import fs

    if "://" in path:
        found: tuple[Any, str] = fs.FileSystem.from_uri(path)
        return found
    return fs.LocalFileSystem(), path


def _blocks(paths: Sequence[str], block_rows: int) -> Iterator[_Block]:
    """The blocks of files and folders, always the same ones."""
    if block_rows < 1:
        raise ValueError(f"block_rows: expected 1 or more, found {block_rows}")
    for path in paths:
        for file, size in _files_at(path):
            stem = posixpath.splitext(posixpath.basename(file))[0]
            # What is written for a file is not taken for that of another of this name, or of another size.
            mark = hashlib.sha256(f"{file}\0{size}".encode()).hexdigest()[:12]
            rows = _parquet_rows(file) if file.endswith(".parquet") else None
            starts = [0] if rows is None else range(0, rows, block_rows)
            for start in starts:
                stop = -1 if rows is None else min(start + block_rows, rows)
                yield _Block(file, start, stop, f"{stem}-{mark}-{start:012d}.parquet")


def _files_at(path: str) -> Iterator[tuple[str, int]]:
    """The files of a known format at a path or URI, each with its size in bytes."""
    from pyarrow import fs

    files, place = _filesystem(path)
    info = files.get_file_info(place)
    if info.type == fs.FileType.Directory:
        found = files.get_file_info(fs.FileSelector(place, recursive=True))
    else:
        found = [info]
    scheme = f"{path.partition('://')[0]}://" if "://" in path else ""
    known = [each for each in found if each.type == fs.FileType.File and each.path.endswith(_FORMATS)]
    if not known:
        raise FileNotFoundError(f"{path}: expected a file, or a folder with files, of {', '.join(_FORMATS)}")
    for each in sorted(known, key=lambda each: str(each.path)):
        yield scheme + each.path, each.size


def _parquet_rows(path: str) -> int:
    from pyarrow import parquet

    files, place = _filesystem(path)
    return int(parquet.read_metadata(place, filesystem=files).num_rows)


def _read(block: _Block) -> Any:
    """The rows of a block as a ``pyarrow.Table``."""
    from pyarrow import csv
    from pyarrow import json as arrow_json

    files, place = _filesystem(block.path)
    with files.open_input_file(place) as file:
        if block.path.endswith(".parquet"):
            return _rows_of_parquet(file, block.start, block.stop)
        return csv.read_csv(file) if block.path.endswith(".csv") else arrow_json.read_json(file)


def _rows_of_parquet(file: Any, start: int, stop: int) -> Any:
    """Some rows of a Parquet file, of which no more than their row groups is read."""
    from pyarrow import parquet

    read = parquet.ParquetFile(file)
    groups: list[int] = []
    first = before = 0
    for number in range(read.metadata.num_row_groups):
        count = read.metadata.row_group(number).num_rows
        if before + count > start and before < stop:
            if not groups:
                first = before
            groups.append(number)
        before += count
    return read.read_row_groups(groups).slice(start - first, stop - start)


def _write(table: Any, files: Any, path: str) -> None:
    """Write a Parquet file, which appears when it is whole."""
    from pyarrow import parquet

    unfinished = f"{path}.{uuid.uuid4().hex}.unfinished"
    try:
        parquet.write_table(table, unfinished, filesystem=files)
        files.move(unfinished, path)
    except BaseException:
        if files.get_file_info(unfinished).is_file:
            files.delete_file(unfinished)
        raise


def _names_in(files: Any, folder: str) -> set[str]:
    from pyarrow import fs

    return {each.base_name for each in files.get_file_info(fs.FileSelector(folder))}


def _check_settings(files: Any, path: str, settings: dict[str, Any]) -> None:
    """Write down how a folder is made, or raise a ValueError if it was begun in another way."""
    if files.get_file_info(path).is_file:
        with files.open_input_file(path) as file:
            found = json.loads(file.read())
        differing = sorted(name for name in settings if settings[name] != found.get(name))
        if differing:
            raise ValueError(
                f"{path}: the folder was begun with another {', '.join(differing)}: choose another folder"
            )
        return
    with files.open_output_stream(path) as file:
        file.write(json.dumps(settings, indent=2).encode())


def _fingerprint(model: nn.Module) -> str:
    """What tells a model from others: its modules and weights."""
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(memory_of(tensor.detach().cpu().contiguous()).tobytes())
    return digest.hexdigest()
