"""Threads that compute a batch each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager

import torch

_setting = threading.Lock()


def thread_count() -> int:
    """How many threads torch uses for a product in this thread."""
    with _setting:  # so that a thread that is new to torch does not take over a number that is there for a moment
        return torch.get_num_threads()


@contextmanager
def side_by_side(count: int) -> Iterator[Executor]:
    """So many threads, each of which computes alone: products in one thread need not wait for each other.

    Args:
        count: How many.
    """
    with ThreadPoolExecutor(count, thread_name_prefix="encode") as threads:
        _make_single(threads, count)
        yield threads


def _make_single(threads: Executor, count: int) -> None:
    """Let each thread use one processor, and leave the caller's setting as it was.

    torch keeps the number by thread, but each setting is also the one that new threads begin with.
    """
    with _setting:
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
