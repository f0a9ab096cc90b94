"""Ranks: two processes that train together do what one does with their batches joined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from tests.training.ranks_script import TRAININGS, trained

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("ranks")


@pytest.fixture(scope="module")
def of_two(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote, started by torchrun."""
    out = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
            *("-m", "tests.training.ranks_script"),
        ],
        cwd=ROOT,
        env={**os.environ, "FOLDER": str(tiny_folders["bert"]), "OUT": str(out)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return out


@pytest.mark.parametrize("name", TRAININGS)
def test_two_processes_are_one(name: str, of_two: Path, tiny_folders: dict[str, Path]) -> None:
    """Both have the weights of one process with the joint batch, in-batch negatives of both included."""
    expected = trained(tiny_folders["bert"], name, batch_size=8, factor=2)

    for rank in (0, 1):
        found = np.load(of_two / f"{name}-{rank}.npz")
        for key, array in expected.items():
            np.testing.assert_allclose(found[key], array, atol=1e-5, err_msg=key)


def test_each_row_is_seen_once(of_two: Path) -> None:
    """The processes share the data, in an order that is new in every epoch, and draw their own random numbers."""
    first, second = (np.load(of_two / f"drawn-{rank}.npz") for rank in (0, 1))
    epochs = [np.concatenate([first["seen"][rows], second["seen"][rows]]) for rows in (slice(0, 6), slice(6, 12))]

    for seen in epochs:
        assert sorted(seen) == list(range(12))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.intersect1d(first["drawn"], second["drawn"]).size


def test_the_first_one_judges_and_writes(of_two: Path) -> None:
    """One process judges, saves and writes checkpoints; from these both go on, to the same weights."""
    saved = SentenceTransformer(str(of_two / "model"), device="cpu").state_dict()
    first, second = (np.load(of_two / f"checkpointed-{rank}.npz") for rank in (0, 1))

    assert sorted(path.name for path in (of_two / "checkpoints").iterdir()) == ["3", "6", "8"]
    for name in saved:
        np.testing.assert_array_equal(first[name], second[name])


def test_an_error_of_one_is_one_of_all(of_two: Path) -> None:
    """What the first process cannot write ends the others, too, instead of letting them wait."""
    assert (of_two / "failure-0.txt").read_text().startswith("CheckpointError: ")
    assert (of_two / "failure-1.txt").read_text().startswith("RuntimeError: rank 0 failed: CheckpointError: ")


def test_an_error_of_a_callback_is_one_of_all(of_two: Path) -> None:
    """So is what a function of the user's raises."""
    assert (of_two / "heard-0.txt").read_text() == "ZeroDivisionError: division by zero"
    assert (
        of_two / "heard-1.txt"
    ).read_text() == "RuntimeError: rank 0 failed: ZeroDivisionError: division by zero"


def test_weights_begin_alike(of_two: Path) -> None:
    """A loss with weights of its own begins with those of the first process, whatever the others' seeds."""
    first, second = (np.load(of_two / f"seeds-{rank}.npz") for rank in (0, 1))

    for name in first.files:
        np.testing.assert_allclose(first[name], second[name], atol=1e-6, err_msg=name)
