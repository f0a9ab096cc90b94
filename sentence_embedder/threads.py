"""Threads that do what they are given, and Futures of it."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from sentence_embedder.latch import Latch

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")


class Future(Generic[_Result]):
    """What will come of a call; as in ``concurrent.futures``, but that Ctrl-C can come at any moment.

    Args:
        call: What is done.
    """

    def __init__(self, call: Callable[[], _Result]) -> None:
        self._call = call
        self._turn = threading.Lock()
        self._done = Latch()
        self._results: list[_Result] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Make the result, unless another thread does, or nobody is to."""
        try:
            if self._turn.acquire(blocking=False):
                self._results.append(self._call())
                self._done.open()
        except BaseException as error:  # noqa: BLE001  # it is that of whoever waits for the result
            self._error = error
            self._done.open()

    def cancel(self) -> bool:
        """Let nobody begin it; whether nobody has."""
        return self._turn.acquire(blocking=False)

    def wait(self) -> None:
        """Wait until it has ended. What was cancelled never does."""
        self._done.wait()

    def result(self) -> _Result:
        """What came of it, when it is there; what the call raises is raised."""
        self._done.wait()
        error = self._error
        if self._results or error is None:
            return self._results[0]
        try:
            raise error
        finally:
            del error, self  # it has this frame, and would keep itself


class Threads:
    """Threads that end with a context, or when nobody has this object any more.

    Unlike those of the standard library they work until the interpreter ends, which does not wait for them; an
    exception that somebody throws into one of them costs no thread, and one call at most; and a Ctrl-C in the
    thread that waits for them costs nothing.

    Args:
        count: How many.
        name: What they are called, before a number.
        prepare: Called in each of them before all others go on.

    Raises:
        RuntimeError: The system gives no more threads.

    Example:
        >>> with Threads(2, "double") as threads:
        ...     print(threads.submit(lambda: 2 * 3).result(), list(threads.map(str.upper, ["a", "b"])))
        6 ['A', 'B']
    """

    def __init__(self, count: int, name: str, *, prepare: Callable[[], object] = lambda: None) -> None:
        self._calls = _Calls()
        self._end = weakref.finalize(self, self._calls.end, count)
        self._end.atexit = False
        _start(self._calls, count, name, prepare)

    def submit(self, call: Callable[[], _Result]) -> Future[_Result]:
        """The future result of a call."""
        future = Future(call)
        self._calls.add(future)
        return future

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
        """What a function makes of each item, in their order."""
        return map(Future.result, [self.submit(partial(function, item)) for item in items])

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        # An error that somebody keeps has frames that have this object: it is not waited for that they go.
        self._calls.cancel()
        self._end()


class _Calls:
    """What a number of threads have to do."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Future[Any] | None] = SimpleQueue()
        self._unfinished: set[Future[Any]] = set()

    def add(self, future: Future[Any]) -> None:
        """Take a call."""
        self._unfinished.add(future)
        self._queue.put(future)

    def cancel(self) -> None:
        """Let nobody begin what nobody has; what was begun is not waited for."""
        for future in self._unfinished.copy():
            future.cancel()

    def end(self, count: int) -> None:
        """Let so many threads end, after what is to be done."""
        for _ in range(count):
            self._queue.put(None)

    def work(self) -> None:
        """Do calls until there are no more."""
        while True:
            try:
                while (future := self._queue.get()) is not None:
                    future.run()
                    self._unfinished.discard(future)
                    del future  # whoever waits for it has the result, which may be large
                return
            except BaseException:  # noqa: BLE001  # thrown in from outside, perhaps when a call had just been taken
                for future in self._unfinished.copy():
                    self._queue.put(future)


def _start(calls: _Calls, count: int, name: str, prepare: Callable[[], object]) -> None:
    """Start threads, and wait until all are prepared."""

    def work(prepared: Latch) -> None:
        try:
            prepare()
        finally:
            prepared.open()
        calls.work()

    latches = [Latch() for _ in range(count)]
    try:
        for number, latch in enumerate(latches):
            threading.Thread(target=work, args=(latch,), name=f"{name}_{number}", daemon=True).start()
        for latch in latches:
            latch.wait()
    except BaseException:
        calls.end(count)  # a thread could not be started: those that were must not wait for ever
        raise
