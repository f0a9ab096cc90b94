"""The program as a whole: its help, its errors and its exit codes."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer, __version__, hub
from sentence_embedder.cli import info_command
from tests.cli.conftest import TEXTS, Run

ROOT = Path(__file__).parents[2]
COMMANDS = ("encode", "search", "info", "similarity")


def _examples(text: str) -> Iterator[str]:
    """The commands of a help text or a page."""
    return (line.strip().removeprefix("$ ") for line in text.splitlines() if "sentence-embedder " in line[:25])


@pytest.fixture
def place_of_the_examples(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the examples run, with the files that they name; every model is a tiny one."""
    locate = hub.locate
    monkeypatch.setattr(hub, "locate", lambda source, *rest: locate(replace(source, name=str(bert)), *rest))
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    (tmp_path / "queries.txt").write_text("the cat\nthe dog\n")
    (tmp_path / "table.csv").write_text("id,title\n1,the cat sat\n2,a dog sleeps\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run_example(run: Run, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line)
    if "<" in words:
        monkeypatch.setattr("sys.stdin", io.StringIO(Path(words[-1]).read_text()))
        words = words[: words.index("<")]
    assert words[0] == "sentence-embedder"
    done = run(*words[1:])
    assert done.code == 0, f"{line}: {done.err}"


@pytest.mark.usefixtures("place_of_the_examples")
@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_every_example_of_the_help_runs(
    command: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The help of the program and of each command has examples, all of which run, one after the other."""
    helped = run(*command, "--help")
    lines = list(_examples(helped.out.partition("examples:")[2]))

    assert helped.code == 0
    assert len(lines) >= 2
    for line in lines:
        _run_example(run, line, monkeypatch)


@pytest.mark.usefixtures("place_of_the_examples")
def test_every_example_of_the_page_runs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the page in the documentation run, in its order; those of a cluster are left out."""
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    lines = [line for line in _examples(page) if "--engine ray" not in line]

    assert len(lines) > 5
    for line in lines:
        _run_example(run, line, monkeypatch)


def test_the_page_names_every_option(run: Run) -> None:
    """Every option of every command is on the page in the documentation."""
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")

    options = {option for name in COMMANDS for option in re.findall(r"--[a-z-]+", run(name, "--help").out)}

    assert {option for option in options if f"`{option}" not in page} <= {"--help"}


def test_help_imports_nothing_heavy() -> None:
    """Help and version come at once: neither torch nor numpy is imported for them."""
    program = (
        "import sys\nfrom sentence_embedder.cli.program import main\n"
        "codes = [main(['--help']), main(['--version']), main(['encode', '-h']), main(['encode', 'a.doc', 'b'])]\n"
        "sys.exit(repr((codes, [name for name in ('torch', 'transformers', 'pyarrow') if name in sys.modules])))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)

    assert done.stderr.splitlines()[-1] == "([0, 0, 0, 2], [])"


def test_the_program_has_its_names() -> None:
    """What is installed as ``sentence-embedder`` is what ``python -m sentence_embedder`` runs."""
    (declared,) = re.findall(r'^sentence-embedder = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    module, _, function = declared.partition(":")
    command = [sys.executable, "-m", "sentence_embedder", "--version"]

    assert callable(getattr(import_module(module), function))
    assert subprocess.check_output(command, text=True) == f"sentence-embedder {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: COMMAND"),
        (["sing"], "invalid choice: 'sing'"),
        (["encode", "in.txt"], "required: OUTPUT"),
        (["encode", "in.txt", "out.npy", "--query", "--document"], "not allowed with"),
        (["encode", "in.txt", "out.npy", "--batch-size", "0"], "expected a whole number of 1 or more, found '0'"),
        (["encode", "in.txt", "out.npy", "--precision", "int3"], "invalid choice: 'int3'"),
        (["encode", "in.doc", "out.npy"], "in.doc: expected a file that ends in"),
        (["encode", "in.txt", "out.doc"], "out.doc: expected a file that ends in"),
        (["encode", "in.parquet", "in.parquet"], "expected another file than INPUT"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], message: str, run: Run) -> None:
    """Arguments that no file could satisfy are 2, and a message that names them."""
    done = run(*arguments)

    assert done.code == 2
    assert message in done.err
    assert done.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encode", "missing.txt", "out.npy"], "missing.txt: expected a file, found nothing of that name"),
        (["search", "missing.txt", "--query", "x"], "missing.txt: expected a file"),
        (["info", "./no-model"], "no-model"),
    ],
)
def test_failures_are_a_line(
    arguments: list[str], message: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure is 1, and one line; where it comes from is shown if it is asked for."""
    monkeypatch.chdir(tmp_path)

    done = run(*arguments)
    traced = run(*arguments, "--traceback")

    assert (done.code, traced.code) == (1, 1)
    assert message in done.err
    assert done.err.count("\n") == 1
    assert "Traceback" in traced.err
    assert traced.err.endswith(done.err)


def test_what_nobody_expected_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says nothing of itself is told with its kind."""

    def fail(_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(info_command, "load_model", fail)

    assert run("info", "model").err == "sentence-embedder: KeyError: 'x'\n"


def test_parquet_names_its_extra(run: Run, bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyarrow, Parquet is an error that says what to install."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    for names in ((texts, "out.parquet"), ("in.parquet", "out.npy")):
        (texts.parent / "in.parquet").touch()
        done = run("encode", *(texts.parent / name for name in names), "--model", bert)
        assert done.code == 1
        assert "pip install 'sentence-embedder[parquet]'" in done.err


def test_a_broken_pipe_is_silent(bert: Path, texts: Path) -> None:
    """A reader that has enough ends the program without a word."""
    command = [sys.executable, "-m", "sentence_embedder", "search", str(texts), "--model", str(bert)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stdin is not None
    process.stdin.write("the cat\nthe dog\n")
    process.stdin.close()
    assert process.stderr is not None

    assert "Error" not in process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=30) == 0


def test_a_terminal_sees_how_far_it_is(
    bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal a bar counts texts, of all that there are."""
    from sentence_embedder.cli.program import main

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)

    assert main(["encode", str(texts), str(texts.with_name("out.npy")), "--model", str(bert)]) == 0

    assert "18/18" in capsys.readouterr().err


def test_offline_is_offline(
    run: Run, texts: Path, no_network: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--local-files-only`` reaches the Hub for nothing, and says what is not here."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))

    done = run("encode", texts, texts.with_name("out.npy"), "--model", "some/model", "--local-files-only")

    assert done.code == 1
    assert "some/model" in done.err
    assert not no_network


def test_loading_options_reach_the_model(run: Run, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said about loading is what the class is told."""
    told: dict[str, Any] = {}
    construct = SentenceTransformer.__init__

    def init(self: SentenceTransformer, *args: Any, **kwargs: Any) -> None:
        told.update(kwargs)
        construct(self, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformer, "__init__", init)
    options = (
        "--device",
        "cpu",
        "--dtype",
        "auto",
        "--revision",
        "v1",
        "--local-files-only",
        "--trust-remote-code",
    )

    assert run("info", bert, *options).code == 0

    assert told == {
        "device": "cpu",
        "dtype": "auto",
        "revision": "v1",
        "local_files_only": True,
        "trust_remote_code": True,
    }


def test_modules_run_as_a_program(bert: Path, texts: Path) -> None:
    """Started as a process, it encodes a file, and writes one line to the error output alone."""
    output = texts.with_name("out.npy")
    program = [sys.executable, "-W", "error", "-m", "sentence_embedder"]
    command = [*program, "encode", texts, output, "--model", bert, "--document"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (0, "", 1), done.stderr
    assert len(np.load(output)) == len(TEXTS)
