"""Sharing: whether all threads share a batch, or one of them computes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sentence_embedder.encoding.single_threads import single_threads, thread_count

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_Result = TypeVar("_Result")

_SWITCHES = 4
_LOST_CORES = 0.25
_SLEEPS = 16
"""While a batch is computed, a process that is left alone loses a core less often, and less of them; and a thread
that waits awake goes to sleep less often."""

_TRIES = 3
_LONG = 0.1
_WORTH_IT = 0.75
"""How often a batch is computed alone before that is judged, but only once if it takes so many seconds; and what
part of the time it must take."""

_PAUSE = 50
_LONGEST_PAUSE = 60.0
"""The other way is tried again after so many times the time that it took, but no more than so many seconds."""


class Sharing:
    """Whether all threads share a batch, or one of them computes it.

    Threads that share a batch wait for each other in each of its products, and do so awake, which is quickest if
    they have the processor to themselves. If somebody else wants it, too, one of them has always just lost its core
    for some milliseconds, and all products wait for it, one after the other: a query of 3 ms takes half a second,
    and one thread alone 5 ms. If a process has more such threads than cores, as several of its own share batches,
    GNU's OpenMP lets them sleep, and wakes them for each product: the query takes 8 ms.

    The system counts both. Where it has happened, batches that are no larger are computed alone as long as that is
    quicker. Now and then it is tried whether they can be shared again. What was found belongs to one model in one
    process: a copy or a pickle begins anew. Threads share it.
    """

    def __init__(self) -> None:
        self._is_alone = False
        self._until = 0.0
        # The batch that it was decided for, and how many seconds it took when threads waited for each other.
        self._tokens = 0
        self._seconds = 0.0
        self._tried: list[float] = []

    def computed(self, call: Callable[[], _Result], tokens: Callable[[], int]) -> _Result:
        """What a call makes of a batch.

        Args:
            call: Computes the batch, in this thread or in another.
            tokens: Says how many tokens it has.
        """
        is_trial = self._is_alone and self._is_over
        if self._is_alone and not is_trial and tokens() <= self._tokens:
            result, seconds = _alone(call)
            self._judge(seconds)
            return result
        before = _usage()
        result = call()
        after = _usage()
        if have_waited(before, after):
            self._has_waited(tokens(), after.seconds - before.seconds)
        elif is_trial:
            self._is_alone, self._until = False, 0.0
        return result

    @property
    def _is_over(self) -> bool:
        """Whether the time is over for which it was decided."""
        is_judged = not self._is_alone or len(self._tried) >= self._tries
        return is_judged and time.monotonic() >= self._until

    @property
    def _tries(self) -> int:
        return _TRIES if self._seconds < _LONG else 1

    def _has_waited(self, tokens: int, seconds: float) -> None:
        """Compute batches alone from now on, unless it was found a short time ago that to wait takes no longer."""
        is_like_that = tokens >= self._tokens and seconds < 2 * self._seconds
        if is_like_that and not self._is_alone and not self._is_over:
            return
        if not self._is_alone or tokens >= self._tokens:
            self._tokens, self._seconds = tokens, seconds
        self._decide(is_alone=True, cost=self._seconds)

    def _judge(self, seconds: float) -> None:
        """Whether it goes on like that, after a batch that took so long alone."""
        if len(self._tried) < self._tries:
            self._tried.append(seconds)
            if len(self._tried) >= self._tries and min(self._tried) > _WORTH_IT * self._seconds:
                self._decide(is_alone=False, cost=sum(self._tried))

    def _decide(self, *, is_alone: bool, cost: float) -> None:
        self._is_alone = is_alone
        self._tried = []
        self._until = time.monotonic() + min(_PAUSE * cost, _LONGEST_PAUSE)

    def __reduce__(self) -> tuple[type[Sharing], tuple[()]]:
        return Sharing, ()


class Usage(NamedTuple):
    """What the system says of this process.

    Args:
        seconds: The time.
        of_processor: Seconds that all threads have computed.
        switches: How often a core was taken away from a thread.
        sleeps: How often this thread has gone to sleep.
    """

    seconds: float
    of_processor: float
    switches: int
    sleeps: int


def _usage() -> Usage:
    """Up to now; zeros where the system does not say."""
    system: Any = resource
    if system is None:
        return Usage(time.monotonic(), 0.0, 0, 0)
    of_process = system.getrusage(system.RUSAGE_SELF)
    of_thread = getattr(system, "RUSAGE_THREAD", None)  # on Linux alone
    sleeps = 0 if of_thread is None else system.getrusage(of_thread).ru_nvcsw
    return Usage(time.monotonic(), of_process.ru_utime + of_process.ru_stime, of_process.ru_nivcsw, sleeps)


def have_waited(before: Usage, after: Usage) -> bool:
    """Whether threads that shared a batch have waited for each other."""
    switches, sleeps = after.switches - before.switches, after.sleeps - before.sleeps
    if switches < _SWITCHES and sleeps < _SLEEPS:
        return False
    threads, seconds = thread_count(), after.seconds - before.seconds
    used = after.of_processor - before.of_processor
    return threads > 1 and (sleeps >= _SLEEPS or threads * seconds - used >= _LOST_CORES * seconds)


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
