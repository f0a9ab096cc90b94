"""The queue of calls: which are computed together, and who waits for what."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sentence_embedder.latch import Latch
from sentence_embedder.serving import call_queue
from sentence_embedder.serving.call import Call, WaitingThread
from sentence_embedder.serving.call_queue import CallQueue, next_batch
from tests.pool.deadline import within


def _call(kind: Any = "kind", tokens: int = 10, texts: int = 1, *, is_waiting: bool = True) -> Call:
    waiter = WaitingThread()
    waiter.is_waiting = is_waiting
    return Call("encode", ["a"] * texts, is_single=False, arguments={}, tokens=tokens, waiter=waiter, kind=kind)


def _queue(max_wait: float = 0.0, max_tokens: int = 100, max_waiting: int = 10) -> CallQueue:
    return CallQueue(max_wait=max_wait, max_tokens=max_tokens, max_waiting=max_waiting)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 60), st.booleans()), max_size=20), st.integers(1, 100)
)
def test_a_batch(settings: list[tuple[str, int, bool]], max_tokens: int) -> None:
    """It begins with the first call that is waited for, is of one kind, and keeps to the limit unless it is one
    call; no call that is waited for is lost, and the order stays.
    """
    calls = [_call(kind, tokens, is_waiting=is_waiting) for kind, tokens, is_waiting in settings]
    wanted = [call for call in calls if call.waiter.is_waiting]

    batch, rest = next_batch(calls, max_tokens)

    assert batch[:1] == wanted[:1]
    assert len({call.kind for call in batch}) <= 1
    assert len(batch) <= 1 or sum(call.tokens for call in batch) <= max_tokens
    assert sorted(map(calls.index, batch + rest)) == [calls.index(call) for call in wanted]
    assert [calls.index(call) for call in batch] == sorted(calls.index(call) for call in batch)
    assert [calls.index(call) for call in rest] == sorted(calls.index(call) for call in rest)


def test_kinds_that_differ_from_all_others() -> None:
    """A call without a kind is computed alone."""
    first, second = (
        Call("encode", ["a"], is_single=True, arguments={}, tokens=1, waiter=WaitingThread()) for _ in range(2)
    )

    assert next_batch([first, second], 100) == ([first], [second])


def test_a_full_queue_lets_nobody_in() -> None:
    """A call that finds no room gives up in time, or is let in when calls are taken out."""
    queue = _queue(max_waiting=3)
    queue.put(_call(texts=2))
    told: list[str] = []

    with pytest.raises(TimeoutError, match="2 texts waiting, and took no more in time"):
        queue.put(_call(texts=2), timeout=0.01)
    assert not queue.try_put(_call(texts=2), lambda: told.append("room"))

    assert len(queue.take() or []) == 1
    assert told == ["room"]
    assert queue.try_put(_call(texts=2), lambda: None)


def test_a_call_larger_than_the_queue_is_let_in_alone() -> None:
    """Else it would wait for ever."""
    queue = _queue(max_waiting=3)

    queue.put(_call(texts=50), timeout=0)

    assert len(queue.take() or []) == 1


def test_after_the_end() -> None:
    """A closed queue takes nothing, gives what waits, and says that this was all; who waits for room is told."""
    queue = _queue(max_waiting=1)
    waiting = _call()
    queue.put(waiting)
    raised: list[BaseException] = []

    def put() -> None:
        try:
            queue.put(_call())
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    queue.close()
    within(5, thread.join)

    assert "closed" in str(raised[0])
    with pytest.raises(RuntimeError, match="closed"):
        queue.try_put(_call(), lambda: None)
    assert queue.take() == [waiting]
    assert queue.take() is None


def test_the_garbage_collector_closes_it_in_the_thread_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody has the batcher any more, as its own thread finds out just before it waits: it ends nevertheless."""
    queue = _queue()

    class Collecting(Latch):
        def __init__(self) -> None:
            queue.close()
            super().__init__()

    monkeypatch.setattr(call_queue, "Latch", Collecting)

    assert within(20, queue.take) is None


def test_calls_that_come_at_the_same_time_are_waited_for() -> None:
    """Where two came together before, the first of the next two waits for the other, but not for ever."""
    queue = _queue(max_wait=30)
    for _ in range(2):
        queue.put(_call())
    assert len(queue.take() or []) == 2
    queue.put(_call())
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()

    queue.put(_call())
    within(10, thread.join)

    assert len(taken[0]) == 2
    hasty = _queue(max_wait=0.01)
    for _ in range(2):
        hasty.put(_call())
    hasty.take()
    hasty.put(_call())
    assert len(within(10, hasty.take) or []) == 1
