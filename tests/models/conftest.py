"""Tiny checkpoints of every usual kind."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.tiny_models import write_transformer
from tests.usual_tokenizers import USUAL_CHECKPOINTS


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Name of a usual checkpoint → its folder."""
    root = tmp_path_factory.mktemp("checkpoints")
    for name, model in USUAL_CHECKPOINTS.items():
        write_transformer(root / name, model)
    return {name: root / name for name in USUAL_CHECKPOINTS}


@pytest.fixture(params=USUAL_CHECKPOINTS)
def folder(request: pytest.FixtureRequest, checkpoints: Mapping[str, Path], tmp_path: Path) -> Path:
    """A tiny model of each usual kind, a test's own."""
    return Path(shutil.copytree(checkpoints[request.param], tmp_path / request.param))


@pytest.fixture
def bert(checkpoint: Path, tmp_path: Path) -> Path:
    """A tiny BERT, a test's own."""
    return Path(shutil.copytree(checkpoint, tmp_path / "bert"))


@pytest.fixture
def mpnet(checkpoints: Mapping[str, Path], tmp_path: Path) -> Path:
    """A tiny MPNet, a test's own."""
    return Path(shutil.copytree(checkpoints["mpnet"], tmp_path / "mpnet"))
