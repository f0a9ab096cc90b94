"""Side by side with sentence-transformers 2.7.0 and 6.2.0, each in an environment of its own."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from tests.minilm import minilm_folder
from tests.reference.cases import PROMPT, TEXTS, as_item
from tests.reference.comparison import CONTAINERS, RECORDED_BATCH_SIZE, TOLERANCE, compare_grid
from tests.reference.environment import VERSIONS, record
from tests.tiny_chains import CHAINS, Folders
from tests.tiny_models import TINY_MODELS

pytestmark = pytest.mark.reference

EXCHANGED = [name for name in TINY_MODELS if name != "decoder-all-modes"]
"""2.7 overwrites token embeddings with −1e9 where padding is on the left and max is a mode."""

NEEDS_PICKLES = [("2.7", "bert-chain")]
"""What 2.7 reads of modules other than the Transformer are pickles."""


@pytest.fixture(scope="module")
def texts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The texts, as a file that the other environment reads."""
    path = tmp_path_factory.mktemp("texts") / "texts.json"
    path.write_text(json.dumps(TEXTS))
    return path


def _folder(name: str, tiny_folders: dict[str, Path]) -> Path:
    return minilm_folder() if name == "minilm" else tiny_folders[name]


@pytest.mark.parametrize("name", [*TINY_MODELS, "minilm"])
def test_the_grid_of_options_live(name: str, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Every combination of encode's options gives what sentence-transformers 6.2 gives here and now."""
    folder = _folder(name, tiny_folders)
    model = SentenceTransformer(str(folder), device="cpu", prompts={"query": PROMPT})

    record("6.2", folder, tmp_path / "theirs.npz")

    theirs: Any = np.load(tmp_path / "theirs.npz")
    calls = product((3, RECORDED_BATCH_SIZE), CONTAINERS) if name != "minilm" else [(RECORDED_BATCH_SIZE, {})]
    assert compare_grid(model, theirs, calls, accelerated=True) > 50


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*EXCHANGED, "minilm"])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickles"])
def test_they_read_what_we_write(
    name: str, version: str, safe: bool, tiny_folders: dict[str, Path], texts_file: Path, tmp_path: Path
) -> None:
    """A folder written here gives the same vectors there."""
    if safe and (version, name) in NEEDS_PICKLES:
        pytest.skip("2.7 reads no safetensors of modules other than the Transformer")
    model = SentenceTransformer(str(_folder(name, tiny_folders)), device="cpu")

    model.save(tmp_path / "ours", safe_serialization=safe)
    record(version, tmp_path / "ours", tmp_path / "theirs.npz", "--texts", texts_file)

    theirs = np.load(tmp_path / "theirs.npz")["embeddings"]
    np.testing.assert_allclose(model.encode(list(TEXTS)), theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*EXCHANGED, "minilm"])
def test_we_read_what_they_write(
    name: str, version: str, tiny_folders: dict[str, Path], texts_file: Path, tmp_path: Path
) -> None:
    """A folder written there gives the same vectors here, and written again here, there once more."""
    folder = _folder(name, tiny_folders)
    if name == "minilm":  # the wheel holds no empty folder, and 2.7 looks for it
        SentenceTransformer(str(folder), device="cpu").save(tmp_path / "source")
        folder = tmp_path / "source"
    record(version, folder, tmp_path / "theirs.npz", "--save", tmp_path / "written", "--texts", texts_file)
    theirs = np.load(tmp_path / "theirs.npz")["embeddings"]

    model = SentenceTransformer(str(tmp_path / "written"), device="cpu")
    model.save(tmp_path / "again", safe_serialization=False)
    record("2.7", tmp_path / "again", tmp_path / "again.npz", "--texts", texts_file)

    np.testing.assert_allclose(model.encode(list(TEXTS)), theirs, rtol=TOLERANCE, atol=TOLERANCE)
    again = np.load(tmp_path / "again.npz")["embeddings"]
    np.testing.assert_allclose(again, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "version"), [(name, version) for name, chain in CHAINS.items() for version in chain.versions]
)
def test_every_module_goes_there_and_back(
    name: str, version: str, tiny_checkpoints: Folders, tmp_path: Path
) -> None:
    """A model of each module, written here, gives the same vectors there; written there, it gives them here."""
    chain = CHAINS[name]
    model = SentenceTransformer(modules=chain.modules(tiny_checkpoints), device="cpu")
    ours = model.encode([as_item(item) for item in chain.items])
    items_file = tmp_path / "items.json"
    items_file.write_text(json.dumps(chain.items))

    model.save(tmp_path / "ours", safe_serialization=False)
    record(
        version,
        *(tmp_path / "ours", tmp_path / "theirs.npz", "--items", items_file, "--save", tmp_path / "theirs"),
    )
    theirs = np.load(tmp_path / "theirs.npz")["embeddings"]
    again = SentenceTransformer(str(tmp_path / "theirs"), device="cpu").encode(list(map(as_item, chain.items)))

    np.testing.assert_allclose(again, theirs, rtol=TOLERANCE, atol=TOLERANCE)
    if chain.is_shuffled and version == "2.7":
        ours, theirs = np.sort(ours, axis=1), np.sort(theirs, axis=1)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name, chain in CHAINS.items() if "6.2" in chain.versions])
def test_safetensors_of_every_module_go_there(name: str, tiny_checkpoints: Folders, tmp_path: Path) -> None:
    """What is written as safetensors, 6.2 reads."""
    chain = CHAINS[name]
    model = SentenceTransformer(modules=chain.modules(tiny_checkpoints), device="cpu")
    items_file = tmp_path / "items.json"
    items_file.write_text(json.dumps(chain.items))

    model.save(tmp_path / "ours")
    record("6.2", tmp_path / "ours", tmp_path / "theirs.npz", "--items", items_file)

    theirs = np.load(tmp_path / "theirs.npz")["embeddings"]
    ours = model.encode([as_item(item) for item in chain.items])
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)
