"""EncodePool: worker processes that encode texts with one model."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import closing
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from sentence_embedder.devices import available_cores
from sentence_embedder.encoding.collector import Collector
from sentence_embedder.encoding.options import is_whole
from sentence_embedder.pool.failure import PoolError, WorkerLostError
from sentence_embedder.pool.request import Request
from sentence_embedder.pool.schedule import Schedule, Task
from sentence_embedder.pool.worker import Place, Worker
from sentence_embedder.pool.worker_process import PackedModel
from sentence_embedder.progress import Progress

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
        chunk_size: int | None = None,
    ) -> None:
        """Have texts encoded.

        Args:
            request: What is wanted of each text.
            texts: The texts.
            collector: Takes the results.
            progress: Told how many texts are done.
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
        >>> with EncodePool(model) as pool:  # doctest: +SKIP
        ...     embeddings = model.encode(texts, pool=pool)
    """

    def __init__(self, model: nn.Module, devices: Sequence[str | torch.device] | None = None) -> None:
        places = _places(_default_devices() if devices is None else [torch.device(device) for device in devices])
        logger.info("starting a pool of workers on %s", ", ".join(str(place.device) for place in places))
        self.devices = [place.device for place in places]
        """Where each worker computes."""
        self._model = weakref.ref(model)
        self._schedule = Schedule(len(places))
        packed = PackedModel.of(model)
        self._members = [_Member(place, packed, self._schedule) for place in places]
        self._owner = os.getpid()
        self._stop = weakref.finalize(self, _stop, self._schedule, self._members, packed, self._owner)

    @property
    def model(self) -> nn.Module | None:
        """The model that was given to the workers, if its owner still has it."""
        return self._model()

    @property
    def processes(self) -> list[BaseProcess]:
        """The worker processes."""
        return [worker.process for worker in (member.worker for member in self._members) if worker is not None]

    def __getitem__(self, name: str) -> list[BaseProcess]:
        # sentence-transformers returns a dict, of which callers look at the processes.
        if name != "processes":
            raise KeyError(f"{name!r}: a pool has 'processes'; texts and results do not go through queues")
        return self.processes

    def run(
        self,
        request: Request,
        texts: Sequence[Any],
        collector: Collector,
        progress: Progress,
        *,
        chunk_size: int | None = None,
    ) -> None:
        """Have texts encoded; arguments as for ``Pool``.

        Raises:
            PoolError: A worker failed, or could not start; a chunk was lost twice; or the pool was stopped.
            ValueError: The size of chunks is not positive.
        """
        if os.getpid() != self._owner:
            raise PoolError("this pool belongs to the process that this one was forked from: start one here")
        chunks = chunks_of(len(texts), len(self._members), chunk_size)
        with closing(self._schedule.answers(request, texts, chunks)) as answers:
            for rows, answer in answers:
                collector.put(np.arange(rows.start, rows.stop), answer.results())
                progress.update(len(rows))

    def stop(self) -> None:
        """End the workers, whatever they are doing; calls that wait for them get a PoolError."""
        self._stop()

    def __enter__(self) -> EncodePool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "" if self._stop.alive else ", stopped"
        return f"EncodePool({[str(device) for device in self.devices]}{state})"


def chunks_of(count: int, workers: int, size: int | None) -> list[range]:
    """The places of the texts of each chunk.

    Args:
        count: How many texts there are.
        workers: How many workers there are.
        size: How many texts a chunk has, if the caller has said so.

    Raises:
        ValueError: The size is not positive.

    Example:
        >>> chunks_of(5, 2, size=2)
        [range(0, 2), range(2, 4), range(4, 5)]
        >>> len(chunks_of(1000, 2, size=None))
        20
    """
    if size is None:
        size = max(1, min(-(-count // (workers * _CHUNKS_A_WORKER)), _LARGEST_CHUNK))
    if not is_whole(size) or size < 1:
        raise ValueError(f"chunk_size: expected 1 or more, found {size!r}")
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _default_devices() -> list[torch.device]:
    """All GPUs; without one, shares of the processor."""
    for kind in ("cuda", "npu"):
        backend: Any = getattr(torch, kind, None)
        if backend is not None and backend.is_available():
            return [torch.device(kind, number) for number in range(backend.device_count())]
    return [torch.device("cpu")] * min(_MOST_CPU_WORKERS, available_cores())


def _places(devices: Sequence[torch.device]) -> list[Place]:
    """What the workers on these devices have to themselves: the cores are shared out."""
    if not devices:
        raise ValueError("a pool: expected at least one device, found none")
    cores, count = available_cores(), len(devices)
    shares = [max(1, cores // count + (number < cores % count)) for number in range(count)]
    return [
        Place(f"worker {number} on {device}", device, threads)
        for number, (device, threads) in enumerate(zip(devices, shares, strict=True))
    ]


class _Member:
    """A place in a pool: a thread that keeps a worker at work there, and starts another one if it is lost.

    Args:
        place: What a worker has to itself there.
        model: The model it computes with.
        schedule: Where the work comes from.
    """

    def __init__(self, place: Place, model: PackedModel, schedule: Schedule) -> None:
        self.worker: Worker | None = None
        self._place = place
        self._model = model
        self._schedule = schedule
        self._thread = threading.Thread(target=self._run, name=place.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if hasattr(signal, "pthread_sigmask"):
            # Ctrl-C is for the caller. A process inherits this from the thread that starts it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            while not self._schedule.is_closed:
                with contextlib.suppress(PoolError):  # if it fails again, somebody will be waiting for it
                    self._ready_worker()
                task = self._schedule.take()
                if task is not None:
                    self._work_on(task)
        finally:
            self._drop()

    def _ready_worker(self) -> Worker:
        """The worker, or another one if it has ended.

        Raises:
            PoolError: It could not start.
        """
        if self.worker is not None and not self.worker.is_alive:
            self._drop()
        if self.worker is None:
            self.worker = self._started()
        try:
            self.worker.wait_until_ready()
        except PoolError:
            self._drop()
            raise
        return self.worker

    def _started(self) -> Worker:
        try:
            worker = Worker(self._place, self._model)
        except Exception as error:
            raise PoolError(f"{self._place.name} could not start: {error}") from error
        if self._schedule.is_closed:  # while it was being started
            worker.kill()
        return worker

    def _work_on(self, task: Task) -> None:
        try:
            task.succeed(self._ready_worker().work_on(task))
        except WorkerLostError as error:
            self._drop()
            self._schedule.lose(task, error)
        except PoolError as error:
            task.fail(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller waits for it
            failure = PoolError(f"{self._place.name}: {error!r}", task.rows)
            failure.__cause__ = error
            task.fail(failure)

    def _drop(self) -> None:
        if self.worker is not None:
            self.worker.end()
            self.worker = None

    def kill(self) -> None:
        """End the worker; the thread then ends, too, if the schedule is closed."""
        worker = self.worker
        if worker is not None:
            with contextlib.suppress(ValueError):  # it has ended, and the thread has seen to it
                worker.kill()

    def join(self, seconds: float) -> None:
        """Wait for the thread."""
        if self._thread is not threading.current_thread():
            self._thread.join(max(0.0, seconds))


def _stop(schedule: Schedule, members: Sequence[_Member], model: PackedModel, owner: int) -> None:
    """Stop a pool; in a process that was forked from its owner, nothing."""
    if os.getpid() != owner:
        return
    schedule.close()
    end = time.monotonic() + _SECONDS_TO_STOP
    for member in members:
        member.kill()
    for member in members:
        member.join(end - time.monotonic())
    model.close()
