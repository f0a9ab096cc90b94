"""Threads that compute a batch each."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from sentence_embedder.encoding.threads import single_threads, thread_count


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    """torch with three threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_each_computes_alone_and_the_caller_as_before() -> None:
    """Inside, products have one thread; the caller and threads of others have as many as before."""
    barrier = threading.Barrier(2)

    def inside(_: int) -> int:
        barrier.wait()
        return torch.get_num_threads()

    assert list(single_threads(2).map(inside, range(2))) == [1, 1]
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as other:
        assert other.submit(thread_count).result() == 3

    assert torch.get_num_threads() == 3


def test_a_thread_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system gives no more threads, the error comes out, and those that were started do not wait."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_one(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)

    with pytest.raises(RuntimeError, match="can't start new thread"):
        single_threads(5)

    started[0].join(timeout=10)
    assert not started[0].is_alive()
    assert torch.get_num_threads() == 3


def test_many_at_once() -> None:
    """Many callers at the same time leave the number of threads as it was."""

    def call(_: int) -> int:
        list(single_threads(2).map(str, range(5)))
        return thread_count()

    with ThreadPoolExecutor(6) as callers:
        assert set(callers.map(call, range(24))) == {3}
    assert torch.get_num_threads() == 3


def test_they_are_kept() -> None:
    """The next call gets the threads of the one before, unless it wants another number."""
    two = single_threads(2)
    assert single_threads(2) is two

    three = single_threads(3)

    assert single_threads(3) is three
    assert list(two.map(str, range(3))) == ["0", "1", "2"]
    del two
    assert single_threads(2) is not three


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_its_own() -> None:
    """A process that was forked, which has none of the threads, starts its own rather than wait for them."""
    single_threads(2).submit(str, 1).result()

    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            code = int(list(single_threads(2).map(str, range(3))) != ["0", "1", "2"])
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
