"""Forks: what lets a process compute that was forked from one in which threads computed.

Of all threads a forked process has only the one that forked. Locks that others held stay locked in it, and threads
with which OpenMP shares out a product are waited for in vain.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch

from sentence_embedder.lock import Lock
from sentence_embedder.threads import start

_LONGEST_WAIT = 10.0
"""After so many seconds a process is forked though something is still computed."""

_LONGEST_WAIT_AT_END = 2.0
"""After so many it ends."""

_POLL = 0.0005

_Mark = tuple[int, object]
"""A thread, and something that it computes."""

_computed: set[_Mark] = set()
_forking: list[None] = []
"""As long as the number of threads that fork."""

_alone: set[int] = set()
"""The thread that this process was forked by, if a model had been made before."""

_model_was_made = False


class ProcessLock:
    """A lock that a forked process has anew, whoever held it in the one that it was forked from.

    A thread that has it can take it again.

    Example:
        >>> lock = ProcessLock()
        >>> with lock.here():
        ...     pass
    """

    def __init__(self) -> None:
        self._locks: dict[int, AbstractContextManager[Any]] = {}

    def here(self) -> AbstractContextManager[Any]:
        """The lock of this process."""
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, Lock())


@contextmanager
def between_forks() -> Iterator[None]:
    """Within this context no other thread forks, so that no lock inside torch stays locked in a forked process.

    It is for a batch, which takes no longer than a fork can wait.
    """
    mark = (threading.get_ident(), object())
    try:
        while True:
            _computed.add(mark)
            if not _forking or _is_inside(mark):
                break
            _computed.discard(mark)
            time.sleep(_POLL)
        yield
    finally:
        _computed.discard(mark)


def _is_inside(mark: _Mark) -> bool:
    """Whether the thread computes something else already, which a fork waits for."""
    return any(other[0] == mark[0] and other is not mark for other in _computed.copy())


def a_model_is_made() -> None:
    """Say that from now on a thread of this process may have shared out products."""
    global _model_was_made
    _model_was_made = True


def compute_alone_if_forked() -> None:
    """Let the thread that this process was forked by compute products alone; others are left as they are.

    Its helpers in OpenMP are gone, and GNU's OpenMP waits for them.
    """
    thread = threading.get_ident()
    if thread not in _alone or torch.get_num_threads() == 1:
        return
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    # The setting of a thread is also the one that new threads begin with, and these have helpers of their own.
    _elsewhere(lambda: torch.set_num_threads(count))


def threads_elsewhere() -> int:
    """How many threads torch uses for a product, in any thread but the one that this process was forked by."""
    if threading.get_ident() not in _alone:
        return torch.get_num_threads()
    counts: list[int] = []
    _elsewhere(lambda: counts.append(torch.get_num_threads()))
    return counts[0]


def _elsewhere(call: Any) -> None:
    thread = threading.Thread(target=call, name="forked", daemon=True)
    start(thread)
    thread.join()


def _wait_for_batches() -> None:
    """Before a fork: let what is computed come to an end, and nothing begin."""
    _wait_for_others(_LONGEST_WAIT)


def _wait_for_others(seconds: float) -> None:
    """Wait until no other thread computes, but no longer than that."""
    thread, deadline = threading.get_ident(), time.monotonic() + seconds
    while any(other != thread for other, _ in _computed.copy()) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _start_as_child() -> None:
    _computed.clear()
    _forking.clear()
    if _model_was_made:
        _alone.clear()
        _alone.add(threading.get_ident())
        compute_alone_if_forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_batches, after_in_child=_start_as_child)
    # The last to be registered is the first to be called before a fork. A Ctrl-C that comes meanwhile is raised in
    # the first function of Python that is called after it, and forgotten there: these two are functions of C.
    os.register_at_fork(before=partial(_forking.append, None), after_in_parent=_forking.pop)

# Threads that are at work in torch when the interpreter ends are cut off there, and abort the process. Some may be,
# if who waited for them was interrupted twice.
atexit.register(_wait_for_others, _LONGEST_WAIT_AT_END)
