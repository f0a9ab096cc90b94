"""Call: the texts of one caller, and how the answer gets back."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
from torch import Tensor

from sentence_embedder.encoding.cut_texts import CutTexts
from sentence_embedder.encoding.findings import Findings
from sentence_embedder.encoding.nonfinite import NonFiniteError, NonFiniteRows
from sentence_embedder.latch import Latch


@dataclass(frozen=True)
class Outcome:
    """What comes of a call.

    Args:
        rows: What ``encode`` returns.
        error: What it raises, instead.
    """

    rows: Any = None
    error: BaseException | None = None


class WaitingThread:
    """A thread that sleeps until the answer is there."""

    def __init__(self) -> None:
        self._is_there = Latch()
        self._outcome: Outcome | None = None
        self.is_waiting = True

    def wait(self, timeout: float | None) -> Any:
        """The rows.

        Args:
            timeout: For how many seconds to wait; None for ever.

        Raises:
            TimeoutError: They did not come in time.
        """
        try:
            is_there = self._is_there.wait(timeout)
        finally:
            self.is_waiting = False  # also if this thread is interrupted
        outcome = self._outcome
        if not is_there or outcome is None:
            raise TimeoutError("the batcher had no answer in time: wait longer, or ask it for less at a time")
        if outcome.error is not None:
            raise outcome.error
        return outcome.rows

    def wake(self, outcome: Outcome) -> None:
        """Hand over what came of the call, if there is nothing yet."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        self._is_there.open()


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

    def asked_of(self, model: Any, **others: Any) -> Any:
        """What a model makes of it alone, as its caller would get it from the model.

        Args:
            model: A SentenceTransformer.
            others: Other arguments.
        """
        sentences = self.items[0] if self.is_single else self.items
        return getattr(model, self.method)(sentences, **self.arguments, **others)


def outcomes(calls: Sequence[Call], model: Any) -> list[Outcome]:
    """What a model makes of calls of one kind: all together, or, if that fails, each alone, so that an error
    reaches only those whom it concerns.

    Args:
        calls: The calls.
        model: A SentenceTransformer.
    """
    try:
        known = _known_arguments(model)
        quiet = {"show_progress_bar": False} if "show_progress_bar" in known else {}
        if len(calls) == 1:
            rows = calls[0].asked_of(model, **quiet)
            # Without a tensor behind it: one that a daemon thread frees while the process ends, aborts the process.
            return [Outcome(rows.copy() if isinstance(rows, np.ndarray) else rows)]
        arguments = {**calls[0].arguments, **quiet}
        found = _findings(model, arguments) if {"truncation", "on_nonfinite"} <= known else None
        if found is not None:
            arguments.update(truncation=found.cut, on_nonfinite=found.nonfinite)
        items = [item for call in calls for item in call.items]
        rows = getattr(model, calls[0].method)(items, **arguments)
        # A subclass may answer as it likes; only what is a row a text for certain is shared out.
        if type(rows) in (list, np.ndarray, Tensor) and len(rows) == len(items):
            return list(_parts(calls, rows, found, model))
    except BaseException as error:  # noqa: BLE001  # whatever it is, it is the caller's
        if len(calls) == 1:
            return [Outcome(error=error)]
    return [outcome for call in calls for outcome in outcomes([call], model)]


def _known_arguments(model: Any) -> frozenset[str]:
    """Arguments that ``encode`` of a model takes by name."""
    return frozenset(signature(model.encode).parameters)


def _findings(model: Any, arguments: Mapping[str, Any]) -> Findings:
    """What takes the findings of a call of several callers, who are told of their own rows."""
    cut = CutTexts(arguments.get("truncation", "warn"), model.get_max_seq_length())
    return Findings(cut, NonFiniteRows(arguments.get("on_nonfinite", "nan")))


def _parts(calls: Sequence[Call], rows: Any, found: Findings | None, model: Any) -> Iterable[Outcome]:
    start = 0
    for call in calls:
        count = len(call.items)
        part = _own(rows[start] if call.is_single else rows[start : start + count])
        try:
            if found is not None:
                model._tell_of(found.cut.part(start, count), count)
                found.nonfinite.part(start, count).judge(part)
        except NonFiniteError as error:
            yield Outcome(error=error)
        else:
            yield Outcome(part)
        start += count


def _own(part: Any) -> Any:
    """A copy: a view would keep the rows of all others in memory, and, saved, show them."""
    if isinstance(part, np.ndarray):
        return part.copy()
    if isinstance(part, Tensor):
        return part.clone()
    if isinstance(part, list):
        return [_own(row) for row in part]
    return part


def deliver(calls: Sequence[Call], given: Sequence[Outcome]) -> None:
    """Wake those who wait for the answers; each event loop once."""
    tasks: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = defaultdict(list)
    for call, outcome in zip(calls, given, strict=True):
        if isinstance(call.waiter, WaitingThread):
            call.waiter.wake(outcome)
        else:
            tasks[call.waiter.future.get_loop()].append((call.waiter.future, outcome))
    for loop, answered in tasks.items():
        try:
            loop.call_soon_threadsafe(_resolve, answered)
        except RuntimeError:  # it was closed meanwhile: nobody awaits them any more
            continue


def _resolve(answered: Sequence[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in answered:
        if future.done():  # cancelled
            continue
        if isinstance(outcome.error, StopIteration):  # which no future takes
            future.set_exception(RuntimeError(f"encode raised {outcome.error!r}"))
        elif outcome.error is not None:
            future.set_exception(outcome.error)
        else:
            future.set_result(outcome.rows)
