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

pytestmark = pytest.mark.usefixtures("two_threads")

ALONE = ("encode", 1)


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
    """Once they have waited, batches that are no larger are computed by a thread alone; larger ones are tried."""
    situation(machine)

    assert not machine.encode(9)
    assert machine.encode(9)
    assert machine.encode(5)
    assert not machine.encode(100)
    assert machine.encode(100)


@pytest.mark.parametrize("situation", [busy, crowded])
def test_sharing_is_tried_again(machine: Machine, situation: Callable[[Machine], None]) -> None:
    """Now and then, but no more than a fiftieth of the time goes into that."""
    situation(machine)
    assert not machine.encode()

    pauses = [machine.is_alone_for() for _ in range(3)]

    assert pauses == pytest.approx([50 * machine.shared] * 3, abs=2 * machine.alone)
    machine.shared = 3.0
    machine.is_alone_for()
    assert machine.is_alone_for() == pytest.approx(60, abs=2 * machine.alone)


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
    """Where many threads that wait are quicker than one alone, they share batches, until it takes much longer, and
    smaller ones are tried for themselves.
    """
    machine.sleeps, machine.shared, machine.alone = 50, 0.020, 0.100

    assert [machine.encode() for _ in range(10)] == [False, True, True, True] + 6 * [False]

    machine.now += 60
    assert [machine.encode() for _ in range(10)] == [False, True, True, True] + 6 * [False]

    assert [machine.encode(5) for _ in range(10)] == [False, True, True, True] + 6 * [False]

    busy(machine)
    assert [machine.encode() for _ in range(10)] == [False] + 9 * [True]


def test_what_takes_long_is_tried_alone_once(machine: Machine) -> None:
    """That is enough to know that it takes longer."""
    machine.sleeps, machine.shared, machine.alone = 50, 1.0, 4.0

    assert [machine.encode() for _ in range(10)] == [False, True] + 8 * [False]


def test_copies_begin_anew(machine: Machine) -> None:
    """What was found belongs to one model in one process."""
    busy(machine)
    assert not machine.encode()
    assert machine.sharing._is_alone

    assert not copy.deepcopy(machine.sharing)._is_alone
    assert not pickle.loads(pickle.dumps(machine.sharing))._is_alone  # noqa: S301


def test_a_single_thread_has_nobody_to_wait_for(machine: Machine) -> None:
    """Where torch has one thread, it computes everything."""
    torch.set_num_threads(1)
    busy(machine)
    try:
        assert not any(machine.encode() for _ in range(10))
    finally:
        torch.set_num_threads(2)


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

    for name, value in {"_is_alone": True, "_until": inf, "_tokens": 1000, "_seconds": inf}.items():
        monkeypatch.setattr(minilm._sharing, name, value)
    compute, calls = sharing._alone, []

    def counted(call: Callable[[], Any]) -> tuple[Any, float]:
        calls.append(call)
        return compute(call)

    monkeypatch.setattr(sharing, "_alone", counted)
    alone = [minilm.encode(text) for text in texts]

    assert len(calls) == len(texts)
    np.testing.assert_array_equal(alone, shared)
