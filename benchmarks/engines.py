"""The engines that are compared: a library, in an environment, with options."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).parents[1]

Device = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]


@dataclass(frozen=True)
class Library:
    """Software that computes embeddings.

    Attributes:
        loader: What loads a model in ``worker.py``: a key of its ``LOADERS``.
        statement: What a user writes to import it.
        environment: Folder of its environment, as ``make bench`` makes it; empty for this interpreter's own,
            which is also taken where the folder is missing and the library is installed here.
        export: The backend of sentence-transformers that a model must be exported for, if any.
        devices: Where it is measured. On a GPU every library is taken from this interpreter's environment.
    """

    loader: str
    statement: str
    environment: str = ""
    export: Literal["onnx", "openvino"] | None = None
    devices: tuple[Device, ...] = ("cpu",)

    def interpreter(self, device: Device) -> Path:
        """The Python to run it with."""
        here = Path(sys.executable)
        if not self.environment or device == "cuda":
            return here
        there = ROOT / self.environment / "bin" / "python"
        return here if not there.exists() and self._is_here() else there

    def is_installed(self, device: Device) -> bool:
        """Whether it can be had at all; that its environment is whole is not looked into."""
        interpreter = self.interpreter(device)
        return self._is_here() if interpreter == Path(sys.executable) else interpreter.exists()

    def _is_here(self) -> bool:
        return find_spec(self.statement.split()[1]) is not None


@dataclass(frozen=True)
class Engine:
    """A library with options.

    Attributes:
        key: Its name on the command line and in the JSON.
        title: Its name in tables.
        library: What computes.
        precision: The format of its matrix products.
        options: What its loader is given.
    """

    key: str
    title: str
    library: Library
    precision: Precision = "fp32"
    options: Mapping[str, Any] = field(default_factory=dict)


_EVERYWHERE: tuple[Device, ...] = ("cpu", "cuda")
_FROM_SENTENCE_TRANSFORMERS = "from sentence_transformers import SentenceTransformer"

OURS = Library(
    "sentence_embedder",
    "from sentence_embedder import SentenceTransformer",
    ".venv-bench-ours",
    devices=_EVERYWHERE,
)
REFERENCE = Library(
    "sentence_transformers", _FROM_SENTENCE_TRANSFORMERS, ".venv-reference-6.2", devices=_EVERYWHERE
)
ONNX = Library("onnx", _FROM_SENTENCE_TRANSFORMERS, ".venv-bench-onnx", export="onnx")
OPENVINO = Library("openvino", _FROM_SENTENCE_TRANSFORMERS, ".venv-bench-openvino", export="openvino")
FASTEMBED = Library("fastembed", "from fastembed import TextEmbedding", ".venv-bench-onnx", export="onnx")
TRANSFORMERS = Library("transformers", "from transformers import AutoModel, AutoTokenizer", devices=_EVERYWHERE)

_BFLOAT16 = {"model_kwargs": {"dtype": "bfloat16"}}

ENGINES: Sequence[Engine] = (
    Engine("reference-fp32", "sentence-transformers fp32", REFERENCE),
    Engine("reference-bf16", "sentence-transformers bf16", REFERENCE, "bf16", _BFLOAT16),
    Engine("onnx-fp32", "sentence-transformers, ONNX fp32", ONNX, options={"file_name": "onnx/model.onnx"}),
    Engine("onnx-int8", "sentence-transformers, ONNX int8", ONNX, "int8", {"file_name": "onnx/model_int8.onnx"}),
    Engine(
        "openvino-fp32",
        "sentence-transformers, OpenVINO fp32",
        OPENVINO,
        options={"INFERENCE_PRECISION_HINT": "f32"},
    ),
    Engine(
        "openvino-bf16",
        "sentence-transformers, OpenVINO bf16",
        OPENVINO,
        "bf16",
        {"INFERENCE_PRECISION_HINT": "bf16"},
    ),
    Engine("fastembed-fp32", "fastembed fp32", FASTEMBED, options={"model_file": "onnx/model.onnx"}),
    Engine("transformers-fp32", "transformers, batches of 32", TRANSFORMERS),
    Engine("ours-fp32", "sentence_embedder fp32", OURS),
    Engine("ours-bf16", "sentence_embedder bf16", OURS, "bf16", {"dtype": "bfloat16"}),
)

_BASELINES = ("reference-fp32", "transformers-fp32")
"""What the others are compared with: the first of these that can be had."""


def engines_for(device: Device, keys: Sequence[str] = ()) -> list[Engine]:
    """The engines to measure on a device, the baseline first.

    Args:
        device: The device.
        keys: Those that are asked for; all that are for the device, if empty.

    Returns:
        The engines, in the order of the table but for the first, which the others are compared with. One that
        is not installed is among them: to measure it fails, and the report then says why.
    """
    chosen = [engine for engine in ENGINES if device in engine.library.devices and (not keys or engine.key in keys)]
    ready = {engine.key: engine for engine in chosen if engine.library.is_installed(device)}
    baseline = next((ready[key] for key in _BASELINES if key in ready), None)
    return chosen if baseline is None else [baseline, *(engine for engine in chosen if engine != baseline)]
