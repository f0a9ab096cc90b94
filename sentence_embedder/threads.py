"""Threads that do what they are given, and Futures of it."""

from __future__ import annotations

import _thread
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from sentence_embedder.latch import Latch

_Result = TypeVar("_Result")
_Item = TypeVar("_Item")

_ONCE = "once"
_NOBODY = 0
"""The number of no thread."""


class Future(Generic[_Result]):
    """What will come of a call; as in ``concurrent.futures``, but that Ctrl-C can come at any moment.

    Args:
        call: What is done.
    """

    def __init__(self, call: Callable[[], _Result]) -> None:
        self._call: Callable[[], _Result] | None = call
        self._taker: dict[str, int] = {}
        self._done = Latch()
        self._results: list[_Result] = []
        self._error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or never begins."""
        return self._done.is_open

    def run(self) -> None:
        """Make the result, unless another thread does, or nobody is to."""
        if self.is_over or not self._is_taken_by(threading.get_ident()):
            return
        try:
            call, self._call = self._call, None  # what it was given, nobody needs for as long as the result
            if call is not None:
                self._results.append(call())
            self._done.open()
        except BaseException as error:  # noqa: BLE001  # it is that of whoever waits for the result
            self._error = error
            self._done.open()
            del self  # the error has this frame, and would keep itself

    def fail(self, error: BaseException) -> bool:
        """End it by an error if this thread has begun it, and was interrupted; whether it is over."""
        if self._taker.get(_ONCE) == threading.get_ident() and not self.is_over:
            if not self._results and self._error is None:
                self._error = error
            self._done.open()
        return self.is_over

    def cancel(self) -> bool:
        """Let nobody begin it; whether nobody has."""
        is_cancelled = self._is_taken_by(_NOBODY)
        if is_cancelled:
            self._error = CancelledError()
            self._done.open()
        return is_cancelled

    def _is_taken_by(self, taker: int) -> bool:
        # One step: whoever is interrupted in it has taken it, and is known, or has not.
        return self._taker.setdefault(_ONCE, taker) == taker

    def wait(self) -> None:
        """Wait until it is over."""
        self._done.wait()

    def end(self) -> None:
        """Let nobody begin it; if somebody has, wait until it is over. For whoever was interrupted in waiting."""
        self.cancel()
        self.wait()

    def result(self) -> _Result:
        """What came of it, when it is there; what the call raises is raised.

        Raises:
            CancelledError: Nobody has begun it, and nobody will.
        """
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
        prepare: Called in each of them before they are given anything; what it raises comes out here.

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
        futures = [self.submit(partial(function, item)) for item in items]
        return (future.result() for future in futures)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing is begun any more, and what was begun is not waited for. Nor that this object goes: an error that
        # somebody keeps has frames that have it.
        self._calls.are_cancelled = True
        self._end()


class _Calls:
    """What a number of threads have to do."""

    def __init__(self) -> None:
        self.are_cancelled = False
        """Whether none is begun any more."""
        self._queue: SimpleQueue[Future[Any] | None] = SimpleQueue()
        self._unfinished: set[Future[Any]] = set()

    def add(self, future: Future[Any]) -> None:
        """Take a call."""
        self._unfinished.add(future)
        self._queue.put(future)

    def end(self, count: int) -> None:
        """Let so many threads end, after what is to be done."""
        for _ in range(count):
            self._queue.put(None)

    def work(self) -> None:
        """Do calls until there are no more."""
        thrown: BaseException | None = None
        while True:
            try:
                if thrown is not None:  # perhaps when a call had just been taken
                    self._go_on_after(thrown)
                    thrown = None
                while (future := self._queue.get()) is not None:
                    if self.are_cancelled:
                        future.cancel()
                    future.run()
                    if future.is_over:
                        self._unfinished.discard(future)
                    del future  # whoever waits for it has the result, which may be large
                return
            except BaseException as error:  # noqa: BLE001  # thrown in from outside, at any moment, this one too
                thrown = error

    def _go_on_after(self, error: BaseException) -> None:
        """End what this thread was interrupted in, and let it be looked at what else there is to do."""
        for future in self._unfinished.copy():
            if future.fail(error):
                self._unfinished.discard(future)
            else:
                self._queue.put(future)


def start(thread: threading.Thread) -> None:
    """Start a thread, so that a Ctrl-C at any moment costs nobody a lock.

    The standard library takes locks in steps of Python for it, one of them that of all starts and ends of threads.
    It is done in a thread that is begun in one step, and gets no Ctrl-C.

    Raises:
        RuntimeError: The system gives no more threads.
        KeyboardInterrupt: The thread has an ``ident`` if it was started nevertheless, or else never is.
    """
    starting = Future(thread.start)
    try:
        _thread.start_new_thread(starting.run, ())
        starting.result()
    except BaseException:
        starting.end()
        raise


def _start(calls: _Calls, count: int, name: str, prepare: Callable[[], object]) -> None:
    """Start threads, and wait until all are prepared."""

    def work(prepared: Future[object]) -> None:
        prepared.run()
        calls.work()

    futures = [Future(prepare) for _ in range(count)]
    try:
        for number, prepared in enumerate(futures):
            start(threading.Thread(target=work, args=(prepared,), name=f"{name}_{number}", daemon=True))
        for prepared in futures:
            prepared.result()
    except BaseException:
        calls.end(count)  # a thread could not be started, say: those that were must not wait for ever
        raise
