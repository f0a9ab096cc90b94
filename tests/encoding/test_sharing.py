"""Whether all threads share a batch, or one of them computes it."""

from __future__ import annotations

import copy
import pickle
import sys
import threading
from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sentence_embedder import SentenceTransformer
from sentence_embedder.encoding import sharing
from sentence_embedder.encoding.sharing import Sharing, Usage
from sentence_embedder.encoding.single_threads import single_threads
from tests.pool.deadline import within

pytestmark = pytest.mark.usefixtures("two_threads")

ALONE = ("encode-lone", 1)


class Machine:
    """A machine on which threads that share a batch may wait for each other.

    Attributes:
        now: Seconds.
        switches: How often a core is lost while a batch is shared.
        lost_cores: How many are lost on the average.
        sleeps: How often its thread goes to sleep.
        shared: Seconds that a shared batch takes.
        alone: Seconds that one alone takes.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.switches = 0
        self.lost_cores = 0.0
        self.sleeps = 0
        self.shared = 0.003
        self.alone = 0.005
        self.sharing = Sharing()
        self._usage = Usage(100.0, 0.0, 0, 0)

    def encode(self, tokens: int = 9) -> bool:
        """Whether a batch is computed alone."""

        def compute() -> bool:
            is_alone = (threading.current_thread().name.split("_")[0], torch.get_num_threads()) == ALONE
            seconds = self.alone if is_alone else self.shared
            self.now += seconds
            if not is_alone:
                self._usage = Usage(
                    self.now,
                    self._usage.of_processor + seconds * (2 - self.lost_cores),
                    self._usage.switches + self.switches,
                    self._usage.sleeps + self.sleeps,
                )
            return is_alone

        return self.sharing.computed(compute, lambda: tokens)

    def usage(self) -> Usage:
        """What the system says."""
        return self._usage._replace(seconds=self.now)

    def is_alone_for(self) -> float:
        """How many seconds it takes until a batch is shared."""
        start = self.now
        while self.encode():
            pass
        return self.now - start - self.shared


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A quiet one."""
    machine = Machine()
    monkeypatch.setattr(sharing, "time", SimpleNamespace(monotonic=lambda: machine.now))
    monkeypatch.setattr(sharing, "_usage", machine.usage)
    return machine


def busy(machine: Machine) -> None:
    """Let somebody else want its cores."""
    machine.switches, machine.lost_cores, machine.shared = 12, 0.5, 0.5


def crowded(machine: Machine) -> None:
    """Let the process have more threads than it has cores."""
    machine.sleeps, machine.shared = 50, 0.008


def test_on_a_quiet_machine_all_threads_share_a_batch(machine: Machine) -> None:
    """It is computed by the thread that wants it; a core lost now and then, for a moment, changes nothing."""
    machine.switches, machine.sleeps, machine.lost_cores = 1, 1, 0.1
    assert not any(machine.encode() for _ in range(50))

    machine.switches, machine.shared = 40, 1.0

    assert not any(machine.encode(500) for _ in range(50))


@pytest.mark.parametrize("situation", [busy, crowded])
def test_threads_that_wait_for_each_other_no_longer_share(
    machine: Machine, situation: Callable[[Machine], None]
) -> None:
    """Once they have waited, batches of about that size are computed by one thread; others are tried first."""
    situation(machine)

    assert not machine.encode(9)
    assert machine.encode(9)
    assert machine.encode(14)
    for tokens in (5, 100):
        assert not machine.encode(tokens)
        assert machine.encode(tokens)


@pytest.mark.parametrize(("situation", "longest"), [(busy, 25.0), (crowded, 0.4)])
def test_sharing_is_tried_again_ever_more_seldom(
    machine: Machine, situation: Callable[[Machine], None], longest: float
) -> None:
    """As long as it does not help, it is tried after ever more time, up to fifty times what a try takes."""
    situation(machine)
    assert not machine.encode()

    pauses = [machine.is_alone_for() for _ in range(6)]

    assert pauses == pytest.approx([min(0.1 * 4**n, longest) for n in range(6)], abs=2 * machine.alone)


def test_who_shared_a_batch_at_the_same_time_decides_nothing_more(machine: Machine) -> None:
    """Of several that were at work when threads waited for each other, the first to end decides."""
    busy(machine)
    begun: list[bool] = []

    def compute() -> None:
        begun.append(machine.encode())
        machine.now += 0.01

    machine.sharing.computed(compute, lambda: 9)

    assert begun == [False]
    assert machine.is_alone_for() == pytest.approx(0.1, abs=0.02)


def test_when_the_others_have_gone_all_threads_share_again(machine: Machine) -> None:
    """One try is enough, until somebody comes again."""
    busy(machine)
    assert not machine.encode()
    assert machine.encode()
    machine.switches, machine.lost_cores, machine.shared = 0, 0.0, 0.003
    machine.is_alone_for()

    assert not any(machine.encode() for _ in range(50))
    busy(machine)
    assert not machine.encode()
    assert machine.encode()


def test_alone_only_where_that_is_quicker(machine: Machine) -> None:
    """Where many threads that wait are quicker than one alone, they share batches, until it takes much longer;
    batches of other sizes are tried for themselves.
    """
    machine.sleeps, machine.shared, machine.alone = 50, 0.020, 0.100

    assert [machine.encode() for _ in range(10)] == [False, True, True, True] + 6 * [False]

    machine.now += 60
    assert [machine.encode() for _ in range(10)] == [False, True, True, True] + 6 * [False]

    assert [machine.encode(5) for _ in range(10)] == [False, True, True, True] + 6 * [False]

    busy(machine)
    machine.alone = 0.005
    assert [machine.encode() for _ in range(10)] == [False] + 9 * [True]


def test_what_takes_long_is_tried_alone_once(machine: Machine) -> None:
    """That is enough to know that it takes longer."""
    machine.sleeps, machine.shared, machine.alone = 50, 1.0, 4.0

    assert [machine.encode() for _ in range(10)] == [False, True] + 8 * [False]


def test_copies_begin_anew(machine: Machine) -> None:
    """What was found belongs to one model in one process."""
    busy(machine)
    assert not machine.encode()
    assert machine.sharing._decisions

    assert not copy.deepcopy(machine.sharing)._decisions
    assert not pickle.loads(pickle.dumps(machine.sharing))._decisions  # noqa: S301


def test_a_single_thread_has_nobody_to_wait_for(machine: Machine) -> None:
    """Where torch has one thread, it computes everything, also when more threads have waited before."""
    busy(machine)
    torch.set_num_threads(1)
    try:
        assert not any(machine.encode() for _ in range(10))
        torch.set_num_threads(2)
        assert not machine.encode()
        assert machine.encode()
        torch.set_num_threads(1)
        assert not machine.encode()
    finally:
        torch.set_num_threads(2)


def test_one_within_another(machine: Machine) -> None:
    """What a thread that computes alone encodes itself, it computes itself: it does not wait for its own kind."""
    busy(machine)
    assert not machine.encode()

    def nested(depth: int) -> int:
        return depth if depth == 5 else machine.sharing.computed(lambda: nested(depth + 1), lambda: 9)

    assert within(60, lambda: nested(0)) == 5


def test_lone_texts_do_not_queue_behind_many(machine: Machine) -> None:
    """Calls with many texts may have filled their threads for long: those of lone texts are others."""
    busy(machine)
    assert not machine.encode()
    end = threading.Event()
    futures = [single_threads(2).submit(lambda: end.wait(60)) for _ in range(4)]
    try:
        assert within(30, machine.encode)
    finally:
        end.set()
    assert all(future.result() for future in futures)


def test_an_error_comes_out(machine: Machine) -> None:
    """Alone or not, it is raised as it is, and changes nothing."""
    busy(machine)

    def fail() -> None:
        raise ZeroDivisionError

    for is_alone in (False, True):
        with pytest.raises(ZeroDivisionError):
            machine.sharing.computed(fail, lambda: 9)
        assert machine.encode() is is_alone


def test_what_the_system_says() -> None:
    """It counts how often a thread goes to sleep."""
    before = sharing._usage()
    for _ in range(30):
        threading.Event().wait(0.001)

    assert sharing.have_waited(before, sharing._usage()) == sys.platform.startswith("linux")


def test_a_system_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not count, it is never known that threads have waited."""
    monkeypatch.setattr(sharing, "resource", None)

    assert not sharing.have_waited(sharing._usage(), sharing._usage())


def test_the_embeddings_are_the_same(minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether threads share a text or one computes it alone, its embedding is the same to the last bit."""
    texts = ["a dog", "the cat sat on the mat " * 5, "word " * 100]
    monkeypatch.setattr(sharing, "have_waited", lambda *_: False)
    monkeypatch.setattr(minilm, "_sharing", Sharing())
    shared = [minilm.encode(text) for text in texts]

    by_one = sharing._Decision(by_one=True, until=inf, pause=1.0, seconds=inf)
    monkeypatch.setattr(minilm._sharing, "_decisions", dict.fromkeys(range(20), by_one))
    compute, calls = sharing._by_one, []

    def counted(call: Callable[[], Any]) -> Any:
        calls.append(call)
        return compute(call)

    monkeypatch.setattr(sharing, "_by_one", counted)
    alone = [minilm.encode(text) for text in texts]

    assert len(calls) == len(texts)
    np.testing.assert_array_equal(alone, shared)
