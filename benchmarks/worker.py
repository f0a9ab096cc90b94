"""One engine at work, in an environment of its own: commands come in, and answers go out, as lines of JSON.

Only the standard library and numpy are imported, and whatever library the engine needs. A command is
``{"command": name, **arguments}``; its answer is ``{"result": …}``, or ``{"error": …}`` where it failed.
Results of ``encode`` stay here until ``save`` writes them to an ``.npy`` file.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Encode = Callable[[Sequence[str]], NDArray[Any]]
"""Texts → rows."""


class Loaded(NamedTuple):
    """An engine that is ready.

    Attributes:
        encode: What embeds texts.
        model: The SentenceTransformer, if it is one.
    """

    encode: Encode
    model: Any = None


Load = Callable[[str, str, int, Mapping[str, Any]], Loaded]
"""Model folder, device, number of threads, options → an engine that is ready."""

PACKAGES = (
    "sentence-embedder",
    "sentence-transformers",
    "torch",
    "transformers",
    "tokenizers",
    "onnxruntime",
    "openvino",
    "optimum",
    "fastembed",
    "numpy",
)
"""What a figure may depend on."""


class Worker:
    """An engine, the texts it was given, and its last result."""

    def __init__(self) -> None:
        self._engine: Loaded | None = None
        self._texts: dict[str, list[str]] = {}
        self._rows: NDArray[Any] | None = None

    def versions(self) -> dict[str, str]:
        """Package → version, of the interpreter and of what is installed."""
        found = {"python": ".".join(map(str, sys.version_info[:3]))}
        for package in PACKAGES:
            try:
                found[package] = version(package)
            except PackageNotFoundError:
                continue
        return found

    def load(self, loader: str, folder: str, device: str, threads: int, options: Mapping[str, Any]) -> None:
        """Make an engine ready; ``loader`` is a key of ``LOADERS``."""
        self._engine = LOADERS[loader](folder, device, threads, options)

    def read(self, name: str, path: str) -> int:
        """Take the texts of a file, a JSON string a line; the answer is their number."""
        with Path(path).open(encoding="utf-8") as lines:
            self._texts[name] = [json.loads(line) for line in lines]
        return len(self._texts[name])

    def encode(self, name: str, repeats: int = 1) -> list[float]:
        """Embed the texts of that name; the answer is the seconds that each of the repeats took."""
        return [self._timed(self._ready().encode, self._texts[name]) for _ in range(repeats)]

    def pool(self, name: str, processes: int) -> float:
        """Start so many processes, embed the texts of that name with them, and end them; the answer is the seconds
        that all of it took.
        """
        model = self._ready().model

        def encode(texts: Sequence[str]) -> NDArray[Any]:
            pool = model.start_multi_process_pool(["cpu"] * processes)
            try:
                rows: NDArray[Any] = model.encode(texts, pool=pool, show_progress_bar=False)
            finally:
                model.stop_multi_process_pool(pool)
            return rows

        return self._timed(encode, self._texts[name])

    def growth(self, name: str) -> int:
        """Embed the texts of that name once; the answer is the bytes by which the peak of resident memory rose
        above what was resident before.
        """
        before = _start_of_peak()
        self._timed(self._ready().encode, self._texts[name])
        return _peak() - before

    def save(self, path: str) -> None:
        """Write the last result as float32."""
        np.save(path, np.asarray(self._rows, dtype=np.float32))

    def export(self, folder: str, out: str, backend: str, quantization: str) -> None:
        """Write the model of a folder anew for a backend of sentence-transformers.

        Args:
            folder: The model folder.
            out: The folder to write, in which everything else is as in the first.
            backend: ``"onnx"``, which also writes a dynamically quantised copy, or ``"openvino"``.
            quantization: Instruction set that the quantised copy is for, such as ``"avx512_vnni"``.
        """
        from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

        arguments = {"provider": "CPUExecutionProvider"} if backend == "onnx" else {}
        model = SentenceTransformer(folder, device="cpu", backend=backend, model_kwargs=arguments)
        model.save_pretrained(out)
        if backend == "onnx":
            export_dynamic_quantized_onnx_model(model, quantization, out, file_suffix="int8")
        _set_limit(Path(out) / "tokenizer_config.json", model.max_seq_length)

    def _ready(self) -> Loaded:
        if self._engine is None:
            raise RuntimeError("encode before load")
        return self._engine

    def _timed(self, encode: Encode, texts: Sequence[str]) -> float:
        self._rows = None  # its memory is free before the next result takes some
        started = time.perf_counter()
        self._rows = encode(texts)
        return time.perf_counter() - started


# ── Engines ───────────────────────────────────────────────────────────────────────────────────────────────────


def _sentence_embedder(folder: str, device: str, threads: int, options: Mapping[str, Any]) -> Loaded:
    import torch

    from sentence_embedder import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device=device, **options)
    return Loaded(partial(model.encode, show_progress_bar=False), model)


def _sentence_transformers(folder: str, device: str, threads: int, options: Mapping[str, Any]) -> Loaded:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(folder, device=device, **options)
    return Loaded(partial(model.encode, show_progress_bar=False), model)


def _onnx(folder: str, device: str, threads: int, options: Mapping[str, Any]) -> Loaded:
    """sentence-transformers on ONNX Runtime; ``options`` has the ``file_name``."""
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = threads
    arguments = {"provider": "CPUExecutionProvider", "session_options": session_options, **options}
    return _sentence_transformers(folder, device, threads, {"backend": "onnx", "model_kwargs": arguments})


def _openvino(folder: str, device: str, threads: int, options: Mapping[str, Any]) -> Loaded:
    """sentence-transformers on OpenVINO; ``options`` are properties of the runtime."""
    config = {"INFERENCE_NUM_THREADS": threads, **options}
    arguments = {"backend": "openvino", "model_kwargs": {"ov_config": config}}
    return _sentence_transformers(folder, device, threads, arguments)


def _fastembed(folder: str, device: str, threads: int, options: Mapping[str, Any]) -> Loaded:
    """fastembed on a model that was exported for ONNX Runtime; ``options`` has the ``model_file``."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    del device  # it is the CPU
    if _pooling_mode(Path(folder)) != "mean" or not _is_normalized(Path(folder)):
        raise ValueError("only models that end with mean pooling and normalisation are described to fastembed here")
    TextEmbedding.add_custom_model(
        model=folder,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=folder),
        dim=_read_json(Path(folder) / "config.json")["hidden_size"],
        **options,
    )
    model = TextEmbedding(model_name=folder, specific_model_path=folder, threads=threads)
    return Loaded(lambda texts: np.stack(list(model.embed(texts))))


def _transformers(folder: str, device: str, threads: int, options: Mapping[str, Any]) -> Loaded:
    """What users write themselves: batches of 32 through a model of transformers, sorted and padded."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(threads)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModel.from_pretrained(folder, **options).eval().to(device)
    limit = _read_json(Path(folder) / "sentence_bert_config.json")["max_seq_length"]
    pool = {"mean": _mean, "lasttoken": _last_token}[_pooling_mode(Path(folder))]
    is_normalized = _is_normalized(Path(folder))

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> NDArray[Any]:
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        rows = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), 32):
            places = order[start : start + 32]
            batch = [texts[place] for place in places]
            features = tokenizer(batch, padding=True, truncation=True, max_length=limit, return_tensors="pt")
            features = features.to(device)
            pooled = pool(model(**features).last_hidden_state, features["attention_mask"])
            if is_normalized:
                pooled = torch.nn.functional.normalize(pooled, dim=-1)
            rows[places] = pooled.float().cpu().numpy()
        return rows

    return Loaded(encode)


LOADERS: Mapping[str, Load] = {
    "sentence_embedder": _sentence_embedder,
    "sentence_transformers": _sentence_transformers,
    "onnx": _onnx,
    "openvino": _openvino,
    "fastembed": _fastembed,
    "transformers": _transformers,
}


def _mean(tokens: Any, mask: Any) -> Any:
    """The mean of the token embeddings (texts, tokens, dim) that the mask does not hide."""
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weights).sum(1) / weights.sum(1)


def _last_token(tokens: Any, mask: Any) -> Any:
    """The last token embedding of each text that the mask does not hide, on whichever side padding stands."""
    places = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    return tokens[range(len(tokens)), places]


# ── Model folders ─────────────────────────────────────────────────────────────────────────────────────────────


def _pooling_mode(folder: Path) -> str:
    """``"mean"`` or ``"lasttoken"``, in either spelling of the settings of a Pooling."""
    config = _read_json(folder / "1_Pooling" / "config.json")
    mode: str | None = config.get("pooling_mode")
    return mode or ("lasttoken" if config.get("pooling_mode_lasttoken") else "mean")


def _is_normalized(folder: Path) -> bool:
    return any(row["type"].endswith("Normalize") for row in _read_json(folder / "modules.json"))


def _set_limit(path: Path, limit: int) -> None:
    """State the longest input in the settings of a tokenizer, which may hold another from a model's training."""
    path.write_text(json.dumps({**_read_json(path), "model_max_length": limit, "max_length": limit}))


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


# ── Memory ────────────────────────────────────────────────────────────────────────────────────────────────────


def _start_of_peak() -> int:
    """The resident bytes at this moment, from which on the peak is counted anew where the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return _peak()
    return _status_bytes("VmRSS")


def _peak() -> int:
    """The most bytes that were resident."""
    if Path("/proc/self/status").exists():
        return _status_bytes("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status_bytes(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/self/status has no {name}")


# ── Commands ──────────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Answer commands until there are no more."""
    # The other files of this folder are not for here: no library shall find a module of its own name among them.
    sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    worker = Worker()
    commands: Mapping[str, Callable[..., Any]] = {
        "versions": worker.versions,
        "load": worker.load,
        "read": worker.read,
        "encode": worker.encode,
        "pool": worker.pool,
        "growth": worker.growth,
        "save": worker.save,
        "export": worker.export,
    }
    for line in sys.stdin:
        arguments = json.loads(line)
        try:
            answer = {"result": commands[arguments.pop("command")](**arguments)}
        except Exception as error:  # noqa: BLE001 (any failure is an answer)
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
