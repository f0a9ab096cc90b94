"""Lock: one thread at a time, and a Ctrl-C leaves it free."""

from __future__ import annotations

import signal
import threading
from itertools import count

import pytest

from sentence_embedder.latch import Latch
from sentence_embedder.lock import Lock
from tests.interruption import interrupted_at


def _is_free(lock: Lock) -> bool:
    """Whether another thread can take a lock."""
    found: list[bool] = []

    def look() -> None:
        found.append(lock.acquire(timeout=0))
        if found[0]:
            lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(20)
    return found[0]


def test_one_thread_has_it_again_and_again() -> None:
    """The thread that has it can take it again; others get it when it has been given back as often."""
    lock = Lock()

    with lock:
        with lock:
            pass
        assert not _is_free(lock)

    assert _is_free(lock)


@pytest.mark.parametrize("depth", [0, 1])
def test_it_is_free_wherever_it_is_interrupted(depth: int) -> None:
    """Wherever a Ctrl-C comes, the lock is as free afterwards as it was before."""
    lock = Lock()

    def work() -> None:
        with lock:
            len("")

    def tried(number: int) -> bool:
        is_interrupted = interrupted_at(number, work)
        assert depth or _is_free(lock)
        return is_interrupted

    if depth:
        lock.acquire()
    places = next(number for number in count(1) if not tried(number))

    assert places > 3
    if depth:
        assert not _is_free(lock)
        lock.release()
    assert _is_free(lock)


def test_one_that_waits_is_interrupted() -> None:
    """Interrupted while another thread has the lock, the one that waits has nothing to give back."""
    lock, is_taken, is_tried = Lock(), Latch(), Latch()

    def hold() -> None:
        with lock:
            is_taken.open()
            is_tried.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    is_taken.wait(20)
    interrupt = threading.Timer(0.1, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))

    def wait() -> None:
        interrupt.start()
        with lock:
            pass

    with pytest.raises(KeyboardInterrupt):
        wait()

    assert not _is_free(lock)
    is_tried.open()
    holder.join(20)
    assert _is_free(lock)


def _lets_all_go_on(latch: Latch) -> bool:
    """Whether threads go on that wait for a latch."""
    threads = [threading.Thread(target=latch.wait, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return not any(thread.is_alive() for thread in threads)


def test_a_latch_stays_open_wherever_a_wait_is_interrupted() -> None:
    """Wherever a Ctrl-C comes in a wait for what is open, those who wait after it go on."""

    def tried(number: int) -> bool:
        latch = Latch()
        latch.open()
        is_interrupted = interrupted_at(number, latch.wait)
        assert _lets_all_go_on(latch)
        return is_interrupted

    assert next(number for number in count(1) if not tried(number)) > 2


def test_a_latch_is_opened_wherever_that_is_interrupted() -> None:
    """Interrupted anywhere, a latch is opened by the next try."""

    def tried(number: int) -> bool:
        latch = Latch()
        is_interrupted = interrupted_at(number, latch.open)
        latch.open()
        assert _lets_all_go_on(latch)
        return is_interrupted

    assert next(number for number in count(1) if not tried(number)) > 2
