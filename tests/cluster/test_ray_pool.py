"""A pool on a cluster gives what ``encode`` gives, whatever becomes of its machines."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import PoolError, SentenceTransformer
from sentence_embedder.cluster import RayPool
from tests.cluster.conftest import Machines
from tests.pool.deadline import within

pytestmark = [pytest.mark.xdist_group("ray"), pytest.mark.filterwarnings("ignore")]

TEXTS = [letter * (place + 1) for place, letter in enumerate("abcdefghij")]
EXPECTED = [[float(len(text)), float(ord(text[0]))] for text in TEXTS]


@pytest.mark.usefixtures("machines")
def test_results_are_those_of_one_process(bert: SentenceTransformer) -> None:
    """Embeddings in every container, quantised and not, token embeddings and features come as from one process."""
    texts = [f"the {number} cat sat on the mat" for number in range(500)]
    kinds: list[dict[str, Any]] = [
        {},
        {"convert_to_tensor": True, "normalize_embeddings": True},
        {"prompt_name": "query", "truncate_dim": 8},
        {"precision": "ubinary"},
        {"output_value": "token_embeddings"},
    ]
    with RayPool(bert) as pool:
        for kind in kinds:
            found = within(120, lambda kind=kind: bert.encode(texts, pool=pool, **kind))  # type: ignore[misc]
            expected = bert.encode(texts, **kind)
            assert type(found) is type(expected)
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_allclose(one, other, atol=3e-6, rtol=0)
        assert bert.encode([], pool=pool).shape == (0, 32)
        assert len(bert.encode(texts[:3], pool=pool, output_value=None)) == 3
    with pytest.raises(PoolError, match="was stopped"):
        bert.encode(texts, pool=pool)


@pytest.mark.usefixtures("machines")
def test_what_goes_wrong_comes_home(misbehaving: SentenceTransformer, tmp_path: Path) -> None:
    """An exception is raised in the caller with its traceback and the places of the texts; an actor that is killed
    is replaced; a chunk that kills two is given up; and after each, the pool goes on.
    """
    with RayPool(misbehaving) as pool:

        def encode(texts: list[str]) -> Any:
            return within(120, lambda: misbehaving.encode(texts, pool=pool, chunk_size=1).tolist())

        assert encode(TEXTS) == EXPECTED
        with pytest.raises(
            PoolError, match=r"(?s)texts 3 to 3: ValueError: this text was to fail.*in _obeyed"
        ) as error:
            encode([*TEXTS[:3], "raise"])
        assert isinstance(error.value.__cause__, ValueError)
        order = f"die unless {tmp_path / 'done'}"
        assert encode([*TEXTS, order]) == [*EXPECTED, [float(len(order)), float(ord("d"))]]
        with pytest.raises(PoolError, match="texts 1 to 1: two actors were lost"):
            encode(["a", "die", "b"])
        assert encode(TEXTS) == EXPECTED


def test_a_machine_is_killed(misbehaving: SentenceTransformer, machines: Machines) -> None:
    """When a machine goes in the middle of a call, others finish it, even if there is no room for its actors."""
    texts = [f"sleep 0.{number % 5}" for number in range(60)]
    expected = misbehaving.encode(["x" * 9]).repeat(60, 0)
    expected[:, 1] = ord("s")
    with RayPool(misbehaving) as pool:
        misbehaving.encode(["warm", "up"], pool=pool, chunk_size=1)
        timer = threading.Timer(2, machines.kill_one)
        timer.start()
        found = within(120, lambda: misbehaving.encode(texts, pool=pool, chunk_size=1))
        assert not timer.is_alive()  # it was during the call

    np.testing.assert_array_equal(found, expected)


@pytest.mark.usefixtures("machines")
def test_two_threads_use_one_pool(misbehaving: SentenceTransformer) -> None:
    """Calls of several threads each get their own results."""
    with RayPool(misbehaving) as pool:
        found: dict[str, Any] = {}

        def encode(letter: str) -> None:
            found[letter] = misbehaving.encode([letter, letter * 2], pool=pool, chunk_size=1).tolist()

        threads = [threading.Thread(target=encode, args=(letter,)) for letter in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert found == {letter: [[1, ord(letter)], [2, ord(letter)]] for letter in "abcd"}


@pytest.mark.usefixtures("machines")
def test_a_pool_is_stopped_at_work(misbehaving: SentenceTransformer, tmp_path: Path) -> None:
    """Who waits for a pool that is stopped gets an error."""
    pool = RayPool(misbehaving)

    def stop() -> None:
        while not (tmp_path / "started").exists():
            time.sleep(0.05)
        pool.stop()

    threading.Thread(target=stop).start()
    with pytest.raises(PoolError):
        within(
            60, lambda: misbehaving.encode([f"touch {tmp_path / 'started'}", "sleep 60"], pool=pool, chunk_size=1)
        )


def test_without_ray_it_is_said_what_to_install(
    misbehaving: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Ray is not installed the error names the extra."""
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ImportError, match=r"sentence-embedder\[ray\]"):
        RayPool(misbehaving)


@pytest.mark.usefixtures("machines")
def test_a_pool_needs_an_actor(misbehaving: SentenceTransformer) -> None:
    """No workers are no pool."""
    with pytest.raises(ValueError, match="workers: expected at least 1"):
        RayPool(misbehaving, workers=0)
