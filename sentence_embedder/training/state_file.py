"""State files: nested states, such as an optimizer's, ⇄ JSON and safetensors; no pickle, so nothing runs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor

from sentence_embedder.files import read_json

_PLAIN = (bool, int, float, str, type(None))
_JSON_NAME = "state.json"
_TENSORS_NAME = "state.safetensors"


def write_state(folder: Path, state: Any) -> None:
    """Write a state into a folder.

    Args:
        folder: The folder.
        state: Tensors, numbers (of numpy also), strings and None, in dicts, lists and tuples.

    Raises:
        TypeError: There is something else in it.
    """
    encoder = _Encoder()
    content = encoder.encoded(state, "state")
    save_file(encoder.tensors, folder / _TENSORS_NAME)
    (folder / _JSON_NAME).write_text(json.dumps(content), encoding="utf-8")


def read_state(folder: Path) -> Any:
    """The state that a folder holds, its tensors on the CPU."""
    # A copy: what safetensors gives is the file itself.
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / _TENSORS_NAME).items()}
    # However long it is: the record of a training grows with every log.
    return _decoded(read_json(folder / _JSON_NAME, most=math.inf), tensors)


def has_state(folder: Path) -> bool:
    """Whether a folder holds a state."""
    return (folder / _JSON_NAME).exists() and (folder / _TENSORS_NAME).exists()


class _Encoder:
    """A state → JSON, in which tensors are named.

    Attributes:
        tensors: Name → tensor, on the CPU; no two share memory, as a file of safetensors wants it.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._places: set[int] = set()

    def encoded(self, state: Any, where: str) -> Any:
        """The JSON of a state that stands there."""
        if isinstance(state, np.generic):  # a number that was computed, of an argument of fit, say
            state = state.item()
        if isinstance(state, Tensor):
            return {"tensor": self._named(state.detach().cpu().contiguous())}
        if isinstance(state, dict):  # keys are not always strings
            return {"dict": [[key, self.encoded(value, f"{where}[{key!r}]")] for key, value in state.items()]}
        if isinstance(state, (list, tuple)):
            rows = [self.encoded(value, f"{where}[{place}]") for place, value in enumerate(state)]
            return rows if isinstance(state, list) else {"tuple": rows}
        if isinstance(state, _PLAIN):
            return state
        raise TypeError(
            f"{where}: expected tensors, numbers, strings, dicts and lists, found {type(state).__name__}: a "
            "checkpoint holds nothing else"
        )

    def _named(self, tensor: Tensor) -> str:
        storage = tensor.untyped_storage()
        if storage.nbytes() != tensor.nbytes or storage.data_ptr() in self._places:
            tensor = tensor.clone()
        self._places.add(tensor.untyped_storage().data_ptr())
        name = str(len(self.tensors))
        self.tensors[name] = tensor
        return name


def _decoded(content: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(content, list):
        return [_decoded(value, tensors) for value in content]
    if not isinstance(content, dict):
        return content
    ((kind, inside),) = content.items()
    if kind == "tensor":
        return tensors[inside]
    if kind == "tuple":
        return tuple(_decoded(value, tensors) for value in inside)
    return {key: _decoded(value, tensors) for key, value in inside}
