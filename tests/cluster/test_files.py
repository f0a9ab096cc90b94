"""Files and datasets, from texts to embeddings."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from sentence_embedder.cluster import EncodedFiles, encode_dataset, encode_files
from tests.cluster.conftest import Machines
from tests.pool.deadline import within

pa = pytest.importorskip("pyarrow")
pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore")]


def _text(number: int) -> str:
    return f"the cat sat on mat number {number}"


def _write(folder: Path, name: str, numbers: range, **options: Any) -> None:
    """A Parquet file with so many numbered texts."""
    from pyarrow import parquet

    folder.mkdir(exist_ok=True)
    table = pa.table({"number": numbers, "text": [_text(number) for number in numbers]})
    parquet.write_table(table, folder / name, **options)


def _read(folder: Path) -> Any:
    """All rows that were written, by their numbers."""
    from pyarrow import parquet

    return parquet.read_table(folder).sort_by("number")


def _embeddings(table: Any) -> Any:
    column = table.column("embedding").combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def test_a_hundred_thousand_rows_and_a_machine_killed(
    bert: SentenceTransformer, machines: Machines, tmp_path: Path
) -> None:
    """Of a hundred thousand rows from Parquet to Parquet none is lost, and none there twice, when a machine is
    killed on the way; and every row has the embedding of its text.
    """
    for start in (0, 60_000):
        _write(
            tmp_path / "in", f"{start}.parquet", range(start, min(start + 60_000, 100_000)), row_group_size=7_000
        )
    output = tmp_path / "out"

    def kill() -> None:
        while len(list(output.glob("*.parquet"))) < 3:
            killed.wait(0.05)
        machines.kill_one()
        killed.set()

    killed = threading.Event()
    threading.Thread(target=kill, daemon=True).start()
    done = within(240, lambda: encode_files(str(tmp_path / "in"), str(output), bert, block_rows=5_000))

    assert killed.is_set()
    assert done == EncodedFiles(blocks=20, rows=100_000, skipped=0)
    table = _read(output)
    assert table.column("number").to_pylist() == list(range(100_000))
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    some = np.arange(0, 100_000, 997)
    expected = bert.encode([_text(number) for number in some.tolist()])
    np.testing.assert_allclose(_embeddings(table)[some], expected, atol=3e-6, rtol=0)
    assert not list(output.glob("*.unfinished"))


@pytest.mark.usefixtures("machines")
def test_what_is_there_is_not_done_again(bert: SentenceTransformer, tmp_path: Path) -> None:
    """A second run computes the blocks that are missing, and leaves the others; another model, or other arguments,
    need another folder.
    """
    _write(tmp_path / "in", "texts.parquet", range(95))
    arguments: dict[str, Any] = {"block_rows": 20, "normalize_embeddings": True}

    def encode(**more: Any) -> EncodedFiles:
        return within(
            120, lambda: encode_files(str(tmp_path / "in"), str(tmp_path / "out"), bert, **{**arguments, **more})
        )

    assert encode() == EncodedFiles(blocks=5, rows=95, skipped=0)
    written = sorted((tmp_path / "out").glob("*.parquet"))
    times = [path.stat().st_mtime_ns for path in written]
    written[2].unlink()

    assert encode() == EncodedFiles(blocks=1, rows=20, skipped=4)

    again = [path.stat().st_mtime_ns for path in written]
    assert [before == after for before, after in zip(times, again, strict=True)] == [True, True, False, True, True]
    assert _read(tmp_path / "out").column("number").to_pylist() == list(range(95))
    assert encode() == EncodedFiles(blocks=0, rows=0, skipped=5)
    with pytest.raises(ValueError, match="begun with another arguments"):
        encode(normalize_embeddings=False)


@pytest.mark.usefixtures("machines")
def test_csv_and_json(bert: SentenceTransformer, tmp_path: Path) -> None:
    """CSV files, and JSON with an object a line, are read, too; the columns can have other names."""
    (tmp_path / "one.csv").write_text("number,body\n0,hello\n1,the cat\n", encoding="utf-8")
    (tmp_path / "two.jsonl").write_text('{"number": 2, "body": "hello world"}\n', encoding="utf-8")
    paths = [str(tmp_path / "one.csv"), str(tmp_path / "two.jsonl")]

    done = within(120, lambda: encode_files(paths, str(tmp_path / "out"), bert, column="body", prompt_name="query"))

    assert done.rows == 3
    expected = bert.encode(["hello", "the cat", "hello world"], prompt_name="query")
    np.testing.assert_allclose(_embeddings(_read(tmp_path / "out")), expected, atol=3e-6, rtol=0)


@pytest.mark.usefixtures("machines")
def test_a_dataset_gets_a_column(bert: SentenceTransformer, tmp_path: Path) -> None:
    """A dataset of Ray has the embeddings in a column more, of lists of fixed size, in the format that is asked
    for.
    """
    import ray

    _write(tmp_path / "in", "texts.parquet", range(50))

    def encode() -> Any:
        dataset = encode_dataset(
            ray.data.read_parquet(str(tmp_path / "in")), bert, rows_at_once=20, precision="ubinary"
        )
        dataset.write_parquet(str(tmp_path / "out"))
        return _read(tmp_path / "out")

    table = within(120, encode)

    assert table.schema.field("embedding").type == pa.list_(pa.uint8(), 4)
    expected = bert.encode([_text(number) for number in range(50)], precision="ubinary")
    assert (np.unpackbits(_embeddings(table) ^ expected).mean()) < 1e-3


UNFIT = [
    ({"precision": "int8"}, "needs no look at all embeddings"),
    ({"output_value": None}, "output_value"),
    ({"convert_to_tensor": True, "out": None}, "convert_to_tensor, out"),
    ({"batch_size": 0}, "batch_size"),
    ({"precision": "int4"}, "precision"),
]


@pytest.mark.parametrize(("arguments", "match"), UNFIT, ids=lambda value: str(value))
def test_arguments_are_checked_before_any_work(
    bert: SentenceTransformer, tmp_path: Path, arguments: dict[str, Any], match: str
) -> None:
    """What has no meaning for a column of embeddings is refused before a cluster is looked for."""
    with pytest.raises(ValueError, match=match):
        encode_files(str(tmp_path), str(tmp_path), bert, **arguments)
    with pytest.raises(ValueError, match=match):
        encode_dataset(None, bert, **arguments)


@pytest.mark.usefixtures("machines")
def test_files_that_are_not_there(bert: SentenceTransformer, tmp_path: Path) -> None:
    """A folder without files of a known format, and a path that leads nowhere, are named."""
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "in", tmp_path / "nowhere.csv"):
        with pytest.raises(FileNotFoundError, match=path.name):
            encode_files(str(path), str(tmp_path / "out"), bert)
