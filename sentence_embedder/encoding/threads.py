"""Threads that compute a batch each."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any

import torch

from sentence_embedder.forks import ProcessLock, compute_alone_if_forked, threads_elsewhere

_setting = ProcessLock()
_pools: dict[int, SingleThreads] = {}


def thread_count() -> int:
    """How many threads torch uses for a product in this thread."""
    with _setting.here():  # so that a thread that is new to torch does not take over a number of the moment
        return threads_elsewhere()


def single_threads(count: int) -> Executor:
    """So many threads, each of which computes alone: products in one thread need not wait for each other.

    They are the process's, and stay: all calls share them, and what they have compiled and allocated is found again
    by the next call.

    Args:
        count: How many.
    """
    with _setting.here():
        if count not in _pools:
            pool = SingleThreads(count)
            _pools.clear()  # those who still use another number of threads have them as long as they need them
            _pools[count] = pool
        return _pools[count]


class SingleThreads(Executor):
    """Threads that end when nobody has this object any more.

    Unlike those of the standard library they work until the interpreter ends, as long as any thread encodes; and
    an exception that somebody throws into one of them costs no thread, and one task at most.

    Args:
        count: How many.
        name: What they are called, before a number.

    Raises:
        RuntimeError: The system gives no more threads.
    """

    def __init__(self, count: int, name: str = "encode") -> None:
        self._tasks = _Tasks()
        weakref.finalize(self, self._tasks.end, count).atexit = False
        _make_single(self._tasks, count, name)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The future result of a call."""
        task = _Task(fn, args, kwargs)
        self._tasks.add(task)
        return task.future


class _Task:
    """A call, and its result."""

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.future: Future[Any] = Future()
        self._call: Callable[[], Any] = lambda: call(*args, **kwargs)
        self._turn = threading.Lock()

    def run(self) -> None:
        """Make the result, unless another thread does."""
        try:
            if self._turn.acquire(blocking=False) and self.future.set_running_or_notify_cancel():
                self.future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001  # it is that of whoever waits for the result
            self.future.set_exception(error)


class _Tasks:
    """What a number of threads have to do."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[_Task | None] = SimpleQueue()
        self._unfinished: set[_Task] = set()

    def add(self, task: _Task) -> None:
        """Take a task."""
        self._unfinished.add(task)
        self._queue.put(task)

    def end(self, count: int) -> None:
        """Let so many threads end, after what is to be done."""
        for _ in range(count):
            self._queue.put(None)

    def work(self) -> None:
        """Do tasks until there are no more."""
        while True:
            try:
                while (task := self._queue.get()) is not None:
                    task.run()
                    self._unfinished.discard(task)
                    del task  # whoever waits for it has the result, which may be large
                return
            except BaseException:  # noqa: BLE001  # thrown in from outside, perhaps when a task had just been taken
                for task in self._unfinished.copy():
                    self._queue.put(task)


def _make_single(tasks: _Tasks, count: int, name: str) -> None:
    """Start threads of which each uses one processor, and leave the caller's setting as it was.

    torch keeps the number by thread, but each setting is also the one that new threads begin with.
    """
    before = threads_elsewhere()
    everyone = threading.Barrier(count + 1)

    def be_single() -> None:
        torch.get_num_threads()  # the first question a thread asks undoes what was set before
        torch.set_num_threads(1)
        try:
            everyone.wait()
        except threading.BrokenBarrierError:
            return
        tasks.work()

    try:
        for number in range(count):
            threading.Thread(target=be_single, name=f"{name}_{number}", daemon=True).start()
        everyone.wait()
    except BaseException:
        everyone.abort()  # a thread could not be started: those that were must not wait for it
        raise
    finally:
        torch.set_num_threads(before)
        compute_alone_if_forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # their threads are not there
