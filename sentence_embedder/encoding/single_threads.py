"""Threads that compute a batch each."""

from __future__ import annotations

import os

import torch

from sentence_embedder.forks import ProcessLock, compute_alone_if_forked, threads_elsewhere
from sentence_embedder.threads import Threads

_setting = ProcessLock()
_pools: dict[str, SingleThreads] = {}


def thread_count() -> int:
    """How many threads torch uses for a product in this thread."""
    with _setting.here():  # so that a thread that is new to torch does not take over a number of the moment
        return threads_elsewhere()


def single_threads(count: int) -> SingleThreads:
    """So many threads, each of which computes alone: products in one thread need not wait for each other.

    They are the process's, and stay: all calls share them, and what they have compiled and allocated is found again
    by the next call.

    Args:
        count: How many.
    """
    return _of_process(count, "encode")


def lone_threads(count: int) -> SingleThreads:
    """The same for lone batches, which others wait for: they do not queue behind those of calls with many texts.

    Args:
        count: How many.
    """
    return _of_process(count, "encode-lone")


def _of_process(count: int, name: str) -> SingleThreads:
    with _setting.here():
        pool = _pools.get(name)
        if pool is None or pool.count != count:
            # Those who still use another number of threads have them as long as they need them.
            pool = _pools[name] = SingleThreads(count, name)
        return pool


class SingleThreads(Threads):
    """Threads of which each uses one processor; the caller's setting is left as it was.

    Args:
        count: How many.
        name: What they are called, before a number.

    Raises:
        RuntimeError: The system gives no more threads.
    """

    def __init__(self, count: int, name: str = "encode") -> None:
        self.count = count
        before = threads_elsewhere()
        try:
            super().__init__(count, name, prepare=_be_single)
        finally:
            # torch keeps the number by thread, but each setting is also the one that new threads begin with.
            torch.set_num_threads(before)
            compute_alone_if_forked()


def _be_single() -> None:
    torch.get_num_threads()  # the first question a thread asks undoes what was set before
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # their threads are not there
