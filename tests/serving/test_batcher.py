"""Many callers, served together: each gets its own, errors and delays included."""

from __future__ import annotations

import asyncio
import copy
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sentence_embedder import SentenceTransformer
from sentence_embedder.features import Features
from sentence_embedder.serving import call as calls
from sentence_embedder.serving.batcher import Batcher
from tests.crowd import in_threads
from tests.pool.deadline import within

TEXTS = [f"{'the cat sat ' * (place % 5)}the dog {place}" for place in range(60)]


@pytest.fixture(scope="module")
def shared(tiny_folders: dict[str, Path]) -> SentenceTransformer:
    """A tiny BERT that no test changes."""
    return SentenceTransformer(str(tiny_folders["bert"]), device="cpu")


@pytest.fixture
def batcher(shared: SentenceTransformer) -> Iterator[Batcher]:
    """A batcher of it."""
    with shared.batcher() as batcher:
        yield batcher


class Gate(nn.Module):
    """Lets a batch through when it is open, and counts their texts."""

    def __init__(self) -> None:
        super().__init__()
        self.is_open = threading.Event()
        self.sizes: list[int] = []

    def forward(self, features: Features) -> Features:
        """What was given."""
        self.sizes.append(len(features["sentence_embedding"]))
        assert self.is_open.wait(20)
        return features


@pytest.fixture
def gate(model: SentenceTransformer) -> Gate:
    """A gate in the model of this test."""
    gate = Gate()
    model.add_module("gate", gate)
    return gate


def _until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


def _join(threads: Sequence[threading.Thread], seconds: float) -> None:
    """Wait for threads, which must end in time."""
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads)


def _same(ours: Any, theirs: Any) -> None:
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            _same(one, other)
        return
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype
    # Token embeddings are larger than 1; their last digit is, too.
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=2e-6, rtol=1e-6)


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"prompt_name": "query"},
    {"prompt": "red: "},
    {"normalize_embeddings": True},
    {"truncate_dim": 7},
    {"convert_to_tensor": True},
    {"convert_to_numpy": False},
    {"output_value": "token_embeddings"},
    {"precision": "ubinary"},
]


def test_sixty_four_threads_with_mixed_arguments(shared: SentenceTransformer, batcher: Batcher) -> None:
    """Each call, of a text or of several, has what the model gives it alone, in its order and its container."""

    def work(number: int) -> None:
        for step in range(6):
            arguments = ARGUMENTS[(number + step) % len(ARGUMENTS)]
            start = (number * 7 + step) % 50
            texts: Any = TEXTS[start] if step % 2 else TEXTS[start : start + 1 + number % 5]
            _same(batcher.encode(texts, **arguments), shared.encode(texts, **arguments))

    in_threads(64, work)


def test_queries_and_documents(shared: SentenceTransformer, batcher: Batcher) -> None:
    """They have their prompts, and positional arguments their meaning."""
    _same(batcher.encode_query("a cat"), shared.encode_query("a cat"))
    _same(batcher.encode_document(["a cat", "a dog"]), shared.encode_document(["a cat", "a dog"]))
    _same(batcher.encode("a cat", "query", None, 4), shared.encode("a cat", "query", None, 4))
    _same(batcher.encode([]), shared.encode([]))


def test_what_waits_goes_together(model: SentenceTransformer, gate: Gate) -> None:
    """While a batch is computed calls gather, and are the next one."""
    with model.batcher() as batcher:
        threads = [threading.Thread(target=batcher.encode, args=(text,), daemon=True) for text in TEXTS[:21]]
        threads[0].start()
        _until(lambda: len(gate.sizes) == 1)
        for thread in threads[1:]:
            thread.start()
        _until(lambda: len(batcher._queue._calls) == 20)
        gate.is_open.set()
        _join(threads, 20)

    assert gate.sizes == [1, 20]


def test_tasks_of_an_event_loop(shared: SentenceTransformer) -> None:
    """Hundreds of tasks await their embeddings; the loop is free meanwhile."""
    expected = shared.encode(TEXTS)

    async def serve() -> tuple[list[Any], list[Any]]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        own = await asyncio.gather(*(shared.aencode(text) for text in TEXTS * 5))
        async with shared.batcher(max_waiting=8) as batcher:
            others = await asyncio.gather(*(batcher.aencode(TEXTS[n : n + 2]) for n in range(0, 60, 2)))
            _same(await batcher.aencode_query("a cat"), shared.encode_query("a cat"))
            _same(await batcher.aencode_document("a cat"), shared.encode_document("a cat"))
        ticking.cancel()
        assert ticks > 10
        return own, others

    own, others = within(60, lambda: asyncio.run(serve()))

    np.testing.assert_allclose(np.stack(own), np.tile(expected, (5, 1)), atol=1e-6)
    np.testing.assert_allclose(np.concatenate(others), expected, atol=1e-6)


def test_several_loops_one_after_another(shared: SentenceTransformer) -> None:
    """The model's own batcher serves whichever loop asks."""
    for _ in range(3):
        _same(within(20, lambda: asyncio.run(shared.aencode("a cat"))), shared.encode("a cat"))


def test_a_cancelled_task_is_forgotten(model: SentenceTransformer, gate: Gate) -> None:
    """What nobody awaits any more is not computed, and no other task is the worse for it."""

    async def serve() -> Any:
        async with model.batcher() as batcher:
            first = asyncio.create_task(batcher.aencode("the first"))
            while not gate.sizes:
                await asyncio.sleep(0.001)
            others = [asyncio.create_task(batcher.aencode(text)) for text in TEXTS[:10]]
            while len(batcher._queue._calls) < 10:
                await asyncio.sleep(0.001)
            for task in others[::2]:
                task.cancel()
            gate.is_open.set()
            await first
            return await asyncio.gather(*others, return_exceptions=True)

    results = within(30, lambda: asyncio.run(serve()))

    assert gate.sizes == [1, 5]
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * 5
    _same(results[1], model.encode(TEXTS[1]))


def test_who_gives_up_is_forgotten(model: SentenceTransformer, gate: Gate) -> None:
    """A caller whose time is over gets an error, and its texts are not computed."""
    with model.batcher() as batcher:
        thread = threading.Thread(target=batcher.encode, args=("the first",), daemon=True)
        thread.start()
        _until(lambda: len(gate.sizes) == 1)
        with pytest.raises(TimeoutError, match="no answer in time"):
            batcher.encode("another", timeout=0.01)
        gate.is_open.set()
        batcher.encode("a third")

    assert gate.sizes == [1, 1]


@pytest.mark.parametrize("timeout", [float("inf"), 1e30, 60])
def test_any_time_to_wait(timeout: float, shared: SentenceTransformer, batcher: Batcher) -> None:
    """A caller may wait as long as it likes."""
    _same(batcher.encode(TEXTS, timeout=timeout), shared.encode(TEXTS))


@pytest.mark.parametrize("is_started", [True, False])
def test_an_interrupted_start(
    shared: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, *, is_started: bool
) -> None:
    """Interrupted while its thread is started, a batcher has one thread at most, and one when it is needed."""
    before = set(threading.enumerate())

    def start(thread: threading.Thread) -> None:
        if is_started:
            thread.start()
        raise KeyboardInterrupt

    batcher = Batcher(shared)
    with monkeypatch.context() as patch:
        patch.setattr("sentence_embedder.serving.batcher.start", start)
        with pytest.raises(KeyboardInterrupt):
            batcher.encode("the cat")

    np.testing.assert_allclose(batcher.encode("the cat"), shared.encode("the cat"), atol=1e-5)
    assert [thread.name for thread in set(threading.enumerate()) - before].count("batcher") == 1
    batcher.close()
    assert "batcher" not in [thread.name for thread in set(threading.enumerate()) - before]


def test_a_start_that_fails(shared: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system gives no more threads, all who have come meanwhile are told, and nobody waits for one."""
    starting, both = threading.Event(), threading.Event()
    errors: list[BaseException] = []

    def start(_thread: threading.Thread) -> None:
        starting.set()
        both.wait(60)
        raise RuntimeError("can't start new thread")

    batcher = Batcher(shared)

    def call() -> None:
        with pytest.raises(RuntimeError, match="can't start") as caught:
            batcher.encode("the cat")
        errors.append(caught.value)

    monkeypatch.setattr("sentence_embedder.serving.batcher.start", start)
    callers = [threading.Thread(target=call, daemon=True) for _ in range(2)]
    callers[0].start()
    assert starting.wait(60)
    callers[1].start()
    callers[1].join(0.2)  # it has come as far as it comes
    both.set()
    _join(callers, 60)

    assert len(errors) == 2


def test_too_many_callers_have_to_wait(model: SentenceTransformer, gate: Gate) -> None:
    """Where the queue is full, a caller waits to be let in, or gives up."""
    with model.batcher(max_waiting=2) as batcher:
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda text=text: results.append(batcher.encode(text)), daemon=True)
            for text in TEXTS[:8]
        ]
        for thread in threads:
            thread.start()
        _until(lambda: len(gate.sizes) == 1 and len(batcher._queue._calls) == 2)
        with pytest.raises(TimeoutError, match="2 texts waiting"):
            batcher.encode("another", timeout=0.01)
        gate.is_open.set()
        _join(threads, 20)

    assert len(results) == 8
    assert max(gate.sizes) <= 2


class Picky(nn.Module):
    """Fails over a batch with a text that has a certain number of tokens."""

    def forward(self, features: Features) -> Features:
        """What was given, or an error."""
        if (features["attention_mask"].sum(dim=1) == 9).any():
            raise RuntimeError("nine tokens")
        return features


def test_an_error_reaches_its_own_caller_alone(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of calls that were computed together only the one fails that fails alone."""
    bad = "the cat sat on a red dog"
    expected = model.encode(TEXTS[:10])
    model.add_module("picky", Picky())
    assert model.count_tokens(bad) == 9
    together: list[int] = []
    outcomes = calls.outcomes

    def seen(batch: Sequence[calls.Call], model: Any) -> list[calls.Outcome]:
        together.append(len(batch))
        return outcomes(batch, model)

    monkeypatch.setattr("sentence_embedder.serving.batcher.outcomes", seen)

    async def serve() -> list[Any]:
        async with model.batcher() as batcher:
            tasks = [batcher.aencode(text) for text in (*TEXTS[:5], bad, *TEXTS[5:10])]
            return await asyncio.gather(*tasks, return_exceptions=True)

    results = within(30, lambda: asyncio.run(serve()))

    assert max(together) > 1
    assert [str(result) for result in results if isinstance(result, BaseException)] == ["nine tokens"]
    np.testing.assert_allclose(np.stack(results[:5] + results[6:]), expected, atol=1e-6)


@pytest.mark.parametrize("rows", [None, {"rows": 1}, [np.zeros(1)], [np.zeros(1)] * 3, (np.zeros((2, 1)), {})])
def test_an_encode_of_somebodys_own(rows: Any) -> None:
    """What cannot be shared out among callers, or cannot be copied, is asked for by each call alone."""

    class Own:
        def encode(self, sentences: Any) -> Any:
            return sentences if isinstance(sentences, str) else rows

        def get_max_seq_length(self) -> int:
            return 24

    together = [calls.Call("encode", [text], True, {}, 1, calls.WaitingThread(), "kind") for text in ("a", "b")]

    assert [outcome.rows for outcome in calls.outcomes(together, Own())] == ["a", "b"]


def test_a_thread_that_breaks(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits hears of it, and so does who comes later; the model's own batcher is made anew."""

    def broken(_batch: Sequence[calls.Call], _model: Any) -> list[calls.Outcome]:
        raise MemoryError("no more")

    with monkeypatch.context() as patch:
        patch.setattr("sentence_embedder.serving.batcher.outcomes", broken)
        batcher = model.batcher()
        with pytest.raises(RuntimeError, match=r"the batcher failed, .*no more") as caught:
            within(20, lambda: batcher.encode("a cat"))
        assert isinstance(caught.value.__cause__, MemoryError)
        with pytest.raises(RuntimeError, match="is closed"):
            batcher.encode("a cat")
        with pytest.raises(RuntimeError, match="the batcher failed"):
            within(20, lambda: asyncio.run(model.aencode("a cat")))

    assert within(20, lambda: asyncio.run(model.aencode("a cat"))).shape == (32,)


def test_each_is_told_of_its_own_rows(model: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    """What is found out about texts that were computed together is said of the rows of each call."""
    weights = model[0].auto_model.get_input_embeddings().weight
    with torch.no_grad():
        weights[model.tokenizer.convert_tokens_to_ids("red")] = float("inf")
    long = "the cat sat " * 20
    given = [["a cat", "a dog"], ["a cat", "a red dog", long], ["red"], ["a dog"]]
    marked, strict = (
        [calls.Call("encode", texts, False, arguments, 1, calls.WaitingThread(), "kind") for texts in given]
        for arguments in ({}, {"on_nonfinite": "raise"})
    )

    found = calls.outcomes(marked, model)

    assert [np.isnan(answer.rows).any(axis=1).tolist() for answer in found] == [[0, 0], [0, 1, 0], [1], [0]]
    named = [message.partition(":")[0] for message in caplog.messages if "no finite numbers" in message]
    assert named == ["row 1", "row 0"]
    assert [message.partition(" texts")[0] for message in caplog.messages if "were cut" in message] == ["1 of 3"]
    errors = [outcome.error for outcome in calls.outcomes(strict, model)]
    assert [str(error).partition(":")[0] for error in errors] == ["None", "row 1", "row 0", "None"]


def test_what_is_no_text_never_joins(batcher: Batcher) -> None:
    """It is the error of its caller at once, like an argument that has no meaning here."""
    with pytest.raises(TypeError, match="expected a text in row 1, found NoneType"):
        batcher.encode(["a", None])
    with pytest.raises(TypeError, match="a batcher takes no out, device"):
        batcher.encode("a", device="cpu", out=None)
    with pytest.raises(ValueError, match="output_value: expected one of"):
        batcher.encode("a", output_value="words")
    with pytest.raises(TypeError, match="no such argument"):
        batcher.encode("a", words=3)


def test_an_iteration_that_stops_is_an_error(model: SentenceTransformer) -> None:
    """The one error that no future takes reaches its task as another."""

    class Stopped(nn.Module):
        def forward(self, _features: Features) -> Features:
            raise StopIteration

    model.add_module("stopped", Stopped())

    with pytest.raises(RuntimeError, match="StopIteration"):
        within(20, lambda: asyncio.run(model.aencode("a cat")))


def test_what_cannot_be_computed_with_others(model: SentenceTransformer) -> None:
    """Ranges that are read off the call are those of the call; features that are padded are padded for it."""
    texts = ["the cat", "a dog sleeps"]
    with model.batcher() as batcher:
        alone: list[dict[str, Any]] = [
            {"precision": "int8"},
            {"output_value": None},
            {"of_a_module": []},
            {"of_a_module": torch.zeros(2)},  # hashed, and not equal to anything
        ]
        assert all(batcher._kind("encode", each) != batcher._kind("encode", each) for each in alone)
        np.testing.assert_array_equal(
            batcher.encode(texts, precision="int8"), model.encode(texts, precision="int8")
        )
        model.calibrate(TEXTS)
        assert batcher._kind("encode", {"precision": "int8"}) == batcher._kind("encode", {"precision": "int8"})
        of_tokens: dict[str, Any] = {"precision": "int8", "output_value": "token_embeddings"}
        assert batcher._kind("encode", of_tokens) != batcher._kind("encode", of_tokens)


def test_a_large_call_is_computed_in_its_own_thread(model: SentenceTransformer) -> None:
    """It fills a batch by itself, and would only keep the others waiting."""
    with model.batcher(max_batch_tokens=10) as batcher:
        _same(batcher.encode(TEXTS), model.encode(TEXTS))
        _same(within(20, lambda: asyncio.run(batcher.aencode(TEXTS))), model.encode(TEXTS))


def test_a_large_call_is_refused_at_the_end(model: SentenceTransformer) -> None:
    """What is computed in its own thread is refused like any other when the batcher is closed."""
    batcher = model.batcher(max_batch_tokens=4)
    batcher.close()

    with pytest.raises(RuntimeError, match="is closed"):
        batcher.encode(["the cat sat"] * 3)
    with pytest.raises(RuntimeError, match="is closed"):
        asyncio.run(batcher.aencode(["the cat sat"] * 3))


def test_tensors_of_a_list_are_the_callers_own(model: SentenceTransformer) -> None:
    """Behind them there is nothing of others."""
    arguments = {"convert_to_numpy": False}
    together = [
        calls.Call("encode", texts, False, arguments, 1, calls.WaitingThread(), "kind")
        for texts in (["a cat", "a dog"], ["the cat"])
    ]

    for answer in calls.outcomes(together, model):
        assert [row.untyped_storage().nbytes() for row in answer.rows] == [32 * 4] * len(answer.rows)


def test_rows_are_the_callers_own(batcher: Batcher) -> None:
    """A caller may change them, and keeps nobody else's in memory."""
    results: list[Any] = [None] * 20

    in_threads(20, lambda number: results.__setitem__(number, batcher.encode(TEXTS[number])))

    assert all(result.flags.writeable and result.nbytes == 32 * 4 for result in results)
    assert all(result.base is None or result.base.size == 32 for result in results)
    assert batcher.encode("a cat").flags.owndata  # no tensor, which a daemon thread must not free at the end


def test_the_end(model: SentenceTransformer, gate: Gate) -> None:
    """Who waits when it is closed gets the answer; who comes later an error; closing again does nothing."""
    batcher = model.batcher()
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(batcher.encode(TEXTS[n])), daemon=True) for n in range(5)
    ]
    threads[0].start()
    _until(lambda: len(gate.sizes) == 1)
    for thread in threads[1:]:
        thread.start()
    _until(lambda: len(batcher._queue._calls) == 4)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    _until(lambda: batcher.is_closed)
    with pytest.raises(RuntimeError, match="closed: it takes no more calls"):
        batcher.encode("a")
    gate.is_open.set()
    within(20, closing.join)
    _join(threads, 20)

    assert len(results) == 5
    batcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(batcher.aencode("a"))
    unused = model.batcher()
    unused.close()
    with pytest.raises(RuntimeError, match="closed"):
        unused.encode("a")


def test_it_goes_with_its_owner(tiny_folders: dict[str, Path]) -> None:
    """A batcher that nobody has any more ends its thread, and the model's own one does not keep the model."""
    before = set(threading.enumerate())
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    batcher = model.batcher()
    batcher.encode("a cat")
    asyncio.run(model.aencode("a cat"))
    threads = [thread for thread in set(threading.enumerate()) - before if thread.name == "batcher"]
    assert len(threads) == 2
    alive = weakref.ref(model)

    del batcher, model
    gc.collect()

    _join(threads, 10)
    assert alive() is None


def test_models_are_copied_and_pickled_without_it(shared: SentenceTransformer) -> None:
    """A copy makes its own; a batcher itself belongs to its process."""
    asyncio.run(shared.aencode("a cat"))

    for again in (copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):  # noqa: S301
        _same(asyncio.run(again.aencode("a cat")), shared.encode("a cat"))
    part = shared[:2]
    _same(asyncio.run(part.aencode("a cat")), part.encode("a cat"))
    with pytest.raises(TypeError, match="belongs to its process"):
        pickle.dumps(shared.batcher())


def _encode_in_child(batcher: Batcher, expected: Any) -> None:
    torch.set_num_threads(1)
    np.testing.assert_allclose(batcher.encode("a cat"), expected, atol=1e-6)
    os._exit(7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_has_a_thread_of_its_own(shared: SentenceTransformer, batcher: Batcher) -> None:
    """In a process that was forked the batcher serves on, with a thread of that process."""
    expected = batcher.encode("a cat")
    child = multiprocessing.get_context("fork").Process(target=_encode_in_child, args=(batcher, expected))
    child.start()
    child.join(30)
    if child.is_alive():
        child.kill()

    assert child.exitcode == 7
    _same(batcher.encode("a cat"), shared.encode("a cat"))


_LEFT_OPEN = """
import sys, threading
from sentence_embedder import SentenceTransformer

model = SentenceTransformer(sys.argv[1], device="cpu")
batcher = model.batcher()
batcher.encode("a cat")
for _ in range(8):
    threading.Thread(target=lambda: [batcher.encode("a dog") for _ in range(50)], daemon=True).start()
print("end")
"""


def test_a_process_ends_with_it_open(tiny_folders: dict[str, Path]) -> None:
    """Nobody need close it: a process with callers at work ends as ever."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _LEFT_OPEN, str(tiny_folders["bert"])],
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.stdout == "end\n"
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "numbers",
    [
        {"max_wait_ms": -1},
        {"max_wait_ms": float("nan")},
        {"max_wait_ms": float("inf")},
        {"max_batch_tokens": 0},
        {"max_waiting": 1.5},
    ],
    ids=str,
)
def test_numbers_that_make_no_sense(shared: SentenceTransformer, numbers: dict[str, Any]) -> None:
    """They are errors that name the argument."""
    with pytest.raises(ValueError, match=rf"{next(iter(numbers))}: expected"):
        shared.batcher(**numbers)
