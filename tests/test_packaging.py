"""The package that users install."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sentence_embedder

ROOT = Path(__file__).parents[1]


def test_the_wheel_holds_every_file(tmp_path: Path) -> None:
    """The wheel holds all files of the package, its types and templates too, the licence, and nothing else."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")

    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    package = ROOT / "sentence_embedder"
    files = {path.relative_to(ROOT).as_posix() for path in package.rglob("*") if path.is_file()}
    assert names == {name for name in files if "__pycache__" not in name}
    assert {"sentence_embedder/py.typed", "sentence_embedder/model_card.md"} <= names
    assert sentence_embedder.__version__ in wheel.name
    assert any(name.endswith("LICENSE") for name in zipfile.ZipFile(wheel).namelist())


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="there is no repository")
def test_the_repository_holds_small_files_alone() -> None:
    """No link, which leads elsewhere on another machine, and nothing larger than 1 MB was committed."""
    list_all = ["git", "ls-tree", "-r", "--long", "HEAD"]
    listed = subprocess.check_output(list_all, cwd=ROOT, text=True)
    entries = [line.split(maxsplit=4) for line in listed.splitlines()]

    assert len(entries) > 100
    assert [path for mode, *_, path in entries if mode not in {"100644", "100755"}] == []
    assert [path for *_, size, path in entries if int(size) > 1_000_000] == []
