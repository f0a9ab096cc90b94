"""Threads that compute a batch each."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from functools import partial

import pytest
import torch

from sentence_embedder.encoding.single_threads import SingleThreads, single_threads, thread_count
from sentence_embedder.latch import Latch
from sentence_embedder.threads import Threads
from tests.pool.deadline import within


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


def test_an_exception_thrown_into_them() -> None:
    """What somebody throws into an idle thread costs neither the thread nor a task that comes after it."""
    pool = single_threads(2)
    both = threading.Barrier(2)

    def ident(_: int) -> int:
        both.wait(20)
        return threading.get_ident()

    before = set(pool.map(ident, range(2)))
    for thread in before:
        assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(ValueError)) == 1

    assert within(20, lambda: list(pool.map(str, range(50)))) == [str(number) for number in range(50)]
    assert within(20, lambda: set(pool.map(ident, range(2)))) == before


def test_an_error_is_that_of_its_task() -> None:
    """Whatever a task raises comes out where its result is wanted; a task that was cancelled is not done."""

    def fail() -> None:
        raise KeyboardInterrupt

    pool = SingleThreads(1)
    holds = threading.Event()
    first, failing, cancelled = pool.submit(lambda: holds.wait(20)), pool.submit(fail), pool.submit(fail)
    assert cancelled.cancel()
    holds.set()

    assert within(20, first.result)
    with pytest.raises(KeyboardInterrupt):
        within(20, failing.result)
    assert within(20, pool.submit(lambda: str(1)).result) == "1"
    with pytest.raises(CancelledError):
        within(20, cancelled.result)
    assert not failing.cancel()


def test_they_end_when_nobody_has_them() -> None:
    """Threads of a pool that is gone end, after what they have to do."""
    pool = SingleThreads(2)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("encode_")]
    result = pool.submit(lambda: str(1))

    del pool
    gc.collect()

    assert within(20, result.result) == "1"
    for _ in range(200):
        if sum(thread.is_alive() for thread in threads) <= len(threads) - 2:
            break
        time.sleep(0.05)
    assert sum(thread.is_alive() for thread in threads) <= len(threads) - 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_has_its_own() -> None:
    """A process that was forked, which has none of the threads, starts its own rather than wait for them."""
    single_threads(2).submit(lambda: str(1)).result()

    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            code = int(list(single_threads(2).map(str, range(3))) != ["0", "1", "2"])
        finally:
            os._exit(code)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_map() -> None:
    """Results come in the order of the items; after an error in a context nothing is begun that was not, and the
    threads end, whoever keeps the error.
    """
    begun: list[int] = []
    holds = threading.Event()

    def one_by(number: int) -> float:
        begun.append(number)
        if number == 1:
            holds.wait(20)
        return 1 / number

    def failing(threads: SingleThreads) -> None:
        with threads:
            list(threads.map(one_by, range(50)))

    single = SingleThreads(1, "of a map")
    assert list(single.map(abs, [-3, 1, -2])) == [3, 1, 2]
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("of a map")]
    with pytest.raises(ZeroDivisionError):
        failing(single)
    holds.set()
    thread.join(20)

    assert not thread.is_alive()
    assert set(begun) <= {0, 1}


def test_what_a_map_raises() -> None:
    """A call that raises what would end an iterator ends it by an error."""
    with SingleThreads(1) as single, pytest.raises(RuntimeError, match="StopIteration"):
        list(single.map(next, [iter([1]), iter([])]))


def test_what_was_cancelled() -> None:
    """Nobody waits for it."""
    pool = SingleThreads(1)
    holds = threading.Event()
    first, second = pool.submit(lambda: holds.wait(20)), pool.submit(lambda: 1)

    assert second.cancel()

    within(20, second.wait)
    with pytest.raises(CancelledError):
        within(20, second.result)
    holds.set()
    assert first.result()
    assert not first.cancel()


def test_an_exception_thrown_in_when_a_call_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the call gets what came of it, wherever its thread was interrupted."""
    open_latch, thrown = Latch.open, [ValueError(), ValueError()]

    def open_or_throw(latch: Latch) -> None:
        if thrown:
            raise thrown.pop()
        open_latch(latch)

    pool = SingleThreads(1)
    monkeypatch.setattr(Latch, "open", open_or_throw)

    with pytest.raises(ZeroDivisionError):
        within(20, pool.submit(lambda: 1 / 0).result)
    thrown.append(ValueError())
    assert within(20, pool.submit(lambda: 3).result) == 3


def test_threads_that_cannot_be_prepared() -> None:
    """It is an error at once, and not when they are given something."""
    with pytest.raises(ZeroDivisionError):
        Threads(2, "unprepared", prepare=lambda: 1 / 0)


def test_nothing_is_kept_that_a_call_was_given() -> None:
    """Neither by its result, nor by its error, once it is dropped."""

    class Large:
        """What takes memory."""

    def fail(_: Large) -> None:
        raise ValueError

    pool = SingleThreads(1)
    gc.disable()
    try:
        given = Large()
        kept = weakref.ref(given)
        done = pool.submit(partial(id, given))
        done.result()
        failed = pool.submit(partial(fail, given))
        with pytest.raises(ValueError):  # noqa: PT011
            failed.result()
        del given, failed
        pool.submit(int).result()  # so that the thread has nothing else in hand
        assert kept() is None
    finally:
        gc.enable()
