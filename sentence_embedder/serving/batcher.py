"""Batcher: small calls of many threads and tasks, computed together."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import time
import weakref
from collections.abc import Hashable
from types import TracebackType
from typing import Any

from torch import nn

from sentence_embedder.encoding.engine import text_length
from sentence_embedder.encoding.inputs import as_items
from sentence_embedder.forks import ProcessLock
from sentence_embedder.quantization.precision import CALIBRATED_PRECISIONS
from sentence_embedder.serving.call import Call, Outcome, WaitingTask, WaitingThread, deliver, outcomes
from sentence_embedder.serving.call_queue import CallQueue
from sentence_embedder.threads import start
from sentence_embedder.whole_number import is_whole

_NOT_TAKEN = ("out", "pool", "device", "show_progress_bar")
_CHARACTERS_A_TOKEN = 4
_TOKENS_AROUND = 2
_LONGEST_WAIT_MS = 60_000
_PLAIN = frozenset({str, int, float, bool, type(None)})
"""Kinds of arguments of which it is plain whether two are equal."""


class Batcher:
    """Serves many callers of one model together: what waits at the same time goes through it in one batch.

    Each caller gets what the model alone would give, but for the last digit. A caller who comes alone is served at
    once. Calls with different arguments are computed one after another. An error reaches only those whom it
    concerns. Used as a context, it is closed at the end, when all answers are there.

    Args:
        model: The SentenceTransformer.
        max_wait_ms: For how many milliseconds a call may wait for others, where there were others just before.
        max_batch_tokens: About how many tokens are computed together, at four characters each. A call that has
            more is computed in its own thread at once: it neither waits nor is given up.
        max_waiting: How many texts may wait; further callers have to wait before they are let in.

    Raises:
        ValueError: A number that makes no sense.

    Example:
        >>> with model.batcher() as batcher:
        ...     embedding = batcher.encode("where is the cat?")  # in any number of threads
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        max_wait_ms: float = 2.0,
        max_batch_tokens: int = 8192,
        max_waiting: int = 8192,
    ) -> None:
        if not 0 <= max_wait_ms <= _LONGEST_WAIT_MS:
            raise ValueError(f"max_wait_ms: expected 0 to {_LONGEST_WAIT_MS:,}, found {max_wait_ms!r}")
        for name, number in (("max_batch_tokens", max_batch_tokens), ("max_waiting", max_waiting)):
            if not is_whole(number) or number < 1:
                raise ValueError(f"{name}: expected 1 or more, found {number!r}")
        self.model: Any = model
        self._max_tokens = max_batch_tokens
        self._settings: dict[str, Any] = {
            "max_wait": max_wait_ms / 1000,
            "max_tokens": max_batch_tokens,
            "max_waiting": max_waiting,
        }
        self._starting = ProcessLock()
        self._pid = os.getpid()
        self._queue = CallQueue(**self._settings)
        self._thread: threading.Thread | None = None

    # ── Threads ───────────────────────────────────────────────────────────────────────────────────────────

    def encode(
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        *,
        timeout: float | None = None,
        **arguments: Any,
    ) -> Any:
        """``encode`` of the model, together with the calls of others.

        Args:
            sentences: As for the model, like all that follows.
            prompt_name: See above.
            prompt: See above.
            batch_size: See above.
            timeout: For how many seconds to wait for the answer; None for ever.
            arguments: Others of the model's, but for ``device``, ``pool``, ``out`` and ``show_progress_bar``.

        Raises:
            RuntimeError: The batcher is closed.
            TimeoutError: There was no answer in time.
        """
        given = {"prompt_name": prompt_name, "prompt": prompt, "batch_size": batch_size, **arguments}
        return self._answer("encode", sentences, given, timeout)

    def encode_query(self, sentences: Any, *, timeout: float | None = None, **arguments: Any) -> Any:
        """``encode_query`` of the model, as ``encode``."""
        return self._answer("encode_query", sentences, arguments, timeout)

    def encode_document(self, sentences: Any, *, timeout: float | None = None, **arguments: Any) -> Any:
        """``encode_document`` of the model, as ``encode``."""
        return self._answer("encode_document", sentences, arguments, timeout)

    def _answer(self, method: str, sentences: Any, arguments: dict[str, Any], timeout: float | None) -> Any:
        timeout = None if timeout is None else min(timeout, threading.TIMEOUT_MAX)
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = WaitingThread()
        call = self._call(method, sentences, arguments, waiter)
        queue = self._served_queue()
        queue.check_open()
        if call.tokens > self._max_tokens:
            return call.asked_of(self.model)
        queue.put(call, timeout)
        self._served_queue()  # its thread could not be started meanwhile, perhaps
        return waiter.wait(None if deadline is None else deadline - time.monotonic())

    # ── Tasks ─────────────────────────────────────────────────────────────────────────────────────────────

    async def aencode(
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        **arguments: Any,
    ) -> Any:
        """``encode`` for tasks of an event loop, which is free meanwhile. A task that is cancelled is forgotten."""
        given = {"prompt_name": prompt_name, "prompt": prompt, "batch_size": batch_size, **arguments}
        return await self._awaited("encode", sentences, given)

    async def aencode_query(self, sentences: Any, **arguments: Any) -> Any:
        """``encode_query`` of the model, as ``aencode``."""
        return await self._awaited("encode_query", sentences, arguments)

    async def aencode_document(self, sentences: Any, **arguments: Any) -> Any:
        """``encode_document`` of the model, as ``aencode``."""
        return await self._awaited("encode_document", sentences, arguments)

    async def _awaited(self, method: str, sentences: Any, arguments: dict[str, Any]) -> Any:
        loop = asyncio.get_running_loop()
        waiter = WaitingTask(loop.create_future())
        call = self._call(method, sentences, arguments, waiter)
        queue = self._served_queue()
        queue.check_open()
        if call.tokens > self._max_tokens:
            return await asyncio.to_thread(call.asked_of, self.model)
        room = asyncio.Event()
        while not queue.try_put(call, lambda: _set_soon(loop, room)):
            await room.wait()
            room.clear()
        self._served_queue()
        return await waiter.future

    # ── Both ──────────────────────────────────────────────────────────────────────────────────────────────

    def _call(
        self, method: str, sentences: Any, arguments: dict[str, Any], waiter: WaitingThread | WaitingTask
    ) -> Call:
        """The call, checked where it is made: what is no text is the error of its own caller."""
        unfit = [name for name in _NOT_TAKEN if name in arguments]
        if unfit:
            raise TypeError(f"{method}: a batcher takes no {', '.join(unfit)}: call the model itself")
        items, is_single = as_items(sentences, self.model._kind_of_rows())
        limit = self.model.get_max_seq_length() or self._max_tokens
        tokens = sum(min(text_length(item) // _CHARACTERS_A_TOKEN + _TOKENS_AROUND, limit) for item in items)
        return Call(method, items, is_single, arguments, tokens, waiter, self._kind(method, arguments))

    def _kind(self, method: str, arguments: dict[str, Any]) -> Hashable:
        """What calls must have in common to be computed together; what can only be computed alone has nothing."""
        alone = object()
        if not all(type(value) in _PLAIN for value in arguments.values()):
            return alone
        output_value = arguments.get("output_value", "sentence_embedding")
        has_ranges = self.model.calibration is not None and output_value == "sentence_embedding"
        if output_value is None or (arguments.get("precision") in CALIBRATED_PRECISIONS and not has_ranges):
            return alone
        return (method, *sorted(arguments.items(), key=lambda argument: argument[0]))

    def _served_queue(self) -> CallQueue:
        """The queue, with a thread that serves it; a process that was forked has its own."""
        if self._thread is None or self._pid != os.getpid():
            with self._starting.here():
                self._start()
        return self._queue

    def _start(self) -> None:
        if self._pid != os.getpid():
            # Whatever threads of the parent held is held for ever here.
            queue = CallQueue(**self._settings)
            queue.is_closed = self._queue.is_closed
            self._thread, self._queue, self._pid = None, queue, os.getpid()
        if self._thread is None and not self._queue.is_closed:
            # The thread knows the model only while it computes: it must not be what keeps the model alive.
            thread = threading.Thread(
                target=_serve, args=(self._queue, weakref.ref(self.model)), name="batcher", daemon=True
            )
            weakref.finalize(self, _close, self._queue, self._pid).atexit = False
            _open_batchers.add(self)
            self._thread = thread
            try:
                start(thread)
            except BaseException as error:
                if thread.ident is None:
                    self._thread = None
                    self._tell_of_failed_start(error)
                raise

    def _tell_of_failed_start(self, error: BaseException) -> None:
        """Tell those who have come meanwhile, and wait for a thread that there is not."""
        failed = RuntimeError(f"the batcher's thread could not be started: {error!r}")
        failed.__cause__ = error
        left = self._queue.take_all()
        deliver(left, [Outcome(error=failed)] * len(left))

    @property
    def is_closed(self) -> bool:
        """Whether it takes no more calls."""
        return self._queue.is_closed

    def close(self) -> None:
        """Take no more calls, answer those that wait, and end the thread."""
        if self._pid != os.getpid():  # its queue, and its thread, are those of another process
            self._queue.is_closed = True
            return
        self._queue.close()
        with self._starting.here():  # one that is being started can be waited for afterwards
            thread = self._thread
        if thread is not None and thread.ident is not None and thread is not threading.current_thread():
            thread.join()

    def __enter__(self) -> Batcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Batcher:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    def __reduce__(self) -> Any:
        raise TypeError("a Batcher belongs to its process: send the model, and make another one there")


def _serve(queue: CallQueue, model: weakref.ref[nn.Module]) -> None:
    calls: list[Call] | None = []
    try:
        while (calls := queue.take()) is not None:
            deliver(calls, outcomes(calls, model()))
            calls = []  # or they, and what they hold, would live until the next ones come
    except BaseException as error:  # noqa: BLE001  # who waits must hear of it
        queue.close()
        failed = RuntimeError(f"the batcher failed, and takes no more calls: {error!r}; make another one")
        failed.__cause__ = error
        left = [*(calls or ()), *queue.take_all()]
        deliver(left, [Outcome(error=failed)] * len(left))


def _close(queue: CallQueue, pid: int) -> None:
    """Let the thread of a batcher end that nobody has any more; it is not waited for, here in the middle of
    anything.
    """
    if os.getpid() == pid:
        queue.close()


_open_batchers: weakref.WeakSet[Batcher] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """At the end of the process, where a thread that is at work in torch must not be cut off."""
    for batcher in list(_open_batchers):
        batcher.close()


def _set_soon(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    try:
        loop.call_soon_threadsafe(event.set)
    except RuntimeError:  # the loop was closed meanwhile: nobody waits any more
        return
