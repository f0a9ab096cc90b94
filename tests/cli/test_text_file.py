"""Files of texts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from sentence_embedder.cli.text_file import TextFile, in_chunks
from sentence_embedder.cli.usage_error import UsageError

AWKWARD = ["", "plain", 'with "quotes", commas', "a\u2028b", " spaces ", "naïve 模型"]


def _written(path: Path, texts: list[str]) -> Path:
    suffix = path.suffix
    if suffix == ".parquet":
        parquet.write_table(pyarrow.table({"number": range(len(texts)), "text": texts}), path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({"number": n, "text": t}) + "\n" for n, t in enumerate(texts)))
    elif suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    else:
        quoted = ('"' + text.replace('"', '""') + '"' for text in texts)
        mark = "\t" if suffix == ".tsv" else ","
        lines = [f"number{mark}text", *(f"{number}{mark}{text}" for number, text in enumerate(quoted))]
        path.write_text("\n".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl", ".parquet", ".JSONL"])
def test_every_format_gives_the_same_texts(suffix: str, tmp_path: Path) -> None:
    """Whatever the format, the texts are those that were written, empty ones too, and are counted."""
    path = _written(tmp_path / f"in{suffix.lower()}", AWKWARD).rename(tmp_path / f"in{suffix}")
    file = TextFile(path)

    assert list(file.texts()) == AWKWARD
    assert file.count() == len(AWKWARD)
    assert [record["text"] for record in file.records()] == AWKWARD


@pytest.mark.parametrize("content", ["a\r\nb\r\n", "a\nb", "\ufeffa\nb\n"])
def test_lines_end_in_any_way(content: str, tmp_path: Path) -> None:
    """Windows' ends of lines, a missing last one, and a byte order mark are no part of a text."""
    path = tmp_path / "in.txt"
    path.write_bytes(content.encode())

    assert list(TextFile(path).texts()) == ["a", "b"]


def test_a_field_may_have_lines_and_be_long(tmp_path: Path) -> None:
    """A field of a CSV file may have lines, and more characters than the csv module takes by itself."""
    long = "word " * 50_000
    path = tmp_path / "in.csv"
    path.write_text(f'text\n"one\ntwo"\n"{long}"\n')

    assert list(TextFile(path).texts()) == ["one\ntwo", long]


def test_lines_of_json_may_be_texts(tmp_path: Path) -> None:
    """A line of JSON may be a text; an empty line is nothing."""
    path = tmp_path / "in.jsonl"
    path.write_text('"one"\n\n"two"\n')

    assert list(TextFile(path).texts()) == ["one", "two"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_column_is_named_or_obvious(suffix: str, tmp_path: Path) -> None:
    """The column is that which is named, else the only one, else ``text``; no other is guessed."""
    file = TextFile(_written(tmp_path / f"in{suffix}", ["one"]), "missing")

    with pytest.raises(ValueError, match=r"expected a column 'missing', found \['number', 'text'\]: name one"):
        list(file.texts())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.jsonl", '{"text": "a"}\n{"text": 3}\n', r"row 1: expected a text in 'text', found int"),
        ("in.jsonl", '{"text": null}\n', r"row 0: expected a text in 'text', found nothing"),
        ("in.jsonl", '{"text": "a"}\n{"other": "b"}\n', r"row 1: expected a column 'text'"),
        ("in.jsonl", '{"text": "a"}\n{"text\n', r"line 2: expected JSON"),
        ("in.jsonl", "[1]\n", r"line 1: expected an object or a text"),
        ("in.csv", "text,other\na\n", r"line 2: expected 2 fields, as in the first line, found 1"),
        ("in.csv", "text,text\na,b\n", r"expected a name a column"),
        ("in.csv", 'text\n"a" b\n', r"expected a table of .csv"),
        ("in.txt", b"\xff\n", r"expected UTF-8, found the byte 0xff"),
    ],
)
def test_what_is_no_text_is_named(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    """A row without a text, and a file that cannot be read, are errors that say where."""
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)

    with pytest.raises(ValueError, match=message):
        list(TextFile(path).texts())


def test_other_formats_are_refused() -> None:
    """A suffix of no known format, and a column of a file without columns, are errors at once."""
    with pytest.raises(UsageError, match=r"in\.doc: expected a file that ends in \.txt"):
        TextFile(Path("in.doc"))
    with pytest.raises(UsageError, match="has a text a line, and no columns"):
        TextFile(Path("in.txt"), "text")


def test_a_file_is_read_as_it_is_needed(tmp_path: Path) -> None:
    """Of a large file no more is read than is asked for."""
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "good"}\n' * 3 + "no JSON\n")

    assert list(itertools.islice(TextFile(path).texts(), 3)) == ["good"] * 3


def test_chunks_are_bounded() -> None:
    """A chunk has so many texts, or fewer if these are long."""
    assert list(in_chunks(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(in_chunks(iter(["x" * 2**20, "y", "z"]), 5)) == [["x" * 2**20], ["y", "z"]]
    assert list(in_chunks(iter([]), 5)) == []


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """One would be taken for the other."""
    columns = [pyarrow.array(["a"]), pyarrow.array([1]), pyarrow.array([2])]
    parquet.write_table(pyarrow.Table.from_arrays(columns, names=["text", "n", "n"]), tmp_path / "in.parquet")

    with pytest.raises(ValueError, match=r"expected a name a column, found \['text', 'n', 'n'\]"):
        list(TextFile(tmp_path / "in.parquet").texts())
