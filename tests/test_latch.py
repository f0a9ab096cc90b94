"""Latch: it keeps threads waiting until it is opened."""

from __future__ import annotations

import threading
import time

from sentence_embedder.latch import Latch


def test_all_go_on_when_it_is_opened() -> None:
    """Threads wait, any number of them, until it is open; who comes later does not."""
    latch = Latch()
    gone: list[int] = []

    def go(number: int) -> None:
        latch.wait()
        gone.append(number)

    threads = [threading.Thread(target=go, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert not gone

    latch.open()
    latch.open()

    for thread in threads:
        thread.join(20)
    assert sorted(gone) == list(range(8))
    assert latch.is_open
    assert latch.wait()


def test_a_wait_with_an_end() -> None:
    """It says whether the latch was opened in time; none is needed for one that is open."""
    latch = Latch()

    assert not latch.wait(0.01)
    assert not latch.wait(-1)
    threading.Timer(0.05, latch.open).start()
    assert latch.wait(20)
    assert latch.wait(0)
