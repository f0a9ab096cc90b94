"""Files and datasets, from texts to embeddings."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from sentence_embedder import SentenceTransformer
from sentence_embedder.cluster import EncodedFiles, RayPool, datasets, encode_dataset, encode_files, files
from sentence_embedder.cluster.blocks import Block, Location
from sentence_embedder.cluster.embedding_column import EmbeddingColumn
from sentence_embedder.cluster.shipped_model import ShippedModel
from sentence_embedder.encoding.nonfinite import NonFiniteError
from sentence_embedder.models import Normalize
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
        while not over.wait(0.05):
            if 3 <= len(list(output.glob("*.parquet"))) < 18:
                machines.kill_one()
                killed.set()
                return

    killed, over = threading.Event(), threading.Event()
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        done = within(240, lambda: encode_files(str(tmp_path / "in"), str(output), bert, block_rows=5_000))
    finally:
        over.set()
        thread.join()

    assert killed.is_set()
    assert done == EncodedFiles(blocks=20, rows=100_000, skipped=0)
    table = _read(output)
    assert table.column("number").to_pylist() == list(range(100_000))
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 32)
    some = np.arange(0, 100_000, 997)
    expected = bert.encode([_text(number) for number in some.tolist()])
    np.testing.assert_allclose(_embeddings(table)[some], expected, atol=3e-6, rtol=0)


@pytest.mark.usefixtures("machines")
def test_what_is_there_is_not_done_again(misbehaving: SentenceTransformer, tmp_path: Path) -> None:
    """A second run computes the blocks that are missing, and leaves the others; another model, or other arguments,
    need another folder.
    """
    _write(tmp_path / "in", "texts.parquet", range(95))
    arguments: dict[str, Any] = {"block_rows": 20, "normalize_embeddings": True}

    def encode(**more: Any) -> EncodedFiles:
        return within(
            120,
            lambda: encode_files(str(tmp_path / "in"), str(tmp_path / "out"), misbehaving, **{**arguments, **more}),
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
    with pytest.raises(ValueError, match="begun with another normalize_embeddings"):
        encode(normalize_embeddings=False)
    with pytest.raises(ValueError, match="begun with another prompt"):
        encode(prompt_name="query")
    with pytest.raises(ValueError, match="have another size"):
        encode(block_rows=50)
    other = SentenceTransformer(modules=[misbehaving[0], Normalize()], device="cpu")
    with pytest.raises(ValueError, match="begun with another model"):
        within(120, lambda: encode_files(str(tmp_path / "in"), str(tmp_path / "out"), other, **arguments))


@pytest.mark.usefixtures("machines")
def test_the_same_files_by_other_names(misbehaving: SentenceTransformer, tmp_path: Path, monkeypatch: Any) -> None:
    """However a path is written, it is the same file; one that is named twice is read once; and what a run that was
    killed left behind goes.
    """
    _write(tmp_path / "in", "texts.parquet", range(30))
    monkeypatch.chdir(tmp_path)
    out = str(tmp_path / "out")
    first = within(120, lambda: encode_files(["in", "in/texts.parquet"], out, misbehaving, block_rows=10))
    (tmp_path / "out" / "_0123.unfinished").write_bytes(b"PAR1")

    again = [str(tmp_path / "in") + "/", "./in", f"file://{tmp_path}/in"]

    assert first == EncodedFiles(blocks=3, rows=30, skipped=0)
    for path in again:
        assert encode_files(path, out, misbehaving, block_rows=10) == EncodedFiles(blocks=0, rows=0, skipped=3)
    assert not list((tmp_path / "out").glob("*.unfinished"))


@pytest.mark.usefixtures("machines")
def test_files_that_changed_are_noticed(misbehaving: SentenceTransformer, tmp_path: Path) -> None:
    """If a file was changed after it was embedded, what was made of it is not taken for what would be made now."""
    _write(tmp_path / "in", "texts.parquet", range(10))
    out = str(tmp_path / "out")
    within(120, lambda: encode_files(str(tmp_path / "in"), out, misbehaving))

    _write(tmp_path / "in", "texts.parquet", range(10, 20))

    with pytest.raises(ValueError, match="changed, moved or left out"):
        encode_files(str(tmp_path / "in"), out, misbehaving)


@pytest.mark.usefixtures("machines")
def test_what_is_no_data(
    misbehaving: SentenceTransformer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Hidden files, those of other formats and empty ones are left out; files of one name in two folders, and names
    in capitals, are not.
    """
    _write(tmp_path / "in", "texts.parquet", range(5))
    _write(tmp_path / "in" / "more", "texts.PARQUET", range(5, 8))
    _write(tmp_path / "in" / "_temporary", "texts.parquet", range(100, 105))
    for name in (".hidden.csv", "empty.csv", "notes.txt"):
        (tmp_path / "in" / name).write_text("text\nhello\n" if name == ".hidden.csv" else "", encoding="utf-8")

    done = within(120, lambda: encode_files(str(tmp_path / "in"), str(tmp_path / "out"), misbehaving))

    assert done.rows == 8
    assert _read(tmp_path / "out").column("number").to_pylist() == list(range(8))
    assert "notes.txt" in caplog.text


@pytest.mark.usefixtures("machines")
def test_texts_that_look_like_numbers(misbehaving: SentenceTransformer, tmp_path: Path) -> None:
    """In CSV and JSON a text is a text, even if all of them are numbers or dates."""
    (tmp_path / "one.csv").write_text("number,text\n0,007\n", encoding="utf-8")
    (tmp_path / "two.json").write_text('{"number": "1", "text": "2020-01-01"}\n', encoding="utf-8")
    paths = [str(tmp_path / "one.csv"), str(tmp_path / "two.json")]

    within(120, lambda: encode_files(paths, str(tmp_path / "out"), misbehaving))

    table = _read(tmp_path / "out")
    assert table.column("text").to_pylist() == ["007", "2020-01-01"]
    np.testing.assert_allclose(_embeddings(table), misbehaving.encode(["007", "2020-01-01"]), atol=3e-6, rtol=0)


@pytest.mark.usefixtures("machines")
def test_a_block_that_kills_actors_is_given_up(misbehaving: SentenceTransformer, tmp_path: Path) -> None:
    """Rows over which three actors are lost are named, in place of being tried for ever."""
    (tmp_path / "texts.csv").write_text("text\ndie\n", encoding="utf-8")

    with pytest.raises(Exception, match=r"texts\.csv: 3 actors were lost over these rows"):
        within(240, lambda: encode_files(str(tmp_path / "texts.csv"), str(tmp_path / "out"), misbehaving))


@pytest.mark.usefixtures("machines")
def test_a_row_without_a_text_is_named(misbehaving: SentenceTransformer, tmp_path: Path) -> None:
    """A row that has no text ends the run with an error that names the file and the row; other blocks are there."""
    from pyarrow import parquet

    (tmp_path / "in").mkdir()
    parquet.write_table(pa.table({"text": ["a", "b", None]}), tmp_path / "in" / "texts.parquet")

    with pytest.raises(
        Exception, match=r"texts\.parquet, rows 2 to 2: column 'text': expected texts, found none in"
    ):
        within(120, lambda: encode_files(str(tmp_path / "in"), str(tmp_path / "out"), misbehaving, block_rows=1))


@pytest.mark.usefixtures("machines")
def test_texts_that_are_cut_are_counted(
    bert: SentenceTransformer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A run says how many texts the model has read only in part; or it ends, with the row."""
    from pyarrow import parquet

    (tmp_path / "in").mkdir()
    texts = ["the cat", "the cat " * 100, "a dog", "a dog " * 100]
    parquet.write_table(pa.table({"text": texts}), tmp_path / "in" / "texts.parquet")

    def encode(out: str, **arguments: Any) -> EncodedFiles:
        return within(
            120, lambda: encode_files(str(tmp_path / "in"), str(tmp_path / out), bert, block_rows=2, **arguments)
        )

    assert encode("out") == EncodedFiles(blocks=2, rows=4, skipped=0, cut=2)
    assert f"2 of 4 texts were cut to {bert.max_seq_length} tokens" in caplog.text
    with pytest.raises(Exception, match=r"rows \d to \d: row 1: expected a text of no more than"):
        encode("other", truncation="error")


def test_a_column_of_a_calibrated_model(tiny_folders: dict[str, Path]) -> None:
    """A model that is calibrated makes bytes of each table as of all."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    texts = ["the cat sat", "a dog", "hello world"]
    model.calibrate(texts)
    column = EmbeddingColumn.of(model, "text", "embedding", {"precision": "uint8"})

    made = column.added_to(pa.table({"text": texts[:1]}), model, column.cut_texts(model))

    expected = model.encode(texts, precision="uint8")[:1]
    assert np.abs(_embeddings(made).astype(int) - expected).max() <= 1


def test_rows_of_a_column_that_are_not_finite(tiny_folders: dict[str, Path]) -> None:
    """If they are to be an error, it names them; else they are NaN."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    with torch.no_grad():
        weights = model[0].auto_model.get_input_embeddings().weight
        weights[model.tokenizer.convert_tokens_to_ids("red")] = float("nan")
    table = pa.table({"text": ["a dog", "a red dog"]})

    column = EmbeddingColumn.of(model, "text", "embedding", {"on_nonfinite": "raise"})
    with pytest.raises(NonFiniteError, match="row 1"):
        column.added_to(table, model, column.cut_texts(model))
    column = EmbeddingColumn.of(model, "text", "embedding", {})
    made = column.added_to(table, model, column.cut_texts(model))
    assert np.isnan(_embeddings(made)).any(axis=1).tolist() == [False, True]


def test_tables_of_a_dataset_tell_once_of_cuts(bert: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    """An actor logs what it has cut of its first such table, and nothing where it is not to warn."""

    class Here:
        def loaded(self) -> SentenceTransformer:
            return bert

    table = pa.table({"text": ["the cat " * 100, "a dog"]})
    for truncation in ("warn", "ignore"):
        column = EmbeddingColumn.of(bert, "text", "embedding", {"truncation": truncation})
        encoder = datasets._TableEncoder(cast("ShippedModel", Here()), column)
        made = [encoder(table) for _ in range(2)]
        assert [each.column_names for each in made] == [["text", "embedding"]] * 2

    assert caplog.text.count("1 of 2 texts were cut") == 1


@pytest.mark.usefixtures("machines")
def test_csv_and_json(misbehaving: SentenceTransformer, tmp_path: Path) -> None:
    """CSV files, and JSON with an object a line, are read, too; the columns can have other names."""
    (tmp_path / "one.csv").write_text("number,body\n0,hello\n1,the cat\n", encoding="utf-8")
    (tmp_path / "two.jsonl").write_text('{"number": "2", "body": "hello world"}\n', encoding="utf-8")
    paths = [str(tmp_path / "one.csv"), str(tmp_path / "two.jsonl")]

    done = within(
        120, lambda: encode_files(paths, str(tmp_path / "out"), misbehaving, column="body", prompt_name="query")
    )

    assert done.rows == 3
    expected = misbehaving.encode(["hello", "the cat", "hello world"], prompt_name="query")
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
    ({"prompt_name": "missing"}, "prompt_name"),
    ({"output_column": "text"}, "output_column"),
    ({"convert_to_tensor": True, "out": None}, "convert_to_tensor, out"),
    ({"batch_size": 0}, "batch_size"),
    ({"precision": "int4"}, "precision"),
]


@pytest.mark.parametrize(("arguments", "match"), UNFIT, ids=lambda value: str(value))
def test_arguments_are_checked_before_any_work(
    bert: SentenceTransformer,
    tmp_path: Path,
    arguments: dict[str, Any],
    match: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What has no meaning for a column of embeddings is refused before a cluster is looked for."""
    for module in (datasets, files):
        monkeypatch.setattr(module, "connected_ray", None)
    with pytest.raises(ValueError, match=match):
        encode_files(str(tmp_path), str(tmp_path), bert, **arguments)
    with pytest.raises(ValueError, match=match):
        encode_dataset(None, bert, **arguments)


def test_what_cannot_be_read_is_named(bert: SentenceTransformer, tmp_path: Path) -> None:
    """A folder without files of a known format, a path that leads nowhere, a column that is not there and a folder
    that would be read itself are named; nothing is written then.
    """
    _write(tmp_path / "good", "texts.parquet", range(5))
    with pytest.raises(ValueError, match=r"texts\.parquet: column='body': expected one of"):
        encode_files(str(tmp_path / "good"), str(tmp_path / "out"), bert, column="body")
    with pytest.raises(ValueError, match="outside of those that are read"):
        encode_files(str(tmp_path / "good"), str(tmp_path / "good" / "out"), bert)
    with pytest.raises(ValueError, match="block_rows"):
        encode_files(str(tmp_path / "good"), str(tmp_path / "out"), bert, block_rows=0)
    with pytest.raises(TypeError, match="no such argument"):
        encode_files(str(tmp_path / "good"), str(tmp_path / "out"), bert, normalise_embeddings=True)
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "in", tmp_path / "nowhere.csv"):
        with pytest.raises(FileNotFoundError, match=path.name):
            encode_files(str(path), str(tmp_path / "out"), bert)
    assert not (tmp_path / "out").exists()


def test_rows_of_row_groups(tmp_path: Path) -> None:
    """However blocks lie over the row groups of a file, each has its own rows."""
    _write(tmp_path, "texts.parquet", range(40_000), row_group_size=17_000)
    file = Location.at(str(tmp_path / "texts.parquet"))
    for start, stop in ((0, 40_000), (16_999, 17_001), (17_000, 34_000), (33_999, 40_000), (5, 6)):
        table = Block(file, start, stop, "unused").read("text")
        assert table.column("number").to_pylist() == list(range(start, stop))
    with pytest.raises(ValueError, match="expected 10 rows, found 0: it has changed"):
        Block(file, 40_000, 40_010, "unused").read("text")


def test_columns_of_csv_stay_as_they_are(tmp_path: Path) -> None:
    """What looks like a number in a CSV file is not made one: of a postcode no digit is lost."""
    (tmp_path / "texts.csv").write_text('\ufeff\ncode,"a, b",text\n01234,1.10,hello\n', encoding="utf-8")

    table = Block(Location.at(str(tmp_path / "texts.csv")), 0, -1, "unused").read("text")

    assert table.to_pylist() == [{"code": "01234", "a, b": "1.10", "text": "hello"}]


def test_long_rows_and_rows_of_several_lines(tmp_path: Path) -> None:
    """A row may be longer than what a file is otherwise parsed in, and have several lines."""
    texts = [f"one {number}\n\ntwo" for number in range(60_000)] + ["word " * 500_000]
    with (tmp_path / "texts.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["text"], *([text] for text in texts)])
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")

    for name in ("texts.csv", "texts.jsonl"):
        table = Block(Location.at(str(tmp_path / name)), 0, -1, "unused").read("text")
        assert table.column("text").to_pylist() == texts


@pytest.mark.usefixtures("machines")
def test_actors_that_leave_no_core(bert: SentenceTransformer) -> None:
    """Actors that would take all cores, so that nothing could be read, or that fit on no machine, are refused."""
    import ray

    dataset = ray.data.from_items([{"text": "a"}])
    for concurrency in (0, 2):
        with pytest.raises(ValueError, match=f"concurrency={concurrency}"):
            encode_dataset(dataset, bert, concurrency=concurrency)
    with pytest.raises(ValueError, match="concurrency=0"):
        encode_files("in", "out", bert, concurrency=0)
    with pytest.raises(ValueError, match="expected a machine with"):
        RayPool(bert, num_cpus=2)
