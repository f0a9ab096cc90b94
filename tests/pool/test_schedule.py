"""The schedule: whose chunk is next."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.pool.failure import PoolError, WorkerLostError
from sentence_embedder.pool.request import Answer, Request
from sentence_embedder.pool.schedule import Job, Schedule, Task
from tests.pool.deadline import within

REQUEST = Request(EncodeOptions(), {}, print)
ANSWER = Answer(np.zeros(1, dtype=np.int8), "int8")


def _caller(schedule: Schedule, texts: list[str], chunk: int) -> tuple[threading.Thread, list[range]]:
    """A thread that has texts encoded, and the chunks whose answers it has got."""
    chunks = [range(start, start + chunk) for start in range(0, len(texts), chunk)]
    got: list[range] = []

    def run() -> None:
        with contextlib.suppress(PoolError):  # of a schedule that was closed
            got.extend(rows for rows, _ in schedule.answers(REQUEST, texts, chunks))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, got


def _take(schedule: Schedule) -> Task:
    task = schedule.take()
    assert task is not None
    return task


def test_jobs_take_turns() -> None:
    """A short job does not wait for the whole of a long one."""
    schedule = Schedule(workers=4)
    long, _ = _caller(schedule, ["long"] * 8, 1)
    first = _take(schedule)
    short, got = _caller(schedule, ["short"] * 2, 1)
    while len(schedule._jobs) < 2:
        time.sleep(0.01)

    taken = [_take(schedule) for _ in range(4)]

    assert [task.texts[0] for task in taken].count("short") == 2
    for task in (first, *taken):
        task.succeed(ANSWER)
    short.join(5)
    assert sorted(got, key=lambda rows: rows.start) == [range(1), range(1, 2)]
    schedule.close()
    long.join(5)
    assert not long.is_alive()


def test_a_slow_caller_is_given_little() -> None:
    """Nobody computes for a caller who does not take what is there: two chunks a worker are the most."""
    schedule = Schedule(workers=1)
    answers = schedule.answers(REQUEST, ["text"] * 9, [range(place, place + 1) for place in range(9)])
    advance = threading.Thread(target=lambda: next(answers), daemon=True)
    advance.start()
    _take(schedule).succeed(ANSWER)
    advance.join(5)  # it took one, and no more

    for _ in range(2):
        _take(schedule).succeed(ANSWER)

    extra: list[Task | None] = []
    waiting = threading.Thread(target=lambda: extra.append(schedule.take()), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert extra == []
    next(answers)  # which leaves room for one more
    waiting.join(5)
    assert len(extra) == 1
    answers.close()
    assert not schedule._jobs


class _Forgotten(deque[Any]):
    """A queue that its owner empties as soon as somebody has seen that there is something in it."""

    def __bool__(self) -> bool:
        is_filled = len(self) > 0
        self.clear()
        return is_filled


def test_a_caller_may_leave_at_any_moment() -> None:
    """A job that is forgotten while a worker looks for its next chunk has none, and counts none as handed out."""
    job = Job(REQUEST, ["text"], chunks=_Forgotten([range(1)]), returned=_Forgotten([range(1)]))

    assert job.take(most_in_hand=2) is None
    job.forget()
    assert job.take(most_in_hand=2) is None
    assert job.in_hand == 0


def test_a_lost_chunk_goes_first_and_only_once_again() -> None:
    """A chunk whose worker was lost is the next to be handed out; lost again, it ends the job."""
    schedule = Schedule(workers=2)
    answers: Generator[Any, None, None] = schedule.answers(REQUEST, ["a", "b", "c"], [range(1), range(1, 3)])
    caught: list[PoolError] = []

    def run() -> None:
        with pytest.raises(PoolError) as error:
            next(answers)
        caught.append(error.value)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    schedule.lose(_take(schedule), WorkerLostError("the first was killed"))
    again = _take(schedule)
    assert again.rows == range(1)

    schedule.lose(again, WorkerLostError("the second was killed"))

    thread.join(5)
    assert "the first was killed; the second was killed" in str(caught[0])
    assert caught[0].rows == range(1)
    assert not schedule._jobs


def test_the_garbage_collector_closes_it_in_the_thread_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has the pool any more, as its own thread finds out just before it waits: it ends nevertheless."""
    schedule = Schedule(1)
    wait = schedule._change.wait

    def collecting(seconds: float | None = None) -> bool:
        if not schedule.is_closed:
            schedule.close()
        return wait(seconds)

    monkeypatch.setattr(schedule._change, "wait", collecting)

    assert within(20, schedule.take) is None


def test_closing_ends_everything() -> None:
    """Who waits for a task, or for an answer, waits no longer; and nobody begins anew."""
    schedule = Schedule(workers=1)
    taken: list[Task | None] = []
    worker = threading.Thread(target=lambda: taken.append(schedule.take()), daemon=True)
    worker.start()

    schedule.close()

    worker.join(5)
    assert taken == [None]
    with pytest.raises(PoolError, match="was stopped"):
        next(schedule.answers(REQUEST, ["a"], [range(1)]))
