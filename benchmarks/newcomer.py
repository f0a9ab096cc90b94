"""``python -m benchmarks.newcomer``: do what README and quickstart say, with nothing at hand, and write it down.

A fresh clone, a fresh home without caches, a fresh environment: each command and each block of Python is run in its
order, and noted with its time and what it printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.engines import ROOT
from benchmarks.machine import cpu_model

_MODEL = "all-MiniLM-L6-v2"
_PAGES = ("README.md", "docs/quickstart.md")
_FOR_THE_PAGES = ("pandas",)
"""What the blocks of the pages import beside what is installed with the package."""


@dataclass(frozen=True)
class Step:
    """Something that the newcomer did.

    Args:
        done: The command, or the block of Python.
        seconds: How long it took.
        output: What it printed.
        language: That of what was done, for the page.
    """

    done: str
    seconds: float
    output: str
    language: str = "console"


@dataclass(frozen=True)
class Newcomer:
    """Somebody with an empty home, and a clone.

    Args:
        home: The home, in which everything is kept.
        torch: What installs PyTorch here: its own index may be out of reach.
    """

    home: Path
    torch: str
    environ: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("PIP_")}
        own = {"HOME": str(self.home), "XDG_CACHE_HOME": str(self.home / "cache"), "LANG": "C.UTF-8"}
        object.__setattr__(self, "environ", {**kept, **own})

    @property
    def clone(self) -> Path:
        """Where the repository is."""
        return self.home / "sentence_embedder"

    @property
    def elsewhere(self) -> Path:
        """A folder for work of one's own, with the environment of the package."""
        return self.home / "work"

    def walk(self, *, with_tests: bool) -> Iterator[Step]:
        """All that is done, step by step."""
        yield self._do(f"git clone --quiet {ROOT} sentence_embedder", self.home)
        yield self._do("make demo", self.clone)
        if with_tests:
            yield self._do("make test", self.clone)
        self.elsewhere.mkdir()
        yield self._do("python3 -m venv .venv", self.elsewhere)
        yield self._do(f".venv/bin/pip install --quiet {self.torch}", self.elsewhere)
        yield self._do(".venv/bin/pip install --quiet ../sentence_embedder", self.elsewhere)
        yield self._do(f".venv/bin/pip install --quiet {' '.join(_FOR_THE_PAGES)}", self.elsewhere)
        self._take_model()
        yield self._do(f".venv/bin/sentence-embedder info {_MODEL}", self.elsewhere)
        yield self._do(
            '.venv/bin/sentence-embedder similarity "the cat sat" "a kitten sat" "hello"', self.elsewhere
        )
        for page in _PAGES:
            yield from self._read(self.clone / page)

    def _take_model(self) -> None:
        """Put the model where its name finds it, whether the Hub can be reached or not."""
        command = [str(self.clone / ".venv/bin/python"), "examples/fetch_model.py"]
        found = subprocess.run(
            command, cwd=self.clone, env=self.environ, check=True, capture_output=True, text=True
        )
        folder = Path(found.stdout.strip())
        if folder.is_dir():
            (self.elsewhere / _MODEL).symlink_to(folder, target_is_directory=True)

    def _do(self, command: str, folder: Path) -> Step:
        start = time.perf_counter()
        done = subprocess.run(
            shlex.split(command),
            cwd=folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seconds = time.perf_counter() - start
        failed = f"\n(exit code {done.returncode})" if done.returncode else ""
        return Step(command.replace(str(ROOT), "…"), seconds, self._shown(done.stdout + failed))

    def _read(self, page: Path) -> Iterator[Step]:
        """Run the blocks of a page in one process."""
        program = [str(self.elsewhere / ".venv/bin/python"), str(ROOT / "benchmarks/page_process.py")]
        done = subprocess.run(
            [*program, str(page)],
            cwd=self.elsewhere,
            env=self.environ,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        for line in done.stdout.splitlines():
            block = json.loads(line)
            yield Step(block["source"], block["seconds"], self._shown(block["output"]), "py")

    def _shown(self, output: str) -> str:
        return output.replace(str(self.home), "~").strip()


def page_of(steps: Sequence[Step], command: str) -> str:
    """The walk as a page of the documentation.

    Args:
        steps: What was done.
        command: What writes the page, for the reader.
    """
    total = sum(step.seconds for step in steps)
    parts = [
        "# A newcomer's walk",
        "What README and quickstart say, done in order with nothing at hand: a fresh clone, an empty home,\n"
        f"no caches. Each step has its time and its output. {command} wrote this page, on {cpu_model()} with\n"
        f"{os.cpu_count()} cores; it took {total / 60:.1f} minutes in all. Where the Hub is out of reach, the\n"
        "model is a folder.",
    ]
    for number, step in enumerate(steps, start=1):
        done = f"$ {step.done}" if step.language == "console" else step.done.rstrip()
        parts.append(f"**{number}.** {step.seconds:.1f} s\n\n```{step.language}\n{done}\n```")
        if step.output:
            parts.append(f"```text\n{step.output}\n```")
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Walk, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.newcomer", description=__doc__)
    parser.add_argument("--out", type=Path, help="the page to write (default: print it)")
    parser.add_argument("--tests", action="store_true", help="also run make test, which takes minutes")
    parser.add_argument("--torch", default="torch", help="what pip installs as PyTorch (default: %(default)s)")
    args = parser.parse_args(argv)
    with TemporaryDirectory(prefix="newcomer-") as folder:
        newcomer = Newcomer(Path(folder), args.torch)
        steps = []
        for step in newcomer.walk(with_tests=args.tests):
            sys.stderr.write(f"{step.seconds:7.1f} s  {step.done.splitlines()[0]}\n")
            steps.append(step)
    page = page_of(steps, "`make walk`")
    if args.out is None:
        sys.stdout.write(page)
    else:
        args.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
