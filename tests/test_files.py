"""Files of a module: JSON, and weights that cannot run anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sentence_embedder.files import WeightsError, read_json, read_weights, write_json, write_weights


@pytest.mark.parametrize("safe", [True, False])
def test_weights_survive(safe: bool, tmp_path: Path) -> None:
    """Weights that were written are read again, and only into tensors."""
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)

    write_weights(tmp_path, source, safe_serialization=safe)
    read_weights(tmp_path, target)

    assert torch.equal(source.weight, target.weight)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors" if safe else "pytorch_model.bin"]


def test_safetensors_go_before_pickles(tmp_path: Path) -> None:
    """Where both are there the pickle is not even opened."""
    module = nn.Linear(3, 2)
    write_weights(tmp_path, module)
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")

    read_weights(tmp_path, nn.Linear(3, 2))


class Bomb:
    """An object that runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    """A pickle that would run a command is refused, and the command not run."""
    torch.save({"weight": Bomb(tmp_path / "exploded")}, tmp_path / "pytorch_model.bin")

    with pytest.raises(WeightsError, match=r"pytorch_model.bin: expected the weights of a Linear"):
        read_weights(tmp_path, nn.Linear(3, 2))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 7, b"\xff" * 100], ids=["empty", "short", "noise"])
def test_broken_files(name: str, content: bytes, tmp_path: Path) -> None:
    """A file that holds no weights is named."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(WeightsError, match=name):
        read_weights(tmp_path, nn.Linear(3, 2))


def test_a_file_that_was_cut(tmp_path: Path) -> None:
    """A file that was cut is an error, not half of the weights."""
    write_weights(tmp_path, nn.Linear(3, 2))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])

    with pytest.raises(WeightsError, match=r"model.safetensors"):
        read_weights(tmp_path, nn.Linear(3, 2))


def test_other_weights(tmp_path: Path) -> None:
    """Other names or shapes than the module's are listed."""
    write_weights(tmp_path, nn.Linear(3, 2, bias=False))

    with pytest.raises(WeightsError, match=r"missing \['bias'\]"):
        read_weights(tmp_path, nn.Linear(3, 2))
    with pytest.raises(WeightsError, match=r"another shape or kind \['weight \(2, 3\) for \(2, 4\)'\]"):
        read_weights(tmp_path, nn.Linear(4, 2, bias=False))


def test_no_weights(tmp_path: Path) -> None:
    """A folder without weights is named, with the files that were looked for."""
    with pytest.raises(FileNotFoundError, match=r"model.safetensors or pytorch_model.bin, found neither"):
        read_weights(tmp_path, nn.Linear(3, 2))


def test_json(tmp_path: Path) -> None:
    """JSON is written in UTF-8, as it is to be read by people."""
    path = tmp_path / "a.json"

    write_json(path, {"prompt": "größe: "})

    assert path.read_bytes().decode() == '{\n  "prompt": "größe: "\n}'
    assert read_json(path) == {"prompt": "größe: "}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_what_is_no_json(content: bytes, tmp_path: Path) -> None:
    """A file that is no JSON is named."""
    (tmp_path / "a.json").write_bytes(content)

    with pytest.raises(ValueError, match=r"a.json: expected JSON in UTF-8"):
        read_json(tmp_path / "a.json")
