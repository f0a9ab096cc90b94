"""A session: the processes of the engines, and the files that they are given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engines import ROOT, Device, Engine
from benchmarks.models import ModelFolders
from benchmarks.worker_process import WorkerError, WorkerProcess

_WARM_UP_TEXTS = 64


class Session:
    """Starts engines when they are first needed, and ends them when another model's turn comes.

    Args:
        folders: Where the models are.
        device: Where to compute.
        threads: How many threads every engine may use.
        quantization: Instruction set that quantised models are made for.
    """

    def __init__(
        self, folders: ModelFolders, *, device: Device = "cpu", threads: int = 2, quantization: str = "avx2"
    ) -> None:
        self.device = device
        self.threads = threads
        self.versions: dict[str, dict[str, str]] = {}
        """Key of an engine → package → version, of the engines that ran."""
        self._folders = folders
        self._quantization = quantization
        self._scratch_folder = TemporaryDirectory(prefix="bench-")
        self._scratch = Path(self._scratch_folder.name)
        self._model = ""
        self._workers: dict[str, WorkerProcess] = {}
        self._handed: set[tuple[str, str]] = set()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end_workers()
        self._scratch_folder.cleanup()

    # ── Engines that stay ─────────────────────────────────────────────────────────────────────────────────

    def encode(
        self, engine: Engine, model: str, name: str, texts: Sequence[str], *, repeats: int = 1
    ) -> list[float]:
        """The seconds that each of the repeats took an engine that has the model loaded.

        Args:
            engine: The engine.
            model: Name of the model.
            name: Name of the texts; under a name there are always the same ones.
            texts: What is embedded.
            repeats: How many times.
        """
        worker = self._worker(engine, model)
        self._hand(engine, worker, name, texts)
        seconds: list[float] = worker.ask("encode", name=name, repeats=repeats)
        return seconds

    def pool(self, engine: Engine, model: str, name: str, texts: Sequence[str], *, processes: int) -> float:
        """The seconds that an engine that has the model loaded takes to start processes, to embed texts with them,
        and to end them.

        Args:
            engine: The engine.
            model: Name of the model.
            name: Name of the texts.
            texts: What is embedded.
            processes: How many.
        """
        worker = self._worker(engine, model)
        self._hand(engine, worker, name, texts)
        seconds: float = worker.ask("pool", name=name, processes=processes)
        return seconds

    def growth(self, engine: Engine, model: str, name: str, texts: Sequence[str]) -> int:
        """The bytes by which memory grew at most while an engine, warmed up, embedded texts once.

        Args:
            engine: The engine.
            model: Name of the model.
            name: Name of the texts.
            texts: What is embedded.
        """
        worker = self._worker(engine, model)
        warm_up = f"{name}-warm-up"
        self._hand(engine, worker, warm_up, texts[:_WARM_UP_TEXTS])
        self._hand(engine, worker, name, texts)
        worker.ask("encode", name=warm_up)
        grown: int = worker.ask("growth", name=name)
        return grown

    def last_rows(self, engine: Engine, model: str) -> NDArray[Any]:
        """The embeddings (texts, dim) that an engine made last."""
        path = self._scratch / "rows.npy"
        self._worker(engine, model).ask("save", path=str(path))
        rows: NDArray[Any] = np.load(path)
        path.unlink()
        return rows

    def _worker(self, engine: Engine, model: str) -> WorkerProcess:
        """An engine with the model loaded; those that have another model are ended first."""
        if model != self._model:
            self._end_workers()
            self._model = model
        if engine.key in self._workers and self._workers[engine.key].has_ended:
            self._forget(engine)
        if engine.key not in self._workers:
            folder = self._folder(engine, model)
            worker = self._started(engine)
            try:
                self._load(worker, engine, folder)
                self.versions[engine.key] = worker.ask("versions")
            except BaseException:
                worker.close()
                raise
            self._workers[engine.key] = worker
        return self._workers[engine.key]

    def _end_workers(self) -> None:
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()
        self._handed.clear()

    def _forget(self, engine: Engine) -> None:
        self._workers.pop(engine.key).close()
        self._handed = {(key, name) for key, name in self._handed if key != engine.key}

    def _hand(self, engine: Engine, worker: WorkerProcess, name: str, texts: Sequence[str]) -> None:
        if (engine.key, name) not in self._handed:
            worker.ask("read", name=name, path=str(self._text_file(name, texts)))
            self._handed.add((engine.key, name))

    # ── Engines that start anew ───────────────────────────────────────────────────────────────────────────

    def time_of_import(self, engine: Engine) -> float:
        """The seconds that a fresh interpreter takes to import the library of an engine and to end.

        Raises:
            WorkerError: It fails.
        """
        interpreter = self._interpreter(engine)
        environment = {**os.environ, **self._environment(interpreter)}
        command = [str(interpreter), "-c", engine.library.statement]
        started = time.perf_counter()
        try:
            subprocess.run(command, env=environment, cwd=self._scratch, check=True, capture_output=True)
        except subprocess.CalledProcessError as error:
            raise WorkerError(f"{engine.library.statement!r} fails: {error.stderr.decode()[-300:]}") from error
        return time.perf_counter() - started

    def time_of_cold_start(self, engine: Engine, model: str, text: str) -> float:
        """The seconds that a fresh interpreter takes to load a model with an engine, to embed a text and to end."""
        folder = self._folder(engine, model)
        path = self._text_file("cold start", [text])
        started = time.perf_counter()
        with self._started(engine) as worker:
            self._load(worker, engine, folder)
            worker.ask("read", name="text", path=str(path))
            worker.ask("encode", name="text")
        return time.perf_counter() - started

    def _started(self, engine: Engine) -> WorkerProcess:
        interpreter = self._interpreter(engine)
        return WorkerProcess(interpreter, environment=self._environment(interpreter), scratch=self._scratch)

    def _interpreter(self, engine: Engine) -> Path:
        interpreter = engine.library.interpreter(self.device)
        if not interpreter.exists():
            raise WorkerError(f"the environment {engine.library.environment} is not installed")
        return interpreter

    def _load(self, worker: WorkerProcess, engine: Engine, folder: Path) -> None:
        worker.ask(
            "load",
            loader=engine.library.loader,
            folder=str(folder),
            device=self.device,
            threads=self.threads,
            options=dict(engine.options),
        )

    # ── Files ─────────────────────────────────────────────────────────────────────────────────────────────

    def _folder(self, engine: Engine, model: str) -> Path:
        """The model folder for an engine, exported for it if it needs that."""
        backend = engine.library.export
        if backend is None:
            return self._folders.folder(model)

        def export(folder: Path, out: Path) -> None:
            with self._started(engine) as worker:
                worker.ask(
                    "export", folder=str(folder), out=str(out), backend=backend, quantization=self._quantization
                )

        return self._folders.exported(model, backend, export)

    def _text_file(self, name: str, texts: Sequence[str]) -> Path:
        path = self._scratch / f"{name}.jsonl"
        if not path.exists():
            path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
        return path

    def _environment(self, interpreter: Path) -> dict[str, str]:
        threads = str(self.threads)
        offline = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}
        limits = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads}
        # What pip installs it compiles, but not this checkout, which a process must be allowed to do.
        compiled = {"PYTHONDONTWRITEBYTECODE": ""}
        path = str(ROOT) if interpreter == Path(sys.executable) else ""
        return {**offline, **limits, **compiled, "PYTHONPATH": path}
