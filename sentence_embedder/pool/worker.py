"""Worker: a process that encodes one chunk after the other, as its pool sees it."""

from __future__ import annotations

import contextlib
import multiprocessing.process
import os
import pickle
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any
from weakref import WeakSet

import torch

from sentence_embedder.lock import Lock
from sentence_embedder.pool import worker_process
from sentence_embedder.pool.failure import Failure, PoolError, WorkerLostError
from sentence_embedder.pool.request import Answer
from sentence_embedder.pool.schedule import Task
from sentence_embedder.pool.shared_file import SharedFile
from sentence_embedder.pool.worker_process import PackedModel

_SECONDS_TO_END = 2.0
_SECONDS_BETWEEN_LOOKS = 1.0

_starting = Lock()
"""multiprocessing looks after all of its processes when it starts one."""

POOLS_FIRST = 200
_THEN_WORKERS = 100
"""When what ends them is called at the end of the process: the highest first, and all before multiprocessing asks
processes to end, which they may refuse, and waits for them without end."""

_is_ending = False
"""Whether no more processes are started, since this one ends."""

_ending: Finalize | None = None
"""What ends all workers then."""

_processes: WeakSet[BaseProcess] = WeakSet()
"""Those of all workers."""

_connections: WeakSet[Any] = WeakSet()
"""Both ends of those to them."""

_LONGEST_WAIT_AT_END = 2.0
"""For so many seconds the end of this process waits for what is being started."""


@dataclass(frozen=True)
class Slot:
    """What a worker of a pool has to itself.

    Args:
        name: What it is called.
        device: Where it computes.
        threads: How many threads it computes with.
    """

    name: str
    device: torch.device
    threads: int


class Worker:
    """A process that encodes one chunk at a time.

    It is started at once, and ready some seconds later. One thread at a time talks to it; any thread may kill it.

    Args:
        slot: What it has to itself.
        model: The model it computes with.
    """

    def __init__(self, slot: Slot, model: PackedModel) -> None:
        self._slot = slot
        self._is_ready = False
        self._unsent = model.sent
        context = get_context("spawn")
        with ExitStack() as opened:
            self._connection, its_end = context.Pipe()
            opened.callback(self._connection.close)
            _connections.update((self._connection, its_end))
            with its_end:
                self._answers = SharedFile.create("sentence-embedder-answers")
                self.process: BaseProcess = context.Process(
                    target=worker_process.main,
                    args=(its_end, model.given, self._answers, str(slot.device), slot.threads),
                    name=slot.name,
                    daemon=True,
                )
                _start(self.process)
            opened.pop_all()

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.is_alive()

    def wait_until_ready(self) -> None:
        """Wait until it has loaded the model.

        Raises:
            PoolError: It could not.
            WorkerLostError: The process was killed.
        """
        if self._is_ready:
            return
        try:
            self._send_model()
            reply = self._receive()
        except WorkerLostError as error:
            if (self.process.exitcode or 0) < 0:
                raise
            raise PoolError(
                f"{error}, before it had loaded the model. If a script starts the pool, it must do so below "
                "`if __name__ == '__main__':`, because each worker imports the script"
            ) from error
        if isinstance(reply, Failure):
            raise reply.error(self._slot.name)
        self._is_ready = True

    def _send_model(self) -> None:
        """Send it the model, if that is in no file."""
        unsent, self._unsent = self._unsent, None
        if unsent is None:
            return
        try:
            self._connection.send_bytes(unsent)
        except OSError as error:
            raise self._lost() from error

    def work_on(self, task: Task) -> Answer:
        """Let it encode a chunk.

        Raises:
            PoolError: The worker says that it failed.
            WorkerLostError: The process has ended.
        """
        try:
            message = pickle.dumps((task.job.request, task.texts), protocol=pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            raise PoolError(f"a text, or an argument, cannot be sent to a worker: {error}", task.rows) from error
        try:
            self._connection.send_bytes(message)
        except OSError as error:
            raise self._lost() from error
        reply = self._receive()
        if isinstance(reply, Failure):
            raise reply.error(self._slot.name, task.rows)
        answer: Answer = reply
        return answer

    def _receive(self) -> Any:
        """What it sends next. That it has ended is looked for, too: another process may hold its end of the
        pipe.
        """
        sentinel = self.process.sentinel
        while True:
            ready = connection.wait([self._connection, sentinel], timeout=_SECONDS_BETWEEN_LOOKS)
            has_ended = sentinel in ready or not self.is_alive
            if self._connection in ready or (has_ended and self._connection.poll(0)):
                break
            if has_ended:
                raise self._lost()
        try:
            return worker_process.receive(self._connection, self._answers)
        except (EOFError, OSError) as error:
            raise self._lost() from error

    def _lost(self) -> WorkerLostError:
        """What is known about how it ended."""
        self.process.join(_SECONDS_TO_END)
        code = self.process.exitcode
        if code is None:
            how = "no longer answers"
        elif code < 0:
            memory = "; the system does that when memory runs out" if -code == signal.SIGKILL else ""
            how = f"was killed by {signal.Signals(-code).name}{memory}"
        else:
            how = f"ended with exit code {code}"
        return WorkerLostError(f"{self._slot.name} (process {self.process.pid}) {how}")

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        _kill(self.process)

    def end(self) -> None:
        """End the process, and leave nothing behind."""
        self.kill()
        self.process.join(_SECONDS_TO_END)
        # The process is not closed: when the interpreter ends, multiprocessing waits for it at the same time.
        self._connection.close()
        if self._answers is not None:
            self._answers.close()


def _start(process: BaseProcess) -> None:
    """Start a process that Ctrl-C does not reach: it is for the caller. Not to get signals is inherited.

    Raises:
        RuntimeError: This process ends.
    """
    with _starting:
        if _is_ending:
            raise RuntimeError("the process that would start it is about to end")
        _end_all_in_time()
        _processes.add(process)
        if hasattr(signal, "pthread_sigmask"):
            # Only on such systems; and when it starts, it lets signals through to this thread.
            from multiprocessing import resource_tracker

            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        process.start()


def _end_all() -> None:
    """Let what is being started be started, and end all workers: one that multiprocessing does not know of yet
    would be left.
    """
    global _is_ending
    _is_ending = True
    if _starting.acquire(timeout=_LONGEST_WAIT_AT_END):
        _starting.release()
    for process in list(_processes):
        _kill(process)


def _kill(process: BaseProcess) -> None:
    # Its own thread may see to it at the same moment.
    with contextlib.suppress(ValueError, AttributeError, OSError):
        process.kill()


def _end_all_in_time() -> None:
    """Do that at the end of this process, of which it is said once."""
    global _ending
    if _ending is None or not _ending.still_active():
        _ending = Finalize(None, _end_all, exitpriority=_THEN_WORKERS)


def _forget_parent() -> None:
    """In a forked process, no other thread is starting anything, and no worker is its own: multiprocessing would
    end them with it. And it would keep their pipes open.
    """
    global _starting, _is_ending, _ending
    _starting, _is_ending, _ending = Lock(), False, None
    getattr(multiprocessing.process, "_children", set()).difference_update(_processes)
    _processes.clear()
    for pipe in list(_connections):
        with contextlib.suppress(OSError):  # which another thread was just closing
            pipe.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
