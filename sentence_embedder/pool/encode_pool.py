"""EncodePool: worker processes that encode texts with one model."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Generator, Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from sentence_embedder.devices import available_cores
from sentence_embedder.encoding.collector import Collector
from sentence_embedder.encoding.cut_texts import CutTexts
from sentence_embedder.lock import Lock
from sentence_embedder.pool.failure import PoolError, WorkerLostError
from sentence_embedder.pool.request import Answer, Request
from sentence_embedder.pool.schedule import Schedule
from sentence_embedder.pool.shared_file import open_standard_streams
from sentence_embedder.pool.worker import POOLS_FIRST, Slot, Worker
from sentence_embedder.pool.worker_process import PackedModel
from sentence_embedder.progress import Progress
from sentence_embedder.threads import start
from sentence_embedder.whole_number import is_whole

logger = logging.getLogger(__name__)

_MOST_CPU_WORKERS = 4
_CHUNKS_A_WORKER = 10
_LARGEST_CHUNK = 5000
_SECONDS_TO_STOP = 4.0


class Pool(Protocol):
    """Workers, on this machine or on others, that encode texts with one model."""

    @property
    def model(self) -> nn.Module | None:
        """The model that they had when they were started."""

    def run(
        self,
        request: Request,
        texts: Sequence[Any],
        collector: Collector,
        progress: Progress,
        *,
        cut: CutTexts,
        chunk_size: int | None = None,
    ) -> None:
        """Have texts encoded.

        Args:
            request: What is wanted of each text.
            texts: The texts.
            collector: Takes the results.
            progress: Told how many texts are done.
            cut: Told which texts were longer than the model reads.
            chunk_size: How many texts a worker is given at a time; by default a tenth of its share, up to 5000.
        """

    def stop(self) -> None:
        """End the workers, whatever they are doing."""


class EncodePool:
    """Worker processes that encode texts with one model: ``model.encode(texts, pool=pool)``.

    The workers have the model as it is when the pool is started; the caller's stays where it is, and what happens
    to it later does not reach them. On the CPU they share its weights, and the processor's cores. Chunks of texts
    are handed out as workers become free. Several threads may use one pool: their chunks take turns.

    A worker that is lost, because memory ran out say, is replaced, and its chunk given to another one, once.
    Workers end with the pool, or with the process that started it, in whatever way that ends.

    Args:
        model: The SentenceTransformer.
        devices: Where the workers compute, a device each, ``["cuda:0", "cuda:1"]`` say; by default all GPUs of this
            machine, or else up to four shares of the processor.

    Raises:
        ValueError: No device is given.
        Exception: Something in the model cannot be pickled.

    Example:
        >>> with EncodePool(model) as pool:
        ...     embeddings = model.encode(texts, pool=pool)
    """

    def __init__(self, model: nn.Module, devices: Sequence[str | torch.device] | None = None) -> None:
        slots = _slots(_default_devices() if devices is None else [torch.device(device) for device in devices])
        logger.info("starting a pool of workers on %s", ", ".join(str(slot.device) for slot in slots))
        self.devices = [slot.device for slot in slots]
        """Where each worker computes."""
        open_standard_streams()
        self._model = weakref.ref(model)
        self._crew = _Crew(slots, PackedModel.of(model))
        # A pool that nobody has any more does not wait for its workers to end.
        Finalize(self, self._crew.dismiss, exitpriority=POOLS_FIRST)
        self._crew.start()

    @property
    def model(self) -> nn.Module | None:
        """The model that was given to the workers, if its owner still has it."""
        return self._model()

    @property
    def processes(self) -> list[BaseProcess]:
        """The worker processes."""
        return self._crew.processes

    def __getitem__(self, name: str) -> list[BaseProcess]:
        # sentence-transformers returns a dict, of which callers look at the processes.
        if name != "processes":
            raise KeyError(f"{name!r}: a pool has 'processes'; texts and results do not go through queues")
        return self.processes

    __iter__ = None  # it is no sequence of processes

    def run(
        self,
        request: Request,
        texts: Sequence[Any],
        collector: Collector,
        progress: Progress,
        *,
        cut: CutTexts,
        chunk_size: int | None = None,
    ) -> None:
        """Have texts encoded; arguments as for ``Pool``.

        Raises:
            PoolError: A worker failed, or could not start; a chunk was lost twice; or the pool was stopped.
        """
        chunks = chunks_of(len(texts), len(self.devices), chunk_size)
        with closing(self._crew.answers(request, texts, chunks)) as answers:
            for rows, answer in answers:
                cut.add(answer.cut + rows.start)
                collector.put(np.arange(rows.start, rows.stop), answer.results())
                progress.update(len(rows))

    def stop(self) -> None:
        """End the workers, whatever they are doing; calls that wait for them get a PoolError."""
        self._crew.stop()

    def __enter__(self) -> EncodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = ", stopped" if self._crew.is_dismissed else ""
        return f"EncodePool({[str(device) for device in self.devices]}{state})"


def chunks_of(count: int, workers: int, size: int | None) -> list[range]:
    """The places of the texts of each chunk.

    Args:
        count: How many texts there are.
        workers: How many workers there are.
        size: How many texts a chunk has, if the caller has said so.

    Example:
        >>> chunks_of(5, 2, size=2)
        [range(0, 2), range(2, 4), range(4, 5)]
        >>> len(chunks_of(1000, 2, size=None))
        20
    """
    if size is None:
        size = max(1, min(-(-count // (workers * _CHUNKS_A_WORKER)), _LARGEST_CHUNK))
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def check_chunk_size(size: int | None) -> None:
    """Raise a ValueError for a size that is no positive whole number."""
    if size is not None and (not is_whole(size) or size < 1):
        raise ValueError(f"chunk_size: expected 1 or more, found {size!r}")


def _default_devices() -> list[torch.device]:
    """All GPUs; without one, shares of the processor."""
    for kind in ("cuda", "npu"):
        backend: Any = getattr(torch, kind, None)
        if backend is not None and backend.is_available():
            return [torch.device(kind, number) for number in range(backend.device_count())]
    return [torch.device("cpu")] * min(_MOST_CPU_WORKERS, available_cores())


def _slots(devices: Sequence[torch.device]) -> list[Slot]:
    """What the workers on these devices have to themselves: the cores are shared out."""
    if not devices:
        raise ValueError("a pool: expected at least one device, found none")
    cores, count = available_cores(), len(devices)
    shares = [max(1, cores // count + (number < cores % count)) for number in range(count)]
    return [
        Slot(f"worker {number} on {device}", device, threads)
        for number, (device, threads) in enumerate(zip(devices, shares, strict=True))
    ]


class _Crew:
    """The workers of a pool. Its methods do nothing in a process that was forked from its owner's.

    Args:
        slots: What each worker has to itself.
        model: The model that they compute with.
    """

    def __init__(self, slots: Sequence[Slot], model: PackedModel) -> None:
        self._owner = os.getpid()
        self._schedule = Schedule(len(slots))
        self._members = [_Member(slot, model, self._schedule) for slot in slots]
        # A signal's handler may stop it while its thread does so already.
        self._stopping = Lock()

    @property
    def processes(self) -> list[BaseProcess]:
        """The processes that there are at present."""
        return [worker.process for worker in (member.worker for member in self._members) if worker is not None]

    @property
    def is_dismissed(self) -> bool:
        """Whether they have been told to end."""
        return self._schedule.is_closed

    def start(self) -> None:
        """Start them; if that fails, none is left."""
        try:
            for member in self._members:
                member.start()
        except BaseException:
            self.stop()
            raise

    def answers(
        self, request: Request, texts: Sequence[Any], chunks: Sequence[range]
    ) -> Generator[tuple[range, Answer], None, None]:
        """What they make of each chunk; see ``Schedule.answers``."""
        if os.getpid() != self._owner:
            raise PoolError("this pool belongs to the process that this one was forked from: start one here")
        return self._schedule.answers(request, texts, chunks)

    def dismiss(self) -> None:
        """Tell them to end."""
        if os.getpid() == self._owner:
            self._schedule.close()
            for member in self._members:
                member.kill()

    def stop(self) -> None:
        """Tell them to end, and wait until they have. It can be interrupted, and called again."""
        if os.getpid() != self._owner:
            return
        with self._stopping:  # who comes second waits, too
            self.dismiss()
            end = time.monotonic() + _SECONDS_TO_STOP
            for member in self._members:
                member.join(end - time.monotonic())


class _Member:
    """A member of the crew: a thread that keeps a worker at work in a slot, and starts another one if it is lost.

    Args:
        slot: What a worker has to itself there.
        model: The model it computes with.
        schedule: Where the work comes from.
    """

    def __init__(self, slot: Slot, model: PackedModel, schedule: Schedule) -> None:
        self.worker: Worker | None = None
        self._slot = slot
        self._schedule = schedule
        # The model is the thread's alone: its file stays open until no worker is being started with it.
        self._thread = threading.Thread(target=self._run, args=(model,), name=slot.name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        start(self._thread)

    def _run(self, model: PackedModel) -> None:
        while not self._schedule.is_closed:
            with contextlib.suppress(Exception):  # if it fails again, somebody will be waiting for it
                self._ready_worker(model)
            self._serve(model)
        self._drop()

    def _serve(self, model: PackedModel) -> None:
        """Do the next task. What it belongs to is forgotten before the one after it is waited for."""
        task = self._schedule.take()
        if task is None:
            return
        try:
            task.succeed(self._ready_worker(model).work_on(task))
        except WorkerLostError as error:
            self._schedule.lose(task, error)
            self._drop()
        except PoolError as error:
            task.fail(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller waits for it
            failure = PoolError(f"{self._slot.name}: {error!r}", task.rows)
            failure.__cause__ = error.with_traceback(None)
            task.fail(failure)

    def _ready_worker(self, model: PackedModel) -> Worker:
        """The worker, or another one if it has ended.

        Raises:
            PoolError: It could not start.
            WorkerLostError: It was killed before it was ready.
        """
        if self.worker is not None and not self.worker.is_alive:
            self._drop()
        if self.worker is None:
            try:
                self.worker = Worker(self._slot, model)
            except Exception as error:
                raise PoolError(f"{self._slot.name} could not start: {error}") from error
        if self._schedule.is_closed:  # while it was being started, when there was nothing to kill
            self.worker.kill()
        try:
            self.worker.wait_until_ready()
        except Exception:
            self._drop()
            raise
        return self.worker

    def _drop(self) -> None:
        worker, self.worker = self.worker, None
        if worker is not None:
            with contextlib.suppress(Exception):  # nobody could do anything about it
                worker.end()

    def kill(self) -> None:
        """End the worker; the thread then ends, too, if the schedule is closed."""
        worker = self.worker
        if worker is not None:
            worker.kill()

    def join(self, seconds: float) -> None:
        """Wait for the thread, if it was started."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(max(0.0, seconds))
