"""Sharing: whether all threads share a batch, or one of them computes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch

from sentence_embedder.encoding.single_threads import lone_threads

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_Result = TypeVar("_Result")

_SWITCHES = 4
"""How often the system takes a core from this process during a batch at least, if it is not left alone."""

_LOST_CORES = 0.25
"""How many cores it then lacks at least, on the average of the batch."""

_SLEEPS = 16
"""How often a thread goes to sleep during a batch at least, if OpenMP does not let it wait awake."""

_TRIES = 3
"""How many batches one thread computes before it is judged whether that is quicker."""

_LONG = 0.1
"""Seconds. One batch is enough if those of its size take as long."""

_WORTH_IT = 0.75
"""What part of the time one thread must take."""

_FIRST_PAUSE = 0.1
"""Seconds after which it is tried for the first time whether threads can share batches again."""

_GROWTH = 4
"""How many times as long the pause is after each try that they could not."""

_OF_A_TRY = 50
"""How many times as long as a try the pause may be, so that tries take a small part of all time."""

_LONGEST_PAUSE = 60.0
"""Seconds that the pause may be."""


@dataclass(frozen=True)
class _Decision:
    """How batches of a size are computed for a while.

    Args:
        by_one: Whether by one thread.
        until: When the other way is tried again.
        pause: How many seconds that is after it was decided.
        seconds: How long one took when threads that shared it waited for each other.
        tried: How long the first ones took by one thread.
    """

    by_one: bool
    until: float
    pause: float
    seconds: float
    tried: tuple[float, ...] = ()

    @property
    def is_tried(self) -> bool:
        """Whether it is known what one thread takes."""
        return len(self.tried) >= (_TRIES if self.seconds < _LONG else 1)

    def is_over(self, now: float) -> bool:
        """Whether the other way is to be tried again."""
        return now >= self.until and (self.is_tried or not self.by_one)


class Sharing:
    """Whether all threads share a batch, or one of them computes it.

    Threads that share a batch wait for each other in each of its products, and do so awake, which is quickest if
    they have the processor to themselves. If somebody else wants it, too, one of them has always just lost its core
    for some milliseconds, and all products wait for it, one after the other: a query of 3 ms takes half a second,
    and one thread alone 5 ms. If a process has more such threads than cores, as several of its own share batches,
    GNU's OpenMP lets them sleep, and wakes them for each product: the query takes 8 ms.

    Linux counts both. Where it has happened, one thread computes the batches of about that size, unless that turns
    out to be no quicker; now and then it is tried whether they can be shared again. What was found belongs to one
    model in one process: a copy or a pickle begins anew. Threads use it together: each step replaces one decision.
    """

    def __init__(self) -> None:
        # By the number of binary digits of the number of tokens; nothing on a quiet machine.
        self._decisions: dict[int, _Decision] = {}

    def computed(self, call: Callable[[], _Result], tokens: Callable[[], int]) -> _Result:
        """What a call makes of a batch.

        Args:
            call: Computes the batch, in this thread or in another.
            tokens: Says how many tokens it has, if that must be known.
        """

        def size() -> int:
            return tokens().bit_length()

        start = time.monotonic()
        decision = self._decisions.get(size()) if self._decisions else None
        is_over = decision is not None and decision.is_over(start)
        # A thread that computes alone as it is shares with nobody, and waits for none of its own kind.
        if decision is not None and decision.by_one and not is_over and torch.get_num_threads() > 1:
            result = _by_one(call)
            self._has_been_tried(size(), decision, time.monotonic() - start)
            return result
        before = _usage()
        result = call()
        if have_waited(before, _usage()):
            self._has_waited(size(), decision, start, time.monotonic())
        elif is_over:
            self._decisions.pop(size(), None)
        return result

    def _has_waited(self, size: int, decision: _Decision | None, start: float, end: float) -> None:
        if self._decisions.get(size) is not decision:
            return  # another thread has decided meanwhile
        seconds, pause = end - start, _FIRST_PAUSE
        if decision is not None and decision.by_one:
            pause = max(pause, min(_GROWTH * decision.pause, _pause_for(seconds)))
        elif decision is not None and not decision.is_over(start) and seconds < 2 * decision.seconds:
            return  # it was found that one thread takes no less
        self._decisions[size] = _Decision(by_one=True, until=end + pause, pause=pause, seconds=seconds)

    def _has_been_tried(self, size: int, decision: _Decision, seconds: float) -> None:
        if decision.is_tried:
            return
        decision = replace(decision, tried=(*decision.tried, seconds))
        if decision.is_tried and min(decision.tried) > _WORTH_IT * decision.seconds:
            until = time.monotonic() + _pause_for(sum(decision.tried))
            decision = replace(decision, by_one=False, until=until)
        self._decisions[size] = decision

    def __reduce__(self) -> tuple[type[Sharing], tuple[()]]:
        return Sharing, ()


def _pause_for(seconds_of_a_try: float) -> float:
    return min(_OF_A_TRY * seconds_of_a_try, _LONGEST_PAUSE)


class Usage(NamedTuple):
    """What Linux says of this process.

    Args:
        seconds: The time.
        of_processor: Seconds that all threads have computed.
        switches: How often a core was taken away from one of them.
        sleeps: How often this thread has gone to sleep.
    """

    seconds: float
    of_processor: float
    switches: int
    sleeps: int


def _usage() -> Usage | None:
    """Up to now; None elsewhere: others count other things under these names."""
    system: Any = resource
    if system is None or not hasattr(system, "RUSAGE_THREAD"):
        return None
    process, thread = system.getrusage(system.RUSAGE_SELF), system.getrusage(system.RUSAGE_THREAD)
    return Usage(time.monotonic(), process.ru_utime + process.ru_stime, process.ru_nivcsw, thread.ru_nvcsw)


def have_waited(before: Usage | None, after: Usage | None) -> bool:
    """Whether threads that shared a batch have waited for each other."""
    if before is None or after is None:
        return False
    switches, sleeps = after.switches - before.switches, after.sleeps - before.sleeps
    if switches < _SWITCHES and sleeps < _SLEEPS:
        return False
    threads, seconds = torch.get_num_threads(), after.seconds - before.seconds
    used = after.of_processor - before.of_processor
    return threads > 1 and (sleeps >= _SLEEPS or threads * seconds - used >= _LOST_CORES * seconds)


def _by_one(call: Callable[[], _Result]) -> _Result:
    """What comes of a call in a thread that computes alone."""
    future = lone_threads(torch.get_num_threads()).submit(call)
    try:
        return future.result()
    finally:
        future.end()
