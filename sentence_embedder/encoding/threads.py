"""Threads that compute a batch each."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Executor, ThreadPoolExecutor

import torch

_setting = threading.RLock()
_pools: dict[int, ThreadPoolExecutor] = {}


def thread_count() -> int:
    """How many threads torch uses for a product in this thread."""
    with _setting:  # so that a thread that is new to torch does not take over a number that is there for a moment
        return torch.get_num_threads()


def single_threads(count: int) -> Executor:
    """So many threads, each of which computes alone: products in one thread need not wait for each other.

    They are the process's, and stay: all calls share them, and what they have compiled and allocated is found again
    by the next call.

    Args:
        count: How many.
    """
    with _setting:
        if count not in _pools:
            pool = ThreadPoolExecutor(count, thread_name_prefix="encode")
            try:
                _make_single(pool, count)
            except BaseException:
                pool.shutdown(wait=False)
                raise
            _pools.clear()  # those who still use another number of threads have them as long as they need them
            _pools[count] = pool
        return _pools[count]


def _make_single(threads: Executor, count: int) -> None:
    """Let each thread use one processor, and leave the caller's setting as it was.

    torch keeps the number by thread, but each setting is also the one that new threads begin with.
    """
    before = torch.get_num_threads()
    everyone = threading.Barrier(count + 1)

    def be_single() -> None:
        torch.get_num_threads()  # the first question a thread asks undoes what was set before
        torch.set_num_threads(1)
        everyone.wait()

    try:
        for _ in range(count):
            threads.submit(be_single)
        everyone.wait()
    except BaseException:
        everyone.abort()  # a thread could not be started: those that were must not wait for it
        raise
    finally:
        torch.set_num_threads(before)


def _forget_threads() -> None:
    """In a forked process there are no threads but the one that forked, whatever it had or held."""
    global _setting
    _setting = threading.RLock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
