"""CallQueue: the calls that wait, and which of them are computed together."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence

from sentence_embedder.latch import Latch
from sentence_embedder.lock import Lock
from sentence_embedder.serving.call import Call


class CallQueue:
    """Calls of many threads, taken by one.

    Args:
        max_wait: For how many seconds a call may wait for others to be computed with, where others are about.
        max_tokens: About how many tokens are computed together.
        max_waiting: How many texts may wait.
    """

    def __init__(self, *, max_wait: float, max_tokens: int, max_waiting: int) -> None:
        self._max_wait = max_wait
        self._max_tokens = max_tokens
        self._max_waiting = max_waiting
        # One that its thread can take again: the garbage collector, which may close the queue, comes at any time.
        self._lock = Lock()
        self._has_calls = Latch()
        self._on_room: deque[Callable[[], None]] = deque()
        self._calls: list[Call] = []
        self._texts = 0
        self._wake_at = 1
        self._expected = 1
        self.is_closed = False

    def put(self, call: Call, timeout: float | None = None) -> None:
        """Add a call, when there is room for it.

        Args:
            call: The call.
            timeout: For how many seconds to wait for room; None for ever.

        Raises:
            RuntimeError: The queue is closed.
            TimeoutError: There was no room in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.try_put(call, (has_room := Latch()).open):
            if not has_room.wait(None if deadline is None else deadline - time.monotonic()):
                with self._lock, contextlib.suppress(ValueError):  # or it has just been told
                    self._on_room.remove(has_room.open)
                raise TimeoutError(
                    f"the batcher has {self._texts:,} texts waiting, and took no more in time: there are more "
                    "calls than it can answer; wait longer, raise max_waiting, or let fewer in"
                )

    def try_put(self, call: Call, on_room: Callable[[], None]) -> bool:
        """Add a call if there is room for it.

        Args:
            call: The call.
            on_room: If there is none, called once when there may be, in another thread.

        Raises:
            RuntimeError: The queue is closed.
        """
        with self._lock:
            if not self.is_closed and not self._fits(call):
                self._on_room.append(on_room)
                return False
            self._add(call)
            return True

    def _fits(self, call: Call) -> bool:
        return not self._calls or self._texts + len(call.items) <= self._max_waiting

    def check_open(self) -> None:
        """Raise a RuntimeError if it is closed."""
        if self.is_closed:
            raise RuntimeError("the batcher is closed: it takes no more calls; make another one")

    def _add(self, call: Call) -> None:
        self.check_open()
        if len(self._calls) + 1 >= self._wake_at:
            self._has_calls.open()  # first: a call that is there, and nobody told of, might wait for ever
        self._calls.append(call)
        self._texts += len(call.items)

    def take(self) -> list[Call] | None:
        """The calls to compute next, when there are some; None when there are none and the queue is closed."""
        while True:
            self._wait_for(1, None)
            # Who comes alone is served at once. Where several were, they come again at about the same time.
            self._wait_for(self._expected, self._max_wait)
            with self._lock:
                if not self._calls:
                    return None
                batch, self._calls = next_batch(self._calls, self._max_tokens)
                self._texts = sum(len(call.items) for call in self._calls)
                self._expected = len(batch)
                self._tell_of_room()
                if batch:
                    return batch

    def _wait_for(self, count: int, timeout: float | None) -> None:
        """Sleep until so many calls are there, the time is over, or the queue is closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        left = timeout
        while left is None or left > 0:
            has_calls = Latch()
            with self._lock:
                # First: the garbage collector may close the queue here, and opens the latch that it finds.
                self._wake_at, self._has_calls = count, has_calls
                if len(self._calls) >= count or self.is_closed:
                    return
            has_calls.wait(left)
            left = None if deadline is None else deadline - time.monotonic()

    def _tell_of_room(self) -> None:
        while self._on_room:
            self._on_room[0]()  # before it is taken out: who is interrupted in between tells it once more
            self._on_room.popleft()

    def take_all(self) -> list[Call]:
        """All calls that wait."""
        with self._lock:
            calls, self._calls = self._calls, []
            return calls

    def close(self) -> None:
        """Take no more calls. Those that wait are still taken out."""
        with self._lock:
            self.is_closed = True
            self._has_calls.open()
            self._tell_of_room()


def next_batch(calls: Sequence[Call], max_tokens: int) -> tuple[list[Call], list[Call]]:
    """The calls to compute together: the first one for which somebody waits, and others of its kind in their order,
    as long as their tokens are no more than so many.

    Args:
        calls: The calls that wait, in the order in which they came.
        max_tokens: How many tokens they may have, if they are more than one.

    Returns:
        The batch, and those that wait on. Calls for which nobody waits any more are in neither.
    """
    wanted = [call for call in calls if call.waiter.is_waiting]
    batch: list[Call] = []
    rest: list[Call] = []
    tokens = 0
    for call in wanted:
        if not batch or (call.kind == batch[0].kind and tokens + call.tokens <= max_tokens):
            batch.append(call)
            tokens += call.tokens
        else:
            rest.append(call)
    return batch, rest
