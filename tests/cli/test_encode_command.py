"""The command ``encode``."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from numpy.testing import assert_array_equal
from pyarrow import parquet

from sentence_embedder import SentenceTransformer
from sentence_embedder.cli.journal import Journal
from sentence_embedder.cli.model_options import load_model
from tests.cli.conftest import TEXTS, Run


def _read(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".parquet":
        return np.stack(parquet.read_table(path)["embedding"].to_pylist())
    return np.array([json.loads(line)["embedding"] for line in path.read_text(encoding="utf-8").splitlines()])


def _left(folder: Path) -> list[str]:
    """What lies hidden in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
@pytest.mark.parametrize("precision", ["float32", "int8", "uint8", "binary", "ubinary"])
def test_every_format_has_what_encode_returns(
    suffix: str, precision: Any, run: Run, bert: Path, texts: Path, model: SentenceTransformer
) -> None:
    """A file of any format has the embeddings of ``encode``, in any precision, though it is made in chunks."""
    output = texts.with_name(f"out{suffix}")

    done = run("encode", texts, output, "--model", bert, "--precision", precision, "--save-every", 5)

    assert (done.code, done.out) == (0, "")
    assert done.err.startswith(f"{output}: 18 texts, in ")
    found = _read(output).astype(np.float32)
    expected = model.encode(TEXTS, precision=precision).astype(np.float32)
    exact = precision in ("binary", "ubinary")
    np.testing.assert_allclose(found, expected, atol=0 if exact else 1e-5 if precision == "float32" else 1)
    assert _left(texts.parent) == []


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--normalize"], {"normalize_embeddings": True}),
        (["--truncate-dim", "8"], {"truncate_dim": 8}),
        (["--prompt-name", "query"], {"prompt_name": "query"}),
        (["--prompt", "what is "], {"prompt": "what is "}),
        (["--batch-size", "1"], {"batch_size": 1}),
    ],
)
def test_options_are_those_of_encode(
    options: list[str],
    arguments: dict[str, Any],
    run: Run,
    bert: Path,
    texts: Path,
    model: SentenceTransformer,
) -> None:
    """What is asked for on the command line, ``encode`` is asked for."""
    output = texts.with_name("out.npy")

    assert run("encode", texts, output, "--model", bert, *options).code == 0

    np.testing.assert_allclose(np.load(output), model.encode(TEXTS, **arguments), atol=1e-6)


@pytest.mark.parametrize("kind", ["query", "document"])
def test_queries_and_documents_have_their_prompts(
    kind: str, run: Run, bert: Path, texts: Path, model: SentenceTransformer
) -> None:
    """``--query`` and ``--document`` are ``encode_query`` and ``encode_document``."""
    output = texts.with_name("out.npy")

    assert run("encode", texts, output, "--model", bert, f"--{kind}").code == 0

    np.testing.assert_allclose(np.load(output), getattr(model, f"encode_{kind}")(TEXTS), atol=1e-6)


def test_rows_keep_their_columns(run: Run, bert: Path, tmp_path: Path) -> None:
    """A table keeps its columns and their types, and gets one more; an older one of its name is replaced."""
    table = pyarrow.table(
        {"id": pyarrow.array([7, 8], pyarrow.int16()), "title": ["a cat", "a dog"], "embedding": ["old", "old"]}
    )
    parquet.write_table(table, tmp_path / "in.parquet")

    done = run("encode", tmp_path / "in.parquet", tmp_path / "out.parquet", "--model", bert, "--column", "title")
    assert done.code == 0
    done = run("encode", tmp_path / "in.parquet", tmp_path / "out.jsonl", "--model", bert, "--column", "title")
    assert done.code == 0

    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.drop_columns(["embedding"]).equals(table.drop_columns(["embedding"]))
    assert found.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 32)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["id"], row["title"]) for row in rows] == [(7, "a cat"), (8, "a dog")]
    assert_array_equal(np.array([row["embedding"] for row in rows], np.float32), _read(tmp_path / "out.parquet"))


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_no_texts_make_a_file_of_none(suffix: str, run: Run, bert: Path, tmp_path: Path) -> None:
    """A file without texts becomes a file without embeddings."""
    (tmp_path / "in.txt").touch()

    assert run("encode", tmp_path / "in.txt", tmp_path / f"out{suffix}", "--model", bert).code == 0

    if suffix == ".npy":
        assert np.load(tmp_path / "out.npy").shape == (0, 32)
    elif suffix == ".jsonl":
        assert (tmp_path / "out.jsonl").read_text() == ""
    else:
        assert parquet.read_table(tmp_path / "out.parquet").num_rows == 0


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_without_rows_keeps_its_columns(suffix: str, run: Run, bert: Path, tmp_path: Path) -> None:
    """Of a table of a header alone the columns are there, whatever rows there will be another time."""
    delimiter = {".csv": ",", ".tsv": "\t"}[suffix]
    (tmp_path / f"in{suffix}").write_text(f"id{delimiter}text\n", encoding="utf-8")

    assert run("encode", tmp_path / f"in{suffix}", tmp_path / "out.parquet", "--model", bert).code == 0

    schema = parquet.read_schema(tmp_path / "out.parquet")
    assert schema.names == ["id", "text", "embedding"]
    assert schema.field("text").type == pyarrow.string()


# ── Interruptions ─────────────────────────────────────────────────────────────────────────────────────────────


class _Stop(KeyboardInterrupt):
    """Ctrl-C at a moment that the test has chosen."""


def _stopping_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let the program end when it makes sure for the nth time that something is on the disk; how often it did."""
    steps = 0
    flush = os.fsync

    def fsync(file: int) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            raise _Stop
        flush(file)

    monkeypatch.setattr("sentence_embedder.cli.journal.os.fsync", fsync)
    return lambda: steps


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_whenever_it_ends_it_goes_on(
    suffix: str, run: Run, bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted at whatever step, the same command makes the same file, bit for bit, and leaves nothing else."""
    whole, output = texts.with_name(f"whole{suffix}"), texts.with_name(f"out{suffix}")
    arguments = ("--model", bert, "--save-every", 5, "--precision", "int8")
    with monkeypatch.context() as patch:
        steps = _stopping_at(0, patch)
        assert run("encode", texts, whole, *arguments).code == 0
    count = steps()
    assert count > 10

    for step in range(1, count):
        with monkeypatch.context() as patch:
            _stopping_at(step, patch)
            done = run("encode", texts, output, *arguments)
            assert done.code == 130
            assert "the same command goes on where it was" in done.err
            assert not output.exists()

        assert run("encode", texts, output, *arguments).code == 0
        assert output.read_bytes() == whole.read_bytes()
        assert _left(texts.parent) == []
        output.unlink()


def test_the_last_step_is_not_done_twice(
    run: Run, bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that ended when the file had its name already is followed by one that only tidies up."""
    output = texts.with_name("out.npy")
    with monkeypatch.context() as patch:
        patch.setattr("sentence_embedder.cli.journal.shutil.rmtree", _raise_stop)
        assert run("encode", texts, output, "--model", bert).code == 130
    before = output.stat().st_mtime_ns

    assert run("encode", texts, output, "--model", bert).code == 0

    assert output.stat().st_mtime_ns == before
    assert _left(texts.parent) == []


def _raise_stop(*_: object, **__: object) -> None:
    raise _Stop


def _begun(run: Run, texts: Path, output: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a run that is half done."""
    with monkeypatch.context() as patch:
        _stopping_at(9, patch)
        assert run("encode", texts, output, "--model", bert, "--save-every", 5).code == 130


def test_what_is_half_written_does_not_count(
    run: Run, bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands behind the embeddings that are safe, as of a chunk that was cut off, is written anew."""
    output, whole = texts.with_name("out.npy"), texts.with_name("whole.npy")
    _begun(run, texts, output, bert, monkeypatch)
    (rows,) = texts.parent.glob(".out.npy.encoding/rows")
    with rows.open("ab") as file:
        file.write(b"\xff" * 1001)

    assert run("encode", texts, output, "--model", bert, "--save-every", 5).code == 0
    assert run("encode", texts, whole, "--model", bert, "--save-every", 5).code == 0

    assert output.read_bytes() == whole.read_bytes()


def test_other_arguments_do_not_go_on(run: Run, bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was begun with other arguments, or of a file that has changed, is kept unless it may go."""
    output = texts.with_name("out.npy")
    _begun(run, texts, output, bert, monkeypatch)
    arguments = ("encode", texts, output, "--model", bert, "--save-every", 5)

    done = run(*arguments, "--normalize")
    assert done.code == 1
    assert "was begun with another normalize_embeddings: give --overwrite" in done.err

    with texts.open("a") as file:
        file.write("one more\n")
    done = run(*arguments)
    assert done.code == 1
    assert "was begun with another input: give --overwrite" in done.err

    assert run(*arguments, "--overwrite").code == 0
    assert len(np.load(output)) == len(TEXTS) + 1


def test_a_file_that_is_there_stays(run: Run, bert: Path, texts: Path) -> None:
    """A file of the name of the output is replaced only if that is said, and whole until then."""
    output = texts.with_name("out.npy")
    output.write_bytes(b"precious")

    done = run("encode", texts, output, "--model", bert)

    assert done.code == 1
    assert "is there already: give --overwrite" in done.err
    assert output.read_bytes() == b"precious"
    assert run("encode", texts, output, "--model", bert, "--overwrite").code == 0
    assert len(np.load(output)) == len(TEXTS)


@pytest.mark.parametrize("options", [[], ["--overwrite"]])
def test_a_folder_is_not_replaced(
    options: list[str], run: Run, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a folder is, no file can be; that is told before anything is computed."""
    monkeypatch.setattr(SentenceTransformer, "encode", _raise_stop)
    (tmp_path / "out.npy").mkdir()

    done = run("encode", texts, tmp_path / "out.npy", "--model", "nowhere/at-all", *options)

    assert done.code != 0
    assert "expected a file, found a folder: give another name" in done.err


def test_bytes_of_one_text_are_refused_first(
    run: Run, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single embedding has no ranges to make bytes by; that is told before it is computed."""
    monkeypatch.setattr(SentenceTransformer, "encode", _raise_stop)
    (tmp_path / "in.txt").write_text("hello\n", encoding="utf-8")

    done = run("encode", tmp_path / "in.txt", tmp_path / "out.npy", "--model", bert, "--precision", "int8")

    assert done.code != 0
    assert "int8 needs the range of each dimension" in done.err
    assert _left(tmp_path) == []


def test_a_change_meanwhile_is_an_error(run: Run, bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes while it is read makes no output."""
    encode = SentenceTransformer.encode

    def encode_late(self: SentenceTransformer, *args: Any, **kwargs: Any) -> Any:
        with texts.open("a") as file:
            file.write("one more\n")
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "encode", encode_late)

    done = run("encode", texts, texts.with_name("out.npy"), "--model", bert)

    assert done.code == 1
    assert "was changed meanwhile" in done.err
    assert not texts.with_name("out.npy").exists()


def test_an_error_at_the_start_leaves_nothing(run: Run, bert: Path, tmp_path: Path) -> None:
    """Where nothing was encoded, nothing is left behind."""
    (tmp_path / "in.jsonl").write_text('{"text": 1}\n')

    done = run("encode", tmp_path / "in.jsonl", tmp_path / "out.npy", "--model", bert)

    assert done.code == 1
    assert "row 0: expected a text in 'text', found int" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# ── Processes ─────────────────────────────────────────────────────────────────────────────────────────────────


def _started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "sentence_embedder", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def _wait_for_rows(process: subprocess.Popen[str], output: Path, least: int) -> None:
    """Wait until so many embeddings are safe."""
    state = output.with_name(f".{output.name}.encoding") / "state.json"
    while process.poll() is None:
        if state.exists() and json.loads(state.read_text())["rows"] >= least:
            return
        time.sleep(0.002)
    raise AssertionError(f"it ended too early: {process.communicate()[1]}")


@pytest.fixture
def many_texts(tmp_path: Path) -> Path:
    """A file of texts that takes a few seconds."""
    path = tmp_path / "many.txt"
    path.write_text("".join(f"{TEXTS[n % len(TEXTS)]} {n}\n" for n in range(3000)))
    return path


def test_killed_it_goes_on(many_texts: Path, run: Run, bert: Path) -> None:
    """Killed three times, by the signal that nobody can catch, it ends with the file of one uninterrupted run."""
    output, whole = many_texts.with_name("out.npy"), many_texts.with_name("whole.npy")
    arguments = ("encode", many_texts, output, "--model", bert, "--save-every", 10)
    for least in (1, 500, 1000):
        process = _started(*arguments)
        _wait_for_rows(process, output, least)
        process.kill()
        process.communicate()
        assert not output.exists()

    done = run(*arguments)

    assert done.code == 0
    assert "of them before" in done.err
    assert run("encode", many_texts, whole, "--model", bert, "--save-every", 10).code == 0
    assert output.read_bytes() == whole.read_bytes()


def test_one_process_writes(many_texts: Path, run: Run, bert: Path) -> None:
    """A second process is told that there is a first one, which goes on; Ctrl-C ends that with a line and 130."""
    output = many_texts.with_name("out.npy")
    arguments = ("encode", many_texts, output, "--model", bert, "--save-every", 10, "--document")
    process = _started(*arguments)
    _wait_for_rows(process, output, 1)
    process.send_signal(signal.SIGSTOP)  # so that it is still at it, however long the second one takes

    done = run(*arguments)
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)

    assert done.code == 1
    assert "another process is writing it" in done.err
    assert process.returncode == 130
    assert error == "sentence-embedder: interrupted: the same command goes on where it was\n"


def test_a_lock_that_was_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens the lock while the process that had it removes it with its folder takes another one."""
    fcntl = pytest.importorskip("fcntl")
    journal = Journal(tmp_path / "out.npy")
    take, taken = fcntl.flock, list[Any]()

    def removed_before(file: Any, flags: int) -> None:
        if not taken:
            shutil.rmtree(journal.folder)
        taken.append(file)
        take(file, flags)

    monkeypatch.setattr(fcntl, "flock", removed_before)

    with journal.opened({}, overwrite=False):
        assert len(taken) == 2
        assert (journal.folder / "lock").exists()
        with (
            pytest.raises(FileExistsError, match="another process is writing it"),
            Journal(tmp_path / "out.npy").opened({}, overwrite=False),
        ):
            pass


# ── Ray ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["in.parquet", "out", "--query"], "does not take --query"),
        (["in.parquet", "out", "--precision", "int8", "--overwrite"], "does not take --overwrite, --precision"),
        (["in.parquet", "out", "--save-every", "4096"], "does not take --save-every"),
        (["in.parquet", "out.npy"], "writes a folder of Parquet files"),
        (["in.txt", "out"], r"reads .parquet, .csv, .json"),
    ],
)
def test_what_ray_does_not_do_is_told(arguments: list[str], message: str, run: Run) -> None:
    """What a cluster does not do is wrong usage, and said before anything is loaded."""
    done = run("encode", *arguments, "--engine", "ray")

    assert done.code == 2
    assert message in done.err


def test_a_calibrated_model_has_its_own_ranges(run: Run, bert: Path, texts: Path, tmp_path: Path) -> None:
    """Bytes are then those of ``encode``, whatever else is in the file."""
    model = SentenceTransformer(str(bert), device="cpu")
    model.calibrate([f"the cat sat in {word}" for word in ("paris", "london", "a text")], prompt="")
    model.save(str(tmp_path / "calibrated"))
    output = tmp_path / "out.npy"

    done = run("encode", texts, output, "--model", tmp_path / "calibrated", "--precision", "int8")

    assert done.code == 0, done.err
    expected = model.encode(TEXTS, precision="int8")
    assert np.abs(np.load(output).astype(int) - expected).max() <= 1
    ranges = model.encode([*TEXTS, "what"], precision="float32")
    assert model.calibration is not None
    assert (ranges.min(axis=0) < model.calibration.ranges[0]).any()  # its ranges are not those of the file


def test_texts_that_are_cut_are_counted(run: Run, bert: Path, tmp_path: Path) -> None:
    """At the end one is told how many texts the model has read only in part; or the row of the file is named."""
    texts, output = tmp_path / "texts.txt", tmp_path / "out.npy"
    texts.write_text("the cat\n" + "the cat " * 100 + "\na dog\n" + "a dog " * 100 + "\n", encoding="utf-8")
    limit = SentenceTransformer(str(bert), device="cpu").max_seq_length

    refused = run("encode", texts, output, "--model", bert, "--truncation", "error", "--save-every", 1)
    done = run("encode", texts, output, "--model", bert, "--save-every", 1)

    assert refused.code == 1
    assert f"row 1: expected a text of no more than {limit} tokens" in refused.err
    assert done.code == 0
    assert "4 texts, 1 of them before" in done.err  # the one before the row that was refused
    assert f"2 of 4 texts were cut to {limit} tokens" in done.err


def test_cuts_are_known_after_an_interruption(
    run: Run, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was cut before it is counted at the end, and is an error for who wants no text to be cut."""
    texts, output = tmp_path / "texts.txt", tmp_path / "out.npy"
    texts.write_text("the cat " * 100 + "\nthe cat" * 4, encoding="utf-8")
    arguments = ("encode", texts, output, "--model", bert, "--save-every", 1)
    with monkeypatch.context() as patch:
        _stopping_at(9, patch)
        assert run(*arguments).code == 130

    strict = run(*arguments, "--truncation", "error")
    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformer, "get_max_seq_length", lambda _: None)
        unlimited = run(*arguments, "--truncation", "error")
    done = run(*arguments)

    assert strict.code == unlimited.code == 1
    assert "found 1 longer ones among those that are encoded already" in strict.err
    assert "no more than the model reads, found 1 longer ones" in unlimited.err
    assert done.code == 0
    assert re.search(r"5 texts, [1-4] of them before", done.err)
    assert "1 of 5 texts were cut" in done.err


LATE = 4100
"""More rows than are looked at together."""


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ({"value": 1}, {"value": 1.5}),
        ({"value": {"a": 1}}, {"value": {"a": 1, "b": "de"}}),
        ({"value": [1]}, {"value": [1.5]}),
        ({"value": None}, {"value": "x"}),
        ({}, {"value": "x"}),
    ],
    ids=str,
)
def test_no_row_is_narrowed_by_those_before(
    early: dict[str, Any], late: dict[str, Any], run: Run, bert: Path, tmp_path: Path
) -> None:
    """A column has the type that all rows fit into, however late they come."""
    texts, output = tmp_path / "texts.jsonl", tmp_path / "out.parquet"
    lines = [json.dumps({"text": "same", **early})] * LATE + [json.dumps({"text": "same", **late})]
    texts.write_text("\n".join(lines), encoding="utf-8")

    done = run("encode", texts, output, "--model", bert)

    assert done.code == 0, done.err
    assert parquet.read_table(output).column("value").to_pylist()[-1] == late["value"]


def test_what_cannot_be_written_is_told_first(
    run: Run, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a model is loaded: columns of several types, or of numbers that have none together; and bytes where
    there is no form for them.
    """
    monkeypatch.setattr("sentence_embedder.cli.encode_command.load_model", lambda _: pytest.fail("it was loaded"))
    mixed, bytes_within = tmp_path / "mixed.jsonl", tmp_path / "bytes.parquet"
    lines = [json.dumps({"text": "same", "value": 1})] * LATE + [json.dumps({"text": "same", "value": "x"})]
    mixed.write_text("\n".join(lines), encoding="utf-8")
    in_words = pyarrow.array([b"b"]).dictionary_encode()
    parquet.write_table(pyarrow.table({"text": ["a"], "value": [[b"b"]], "word": in_words}), bytes_within)

    of_mixed = run("encode", mixed, tmp_path / "out.parquet", "--model", bert)
    of_bytes = run("encode", bytes_within, tmp_path / "out.jsonl", "--model", bert)

    assert of_mixed.code == of_bytes.code == 1
    assert "expected values of one type a column, for Parquet" in of_mixed.err
    assert "in ['value', 'word'], have no form in JSON" in of_bytes.err
    for numbers in ((2**53 + 1, 1.5), (2**70, 1)):
        lines = [json.dumps({"text": "same", "value": numbers[0]})] * LATE
        mixed.write_text("\n".join([*lines, json.dumps({"text": "same", "value": numbers[1]})]), encoding="utf-8")
        of_numbers = run("encode", mixed, tmp_path / "out.parquet", "--model", bert)
        assert of_numbers.code == 1
        assert "expected values of one type a column, for Parquet" in of_numbers.err


def test_what_is_replaced_need_not_be_written(run: Run, bert: Path, tmp_path: Path) -> None:
    """An older column of embeddings may have values that have no form in the other format."""
    table, lines = tmp_path / "table.parquet", tmp_path / "lines.jsonl"
    parquet.write_table(pyarrow.table({"text": ["a"], "embedding": [b"old"]}), table)
    lines.write_text('{"text": "a", "embedding": 1}\n{"text": "b", "embedding": "x"}\n', encoding="utf-8")

    assert run("encode", table, tmp_path / "table.jsonl", "--model", bert).code == 0
    assert run("encode", lines, tmp_path / "lines.parquet", "--model", bert).code == 0

    assert _read(tmp_path / "table.jsonl").shape == (1, 32)
    assert _read(tmp_path / "lines.parquet").shape == (2, 32)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_texts_may_stand_where_embeddings_will(suffix: str, run: Run, bert: Path, tmp_path: Path) -> None:
    """The only column of a table may have the name of that of the embeddings, which then is the only one."""
    texts = tmp_path / f"texts{suffix}"
    if suffix == ".csv":
        texts.write_text("embedding\na cat\na dog\n", encoding="utf-8")
    else:
        parquet.write_table(pyarrow.table({"embedding": ["a cat", "a dog"]}), texts)

    done = run("encode", texts, tmp_path / "out.parquet", "--model", bert)

    assert done.code == 0, done.err
    assert parquet.read_table(tmp_path / "out.parquet").column_names == ["embedding"]
    assert _read(tmp_path / "out.parquet").shape == (2, 32)


def test_pandas_reads_what_replaces_a_column(run: Run, bert: Path, tmp_path: Path) -> None:
    """What pandas noted down of an older column, that it had strings say, is not said of the embeddings."""
    older = pandas.DataFrame({"text": ["a cat", "a dog"], "embedding": ["1 2", "3 4"]}, index=["x", "y"])
    older.astype("string").to_parquet(tmp_path / "in.parquet")

    done = run("encode", tmp_path / "in.parquet", tmp_path / "out.parquet", "--model", bert)

    assert done.code == 0, done.err
    found = pandas.read_parquet(tmp_path / "out.parquet")
    assert list(found.index) == ["x", "y"]
    assert found["text"].dtype == "string"
    assert np.stack(found["embedding"].to_list()).shape == (2, 32)


def test_values_of_extended_types_have_words(run: Run, bert: Path, tmp_path: Path) -> None:
    """A type that is made of one with a form in JSON has it, too."""
    flags = pyarrow.ExtensionArray.from_storage(pyarrow.bool8(), pyarrow.array([1], pyarrow.int8()))
    halves = pyarrow.array(np.array([0.5], np.float16))
    parquet.write_table(pyarrow.table({"text": ["a"], "flag": flags, "half": halves}), tmp_path / "in.parquet")

    done = run("encode", tmp_path / "in.parquet", tmp_path / "out.jsonl", "--model", bert)

    assert done.code == 0, done.err
    (row,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (bool(row["flag"]), row["half"]) == (True, 0.5)


def test_a_file_that_changes_while_a_model_loads_is_told(
    run: Run, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found out about a file before holds only for what it was then."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"text": "a cat"}\n', encoding="utf-8")

    def load(args: Any) -> SentenceTransformer:
        texts.write_text('{"text": "a cat", "more": 1}\n', encoding="utf-8")
        return load_model(args)

    monkeypatch.setattr("sentence_embedder.cli.encode_command.load_model", load)
    done = run("encode", texts, tmp_path / "out.parquet", "--model", bert)

    assert done.code == 1
    assert "was changed meanwhile" in done.err
    assert not (tmp_path / "out.parquet").exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_halves_of_pairs_become_whole(suffix: str, run: Run, bert: Path, tmp_path: Path) -> None:
    """What no file can hold is U+FFFD, as it is encoded."""
    texts, output = tmp_path / "texts.jsonl", tmp_path / f"out{suffix}"
    texts.write_text('{"text": "half \\ud83d pair", "more": ["\\ude00", "\\ud83d\\ude00"]}\n', encoding="utf-8")

    done = run("encode", texts, output, "--model", bert)

    assert done.code == 0, done.err
    rows = (
        parquet.read_table(output).to_pylist() if suffix == ".parquet" else [json.loads(output.read_text("utf-8"))]
    )
    assert rows[0]["text"] == "half \ufffd pair"
    assert rows[0]["more"] == ["\ufffd", "😀"]
    assert run("search", texts, "--query", "pair", "--model", bert).out.endswith("half \ufffd pair\n")


def test_ray_gets_the_arguments(run: Run, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cluster does, it is asked for as ``encode_files`` documents it."""
    from sentence_embedder.cluster import files
    from sentence_embedder.cluster.embedding_column import EmbeddingColumn

    asked: dict[str, Any] = {}

    def encode_files(paths: str, output: str, model: SentenceTransformer, **arguments: Any) -> files.EncodedFiles:
        asked.update(arguments, paths=paths, output=output)
        EmbeddingColumn.of(model, "text", "embedding", {"precision": asked["precision"]})
        return files.EncodedFiles(blocks=2, rows=10, skipped=1)

    monkeypatch.setattr(files, "encode_files", encode_files)

    options = ("--engine", "ray", "--column", "title", "--normalize")
    done = run("encode", "s3://in/", "s3://out", "--model", bert, *options)

    assert done.code == 0, done.err
    assert done.err == "s3://out: 10 texts in 2 files, 1 files before\n"
    assert (asked["paths"], asked["output"], asked["column"]) == ("s3://in/", "s3://out", "title")
    assert asked["normalize_embeddings"] is True
