"""Sharing: whether all threads share a batch, or one of them computes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sentence_embedder.encoding.single_threads import single_threads, thread_count

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_Result = TypeVar("_Result")

_CORES_LOST = 4
_SLEEPS = 16
"""So often a process loses a core, and a thread goes to sleep, while threads wait for each other in one batch."""

_TRIES = 3
_WORTH_IT = 0.75
"""How often a batch is computed alone before it is judged, and what part of the time it must take."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 30.0
_GROWTH = 4
"""Seconds until the other way is tried again, and by what factor they grow while it is no better."""


class Sharing:
    """Whether all threads share a batch, or one of them computes it.

    Threads that share a batch wait for each other in each of its products, and do so awake, which is quickest if
    they have the processor to themselves. If somebody else wants it, too, one of them has always just lost its core
    for some milliseconds, and all products wait for it, one after the other: a query of 3 ms takes half a second,
    and one thread alone 5 ms. If a process has more such threads than cores, as several of its own share batches,
    GNU's OpenMP lets them sleep, and wakes them for each product: the query takes 8 ms.

    The system counts both. Where it has happened, batches that are no larger are computed alone as long as that is
    quicker. Now and then it is tried whether they can be shared again.
    """

    def __init__(self) -> None:
        self._is_alone = False
        self._until = 0.0
        self._pause = _FIRST_PAUSE
        # The largest batch for which threads have waited, and how many seconds it took.
        self._tokens = 0
        self._seconds = 0.0
        self._tried: list[float] = []

    def computed(self, call: Callable[[], _Result], tokens: Callable[[], int]) -> _Result:
        """What a call makes of a batch.

        Args:
            call: Computes the batch, in this thread or in another.
            tokens: Says how many tokens it has.
        """
        is_trial = self._is_over
        if self._is_alone and not is_trial and tokens() <= self._tokens:
            result, seconds = _alone(call)
            self._judge(seconds)
            return result
        before, start = _waits(), time.monotonic()
        result = call()
        if _have_waited(before, _waits()):
            self._has_waited(tokens, time.monotonic() - start)
        elif self._is_alone and is_trial:
            self._is_alone, self._pause, self._tokens = False, _FIRST_PAUSE, 0
        return result

    @property
    def _is_over(self) -> bool:
        """Whether the time is over for which it was decided."""
        is_judged = not self._is_alone or len(self._tried) >= _TRIES
        return is_judged and time.monotonic() >= self._until

    def _has_waited(self, tokens: Callable[[], int], seconds: float) -> None:
        """Compute batches alone from now on, unless it was found a short time ago that to wait takes no longer."""
        is_settled = not self._is_alone and not self._is_over and seconds < 2 * self._seconds
        if is_settled or thread_count() == 1:
            return
        if tokens() >= self._tokens:
            self._tokens, self._seconds = tokens(), seconds
        self._decide(is_alone=True)

    def _judge(self, seconds: float) -> None:
        """Whether it goes on like that, after a batch that took so long alone."""
        if len(self._tried) < _TRIES:
            self._tried.append(seconds)
            if len(self._tried) >= _TRIES and min(self._tried) > _WORTH_IT * self._seconds:
                self._decide(is_alone=False)

    def _decide(self, *, is_alone: bool) -> None:
        self._is_alone = is_alone
        self._tried = []
        self._until = time.monotonic() + self._pause
        self._pause = min(_GROWTH * self._pause, _LONGEST_PAUSE)
        if not is_alone:
            self._tokens = 0


SHARING = Sharing()
"""That of this process."""


def _waits() -> tuple[int, int]:
    """How often the system has taken a core away from a thread of this process, and how often this thread has gone
    to sleep; zeros where it does not say.
    """
    system: Any = resource
    if system is None:
        return (0, 0)
    cores_lost: int = system.getrusage(system.RUSAGE_SELF).ru_nivcsw
    of_thread = getattr(system, "RUSAGE_THREAD", None)  # on Linux alone
    return (cores_lost, 0 if of_thread is None else system.getrusage(of_thread).ru_nvcsw)


def _have_waited(before: tuple[int, int], after: tuple[int, int]) -> bool:
    return after[0] - before[0] >= _CORES_LOST or after[1] - before[1] >= _SLEEPS


def _alone(call: Callable[[], _Result]) -> tuple[_Result, float]:
    """What comes of a call in one of the threads that compute alone, and how many seconds it takes there."""

    def timed() -> tuple[_Result, float]:
        start = time.monotonic()
        result = call()
        return result, time.monotonic() - start

    future = single_threads(thread_count()).submit(timed)
    try:
        return future.result()
    finally:
        if not future.cancel():
            future.wait()
