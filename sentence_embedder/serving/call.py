"""Call: the texts of one caller, and how the answer gets back."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Answer:
    """What comes of a call.

    Args:
        rows: What ``encode`` returns.
        error: What it raises, instead.
    """

    rows: Any = None
    error: BaseException | None = None


class Waiter(Protocol):
    """Who waits for an answer."""

    @property
    def is_waiting(self) -> bool:
        """Whether somebody still does."""


class WaitingThread:
    """A thread that sleeps until the answer is there."""

    def __init__(self) -> None:
        # A lock is the lightest thing to sleep on: it is taken here, and freed by who has the answer.
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self._answer: Answer | None = None
        self.is_waiting = True

    def wait(self, timeout: float | None) -> Any:
        """The rows.

        Args:
            timeout: For how many seconds to wait; None for ever.

        Raises:
            TimeoutError: They did not come in time.
        """
        try:
            is_there = self._asleep.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        finally:
            self.is_waiting = False  # also if this thread is interrupted
        answer = self._answer
        if not is_there or answer is None:
            raise TimeoutError("the batcher had no answer in time: wait longer, or ask it for less at a time")
        if answer.error is not None:
            raise answer.error
        return answer.rows

    def wake(self, answer: Answer) -> None:
        """Hand over the answer."""
        self._answer = answer
        self._asleep.release()


@dataclass(frozen=True)
class WaitingTask:
    """A task of an event loop, which is told in its own thread.

    Args:
        future: What it awaits.
    """

    future: asyncio.Future[Any]

    @property
    def is_waiting(self) -> bool:
        """Whether it was not cancelled."""
        return not self.future.done()


@dataclass(frozen=True, eq=False)
class Call:
    """What one caller asks for.

    Args:
        method: The method of the model: ``"encode"``, or one for queries or documents.
        items: The texts.
        is_single: Whether a lone text was given.
        arguments: The other arguments of the method.
        tokens: About how many tokens the texts have.
        waiter: Who waits.
        kind: Calls of equal kind can be computed together.
    """

    method: str
    items: Sequence[Any]
    is_single: bool
    arguments: Mapping[str, Any]
    tokens: int
    waiter: WaitingThread | WaitingTask
    kind: Hashable = field(default_factory=object)

    def asked_of(self, model: Any) -> Any:
        """What a model makes of it alone, as its caller would get it from the model."""
        sentences = self.items[0] if self.is_single else self.items
        return getattr(model, self.method)(sentences, **self.arguments)


def answers(calls: Sequence[Call], model: Any) -> list[Answer]:
    """What a model makes of calls of one kind: all together, or, if that fails, each alone, so that an error
    reaches only those whom it concerns.

    Args:
        calls: The calls.
        model: A SentenceTransformer.
    """
    try:
        if len(calls) == 1:
            return [Answer(calls[0].asked_of(model))]
        items = [item for call in calls for item in call.items]
        rows = getattr(model, calls[0].method)(items, **calls[0].arguments)
        if len(rows) == len(items):  # a subclass may answer as it likes
            return list(_parts(calls, rows))
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is the caller's
        if len(calls) == 1:
            return [Answer(error=error)]
    return [answer for call in calls for answer in answers([call], model)]


def _parts(calls: Sequence[Call], rows: Any) -> Iterable[Answer]:
    start = 0
    for call in calls:
        part = rows[start] if call.is_single else rows[start : start + len(call.items)]
        start += len(call.items)
        # Their own: a view would keep the rows of all others in memory.
        yield Answer(
            part.copy() if isinstance(part, np.ndarray) else part.clone() if isinstance(part, Tensor) else part
        )


def deliver(calls: Sequence[Call], given: Sequence[Answer]) -> None:
    """Wake those who wait for the answers; each event loop once."""
    tasks: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Answer]]] = defaultdict(list)
    for call, answer in zip(calls, given, strict=True):
        if isinstance(call.waiter, WaitingThread):
            call.waiter.wake(answer)
        else:
            tasks[call.waiter.future.get_loop()].append((call.waiter.future, answer))
    for loop, answered in tasks.items():
        try:
            loop.call_soon_threadsafe(_resolve, answered)
        except RuntimeError:  # it was closed meanwhile: nobody awaits them any more
            continue


def _resolve(answered: Sequence[tuple[asyncio.Future[Any], Answer]]) -> None:
    for future, answer in answered:
        if future.done():  # cancelled
            continue
        if isinstance(answer.error, StopIteration):  # which no future takes
            future.set_exception(RuntimeError(f"encode raised {answer.error!r}"))
        elif answer.error is not None:
            future.set_exception(answer.error)
        else:
            future.set_result(answer.rows)
