"""What the tests of the command line share."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sentence_embedder.cli.program import main

TEXTS = [
    f"the {animal} {verb} in {place}"
    for animal in ("cat", "dog", "kitten")
    for verb in ("sat", "sleeps", "runs")
    for place in ("london", "paris")
]


@dataclass(frozen=True)
class Done:
    """What a run of the program did: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run() -> Run:
    """The program, in this process, with arguments of any kind."""

    def run(*arguments: object) -> Done:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main([str(argument) for argument in arguments])
        return Done(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def bert(tiny_folders: dict[str, Path]) -> Path:
    """The folder of a tiny model."""
    return tiny_folders["bert"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A file of a text a line."""
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    return path
