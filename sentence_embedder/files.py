"""Reading and writing the files of a model folder: JSON, and the weights of a module."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

SAFE_WEIGHTS_NAME = "model.safetensors"
PICKLED_WEIGHTS_NAME = "pytorch_model.bin"

_UNREADABLE = (
    *(SafetensorError, OSError, EOFError, RuntimeError),
    *(ValueError, KeyError, IndexError, AttributeError, TypeError, struct.error),  # of a pickle that was cut
)


class WeightsError(ValueError):
    """The weights in a file are not those of the module that should take them."""


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON in UTF-8: {error}") from error


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as sentence-transformers does: two spaces of indent, UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def read_weights(folder: Path, module: nn.Module) -> None:
    """Load a module's weights from its folder: safetensors, and only where there are none, a pickle.

    The pickle is read with ``weights_only=True``: it can hold tensors, not code.

    Raises:
        FileNotFoundError: The folder holds no weights.
        WeightsError: The file cannot be read, or names, shapes or number of its tensors are not the module's.
    """
    safe, pickled = folder / SAFE_WEIGHTS_NAME, folder / PICKLED_WEIGHTS_NAME
    path = safe if safe.exists() else pickled
    if not path.exists():
        raise FileNotFoundError(f"{folder}: expected weights in {safe.name} or {pickled.name}, found neither")
    name = type(module).__name__
    try:
        weights = load_file(safe) if path == safe else torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsError(
            f"{path}: expected the weights of a {name}, found something else than tensors"
        ) from error
    except _UNREADABLE as error:
        raise WeightsError(f"{path}: expected the weights of a {name}, found a broken file: {error}") from error
    try:
        module.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise WeightsError(f"{path}: expected the weights of a {name}, found others: {error}") from error


def write_weights(folder: Path, module: nn.Module, *, safe_serialization: bool = True) -> None:
    """Write a module's weights into its folder, as safetensors or as the pickle that 2.7 reads, and only so."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if safe_serialization:
        save_file(weights, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
        remove_weights(folder, PICKLED_WEIGHTS_NAME)
    else:
        torch.save(weights, folder / PICKLED_WEIGHTS_NAME)
        remove_weights(folder, SAFE_WEIGHTS_NAME)


def remove_weights(folder: Path, name: str) -> None:
    """Remove the weights of an earlier ``save`` in the other format: a reader would take them for the new ones."""
    for path in (folder / name, folder / f"{name}.index.json"):
        path.unlink(missing_ok=True)
