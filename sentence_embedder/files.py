"""Reading and writing the files of a model folder: JSON, and the weights of a module."""

from __future__ import annotations

import json
import os
import secrets
import struct
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sentence_embedder.record import FormatError

SAFE_WEIGHTS_NAME = "model.safetensors"
PICKLED_WEIGHTS_NAME = "pytorch_model.bin"

_LARGEST_JSON = 64 * 2**20

_UNREADABLE = (
    *(SafetensorError, OSError, EOFError, RuntimeError),
    *(ValueError, KeyError, IndexError, AttributeError, TypeError, struct.error),  # of a pickle that was cut
)


class WeightsError(ValueError):
    """The weights in a file are not those of the module that should take them."""


def check_inside(path: str, where: str) -> None:
    """Raise a FormatError for a path that leads out of the folder; links in it are the user's, or the Hub's.

    Args:
        path: The path, as a file spells it.
        where: The file and the key, for messages.
    """
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts or any(mark in path for mark in "\\:\0"):
        raise FormatError(where, "a path inside the model folder", path)


def read_json(path: Path, *, most: float = _LARGEST_JSON) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        most: How many bytes it may have: 64 MiB, as settings have less, and vocabularies too.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not JSON, or has more bytes.
    """
    size = path.stat().st_size
    if size > most:
        raise ValueError(f"{path}: expected JSON of at most {most:,} bytes, found {size:,}")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON in UTF-8: {error}") from error


def write_json(path: Path, content: object) -> None:
    """Write a JSON file as sentence-transformers does: two spaces of indent, UTF-8."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def read_tensors(folder: Path, owner: str) -> dict[str, Tensor]:
    """The tensors in a folder: safetensors, and only where there are none, a pickle.

    The pickle is read with ``weights_only=True``: it can hold tensors, not code.

    Args:
        folder: The folder.
        owner: Whose weights they should be, for messages.

    Raises:
        FileNotFoundError: The folder holds no weights.
        WeightsError: The file cannot be read.
    """
    safe, pickled = folder / SAFE_WEIGHTS_NAME, folder / PICKLED_WEIGHTS_NAME
    path = safe if safe.exists() else pickled
    if not path.exists():
        raise FileNotFoundError(f"{folder}: expected weights in {safe.name} or {pickled.name}, found neither")
    expected = f"{path}: expected the weights of a {owner}"
    try:
        tensors = load_file(safe) if path == safe else torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise WeightsError(f"{expected}, found something else than tensors") from error
    except _UNREADABLE as error:
        raise WeightsError(f"{expected}, found a broken file: {error}") from error
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise WeightsError(f"{expected}, found something else than tensors with names")
    return tensors


def read_weights(folder: Path, module: nn.Module) -> None:
    """Give a module, which may be on torch's ``meta`` device, the weights in its folder; see ``read_tensors``.

    Raises:
        FileNotFoundError: The folder holds no weights.
        WeightsError: The file cannot be read, or names, shapes or number of its tensors are not the module's.
    """
    name = type(module).__name__
    own = module.state_dict()
    tensors = read_tensors(folder, name)
    misfits = {
        "missing": sorted(own.keys() - tensors.keys()),
        "unknown": sorted(tensors.keys() - own.keys()),
        "of another shape or kind": [
            f"{key} {tuple(tensor.shape)} for {tuple(own[key].shape)}"
            for key, tensor in tensors.items()
            if key in own and not _is_alike(tensor, own[key])
        ],
    }
    if any(misfits.values()):
        found = ", ".join(f"{how} {keys}" for how, keys in misfits.items() if keys)
        raise WeightsError(f"{folder}: expected the weights of a {name}, found others: {found:.500}")
    # A copy: what safetensors gives is the file itself, which may be written anew.
    weights = {key: tensors[key].to(tensor.dtype, copy=True) for key, tensor in own.items()}
    module.load_state_dict(weights, assign=True)


def _is_alike(tensor: Tensor, other: Tensor) -> bool:
    return tensor.shape == other.shape and tensor.is_floating_point() == other.is_floating_point()


def write_weights(folder: Path, module: nn.Module, *, safe_serialization: bool = True) -> None:
    """Write a module's weights into its folder, as safetensors or as the pickle that 2.7 reads, and only so."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    if safe_serialization:
        save_file(weights, folder / SAFE_WEIGHTS_NAME, metadata={"format": "pt"})
        give_usual_mode(folder / SAFE_WEIGHTS_NAME)
        remove_weights(folder, PICKLED_WEIGHTS_NAME)
    else:
        torch.save(weights, folder / PICKLED_WEIGHTS_NAME)
        remove_weights(folder, SAFE_WEIGHTS_NAME)


def give_usual_mode(path: Path) -> None:
    """Give a file the mode that new files have in its folder: those of safetensors only their owner may read."""
    usual = path.with_name(f".{secrets.token_hex(6)}")
    number = os.open(usual, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        path.chmod(os.fstat(number).st_mode)
    finally:
        os.close(number)
        usual.unlink()


def remove_weights(folder: Path, name: str) -> None:
    """Remove the weights of an earlier ``save`` in the other format: a reader would take them for the new ones."""
    for path in (folder / name, folder / f"{name}.index.json"):
        path.unlink(missing_ok=True)
