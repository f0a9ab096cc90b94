"""encode_files: files of texts to files with embeddings, block by block, so that it can go on where it was."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sentence_embedder.cluster.blocks import Block, Location, blocks_of
from sentence_embedder.cluster.embedding_column import EmbeddingColumn
from sentence_embedder.cluster.shipped_model import Resources, ShippedModel, connected_ray
from sentence_embedder.encoding.cut_texts import told_of_cuts
from sentence_embedder.fingerprint import fingerprint_of
from sentence_embedder.progress import progress_bar

logger = logging.getLogger(__name__)

_SETTINGS = "_settings.json"
_UNFINISHED = ".unfinished"
_TRIES = 3
"""How often a block is tried whose reading or writing fails, or over which an actor is lost."""


@dataclass(frozen=True)
class EncodedFiles:
    """What ``encode_files`` did.

    Args:
        blocks: How many blocks it wrote.
        rows: How many rows these have.
        skipped: How many blocks were there before.
        cut: How many of the rows have a text that is longer than the model reads.
    """

    blocks: int
    rows: int
    skipped: int
    cut: int = 0


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
    is computed by another. One run at a time writes to a folder.

    Args:
        paths: Files, or folders of files: paths that all machines see, or URIs that Arrow knows (``s3://``, ``gs://``,
            ``hdfs://``). JSON has one object a line; the columns of CSV are texts, all of them, as it does not say
            what is a number. What begins with a dot or an underscore is no data.
        output: The folder for the files, a path or URI; made if it is not there.
        model: The SentenceTransformer. It goes through the object store, and is loaded once by each actor.
        column: The column of the texts.
        output_column: The column of the embeddings, lists of fixed size; one of this name is replaced.
        concurrency: How many actors; by default as many as the cluster has room for.
        num_cpus: Cores, and threads, of each.
        num_gpus: GPUs of each.
        block_rows: How many rows a block has; of CSV and JSON files each is one block, and is read as a whole.
        shows_progress: Whether a progress bar counts blocks.
        arguments: Of ``encode``, as for ``encode_dataset``.

    Returns:
        How much was done.

    Raises:
        FileNotFoundError: There is no such file, or none of a known format in the folder.
        ImportError: Ray is not installed.
        TypeError: The model's modules do not take an argument.
        ValueError: The folder has files of another model, made with other arguments, or of files that have changed;
            it is among the folders to read; a file has no such column; an argument has no meaning here; or there
            would be no actor.

    Example:
        >>> encode_files("in/", "out/", model, num_gpus=1)  # doctest: +SKIP
        EncodedFiles(blocks=50, rows=1000000, skipped=0)
    """
    if concurrency is not None and concurrency < 1:
        raise ValueError(f"concurrency={concurrency}: expected at least 1")
    embeddings = EmbeddingColumn.of(model, column, output_column, arguments)
    folder = Location.at(output)
    paths = [paths] if isinstance(paths, str) else paths
    if any(Location.at(path).holds(folder) for path in paths):
        raise ValueError(f"output={output!r}: expected a folder outside of those that are read")
    blocks = blocks_of(paths, block_rows, embeddings.check)
    missing = _missing(blocks, folder, {**embeddings.settings, "model": fingerprint_of(model)})
    rows = cut = 0
    if missing:
        ray = connected_ray()
        resources = Resources(num_cpus, num_gpus)
        size = min(len(missing), resources.room() if concurrency is None else concurrency)
        encoder = (ShippedModel.of(model, resources), embeddings, missing, folder)
        # They lie in memory: what had to be read first would wait for a core, and the actors have all of them.
        numbers = ray.data.from_items(list(range(len(missing))), override_num_blocks=len(missing))
        receipts = numbers.map_batches(
            _BlockEncoder,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size),
            fn_constructor_args=encoder,
            num_cpus=num_cpus,
            num_gpus=num_gpus or None,
        )
        with progress_bar(len(missing), unit="block", shown=shows_progress, description="Encoding") as progress:
            for receipt in receipts.iter_rows():
                rows += int(receipt["rows"])
                cut += int(receipt["cut"])
                progress.update()
    if cut and embeddings.truncation == "warn":
        logger.warning("%s", told_of_cuts(cut, rows, embeddings.cut_texts(model).limit))
    return EncodedFiles(blocks=len(missing), rows=rows, skipped=len(blocks) - len(missing), cut=cut)


class _BlockEncoder:
    """An actor that reads blocks, and writes them with embeddings.

    Args:
        shipped: Its model.
        column: The column to add.
        blocks: All blocks.
        folder: Where to write them.
    """

    def __init__(
        self, shipped: ShippedModel, column: EmbeddingColumn, blocks: Sequence[Block], folder: Location
    ) -> None:
        self._model = shipped.loaded()
        self._column = column
        self._blocks = blocks
        self._folder = folder

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """How many rows the blocks of these numbers have, which are then written, and how many were cut."""
        counts = [self._written(self._blocks[number]) for number in batch["item"].tolist()]
        return {"rows": [rows for rows, _ in counts], "cut": [cut for _, cut in counts]}

    def _written(self, block: Block) -> tuple[int, int]:
        with _attempt(block, self._folder):
            return self._tried(block)

    def _tried(self, block: Block) -> tuple[int, int]:
        for left in reversed(range(_TRIES)):
            try:
                table = block.read(self._column.texts)
                cut = self._column.cut_texts(self._model)
                with_embeddings = self._column.added_to(table, self._model, cut)
                _write(with_embeddings, self._folder, block.output)
            except OSError:  # a store that is busy say
                if not left:
                    raise
                time.sleep(_TRIES - left)
            except Exception as error:
                raise ValueError(f"{block}: {error}") from error
            else:
                break
        return int(table.num_rows), len(cut.places)


@contextlib.contextmanager
def _attempt(block: Block, folder: Location) -> Iterator[None]:
    """Leave a mark as long as a block is in work. Ray tries again for ever what actors are lost over, for lack of
    memory say; too many marks are an error instead.
    """
    from pyarrow import fs

    start = f"_{block.output}."
    marks = [each.base_name for each in folder.files.get_file_info(fs.FileSelector(folder.path))]
    if sum(name.startswith(start) for name in marks) >= _TRIES:
        raise ValueError(f"{block}: {_TRIES} actors were lost over these rows")
    mark = folder.inside(f"{start}{uuid.uuid4().hex}{_UNFINISHED}").path
    with folder.files.open_output_stream(mark):
        pass
    yield  # a process that is killed leaves its mark, an error ends the run anyway
    for name in [mark, *(folder.inside(name).path for name in marks if name.startswith(start))]:
        with contextlib.suppress(OSError):
            folder.files.delete_file(name)


def _write(table: Any, folder: Location, name: str) -> None:
    """Write a Parquet file, which appears when it is whole; until then its name begins with an underscore, which
    Arrow takes for no data.
    """
    from pyarrow import parquet

    unfinished = folder.inside(f"_{uuid.uuid4().hex}{_UNFINISHED}").path
    try:
        parquet.write_table(table, unfinished, filesystem=folder.files)
        folder.files.move(unfinished, folder.inside(name).path)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.files.delete_file(unfinished)
        raise


def _missing(blocks: Sequence[Block], folder: Location, settings: dict[str, str]) -> list[Block]:
    """The blocks that are not in a folder, which is made, and in which nothing else may be.

    Raises:
        ValueError: It was begun in another way, or has blocks of files that have changed.
    """
    from pyarrow import fs

    folder.files.create_dir(folder.path, recursive=True)
    names = {each.base_name for each in folder.files.get_file_info(fs.FileSelector(folder.path))}
    if _SETTINGS in names:
        _check_settings(folder, settings)
    else:
        _write_settings(folder, settings)
    for name in names:
        if name.startswith("_") and name.endswith(_UNFINISHED):  # of a run that was killed
            folder.files.delete_file(folder.inside(name).path)
    wanted = {block.output for block in blocks}
    others = sorted(name for name in names - wanted if not name.startswith(("_", ".")))
    if others:
        raise ValueError(
            f"{folder.path}: has {len(others)} files of none of these blocks, {others[0]} say: files to read were "
            "changed, moved or left out since, or blocks have another size; delete them, or choose another folder"
        )
    return [block for block in blocks if block.output not in names]


def _check_settings(folder: Location, settings: dict[str, str]) -> None:
    with folder.files.open_input_file(folder.inside(_SETTINGS).path) as file:
        found = json.loads(file.read())
    differing = sorted(name for name in settings.keys() | found.keys() if settings.get(name) != found.get(name))
    if differing:
        raise ValueError(f"{folder.path}: was begun with another {', '.join(differing)}: choose another folder")


def _write_settings(folder: Location, settings: dict[str, str]) -> None:
    unfinished = folder.inside(f"_{uuid.uuid4().hex}{_UNFINISHED}").path
    with folder.files.open_output_stream(unfinished) as file:
        file.write(json.dumps(settings, indent=2).encode())
    folder.files.move(unfinished, folder.inside(_SETTINGS).path)
