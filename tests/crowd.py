"""A crowd: threads that do something at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SECONDS = 600
"""What has not ended then hangs; a slow machine, on which other tests run, takes minutes for the most."""


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Do something in so many threads at the same time; the first error comes out.

    Args:
        count: How many there are.
        work: What they do, each told its number.
    """
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # raised below
            errors.append(error)

    end = time.monotonic() + _SECONDS
    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=max(0.0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "threads wait for each other"
    if errors:
        raise errors[0]
