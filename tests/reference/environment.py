"""The environments in which a sentence-transformers is installed, and how it is asked there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("2.7", "6.2")


def python_of(version: str) -> Path:
    """The interpreter of the environment with that version of sentence-transformers."""
    return ROOT / f".venv-reference-{version}" / "bin" / "python"


def record(version: str, folder: Path, out: Path, *options: str | Path) -> None:
    """Let that version embed with a model folder; see ``record.py``.

    Raises:
        RuntimeError: It failed; what it printed is in the message.
    """
    _run(version, "record.py", folder, out, *options)


def record_losses(version: str, out: Path) -> None:
    """Let that version compute its losses; see ``record_losses.py``.

    Raises:
        RuntimeError: It failed; what it printed is in the message.
    """
    _run(version, "record_losses.py", out)


def record_evaluators(version: str, folder: Path, out: Path) -> None:
    """Let that version judge a model; see ``record_evaluators.py``.

    Raises:
        RuntimeError: It failed; what it printed is in the message.
    """
    _run(version, "record_evaluators.py", folder, out)


def record_training(version: str, folder: Path, out: Path) -> None:
    """Let that version train a model; see ``record_training.py``.

    Raises:
        RuntimeError: It failed; what it printed is in the message.
    """
    _run(version, "record_training.py", folder, out)


def record_surface(version: str, out: Path) -> None:
    """Let that version say which names and signatures it has; see ``record_surface.py``.

    Raises:
        RuntimeError: It failed; what it printed is in the message.
    """
    _run(version, "record_surface.py", out)


def _run(version: str, script: str, *arguments: str | Path) -> None:
    command = [python_of(version), "-W", "ignore", Path(__file__).with_name(script), *arguments]
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"sentence-transformers {version}, {script} {arguments[0]}:\n{done.stderr[-3000:]}")
