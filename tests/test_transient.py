"""Transient values."""

from __future__ import annotations

import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

from sentence_embedder.transient import Transient


def test_a_value_is_made_when_it_does_not_hold() -> None:
    """A value is kept as long as it holds; then a new one takes its place."""
    transient: Transient[int] = Transient()

    assert transient.get(make=lambda: 1, holds=lambda value: value == 1) == 1
    assert transient.get(make=lambda: 2, holds=lambda value: value == 1) == 1
    assert transient.get(make=lambda: 3, holds=lambda value: value == 3) == 3
    assert transient.get(make=lambda: 4, holds=lambda _value: True) == 3


def test_threads_make_it_once() -> None:
    """Threads that need it at the same time get the same value."""
    transient: Transient[object] = Transient()
    barrier = threading.Barrier(4)

    def get(_: int) -> object:
        barrier.wait()
        return transient.get(make=object, holds=lambda _value: True)

    with ThreadPoolExecutor(4) as threads:
        values = set(threads.map(get, range(4)))

    assert len(values) == 1


def test_copies_start_without_it() -> None:
    """Neither a copy nor a pickle has the value."""
    transient: Transient[object] = Transient()
    transient.get(make=threading.Lock, holds=lambda _value: True)  # no lock can be pickled

    for other in (copy.copy(transient), copy.deepcopy(transient), pickle.loads(pickle.dumps(transient))):  # noqa: S301
        assert other.get(make=lambda: "new", holds=lambda _value: True) == "new"
