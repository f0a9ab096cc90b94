"""The engine: sources of batches, and the loop over them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sentence_embedder.acceleration.forward import PlainForward
from sentence_embedder.encoding import engine, sharing
from sentence_embedder.encoding.collector import SentenceEmbeddings
from sentence_embedder.encoding.engine import Engine, TokenizedOnDemand, text_length
from sentence_embedder.encoding.inputs import DistinctTexts
from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.features import BatchSource, Features, Places
from sentence_embedder.models import Pooling, Transformer

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else wants the processor, whatever runs beside the tests."""
    monkeypatch.setattr(sharing, "have_waited", lambda *_: False)


class Steps:
    """A progress bar that remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def update(self, n: float | None = 1) -> None:
        """Remember a step."""
        self.steps.append(n or 0)


def _lengths(texts: Sequence[Any]) -> Features:
    return {"lengths": torch.tensor([[float(len(text))] for text in texts])}


def _encode(texts: list[str], model: Any, progress: Steps, *, batch_size: int = 32, **extra: Any) -> Any:
    texts_engine = Engine(
        tokenize=lambda window: TokenizedOnDemand(_lengths, window),
        forward=PlainForward(model, CPU, extra),
        device=CPU,
        batch_size=batch_size,
        longest=None,
    )
    collector = SentenceEmbeddings(DistinctTexts.every(len(texts)), EncodeOptions(container="tensor"), None, CPU)
    texts_engine.run(texts, collector, progress, rows=np.arange(len(texts)))
    return collector.finish()


def test_the_longest_batches_come_first_and_rows_return_to_their_places() -> None:
    """Batches are made of texts of like length, the longest first; the result is in the order of the texts."""
    seen: list[list[float]] = []
    progress = Steps()

    def model(features: Features) -> Features:
        seen.append(features["lengths"].squeeze(1).tolist())
        return {"sentence_embedding": features["lengths"]}

    rows = _encode(["aa", "a", "aaaa", "aaa", ""], model, progress, batch_size=2)

    assert seen == [[4.0, 3.0], [2.0, 1.0], [0.0]]
    assert rows.squeeze(1).tolist() == [2.0, 1.0, 4.0, 3.0, 0.0]
    assert progress.steps == [2, 2, 1]


def test_the_prompt_length_is_a_feature_of_each_batch() -> None:
    """The modules are told how long the prompt is, if there is one."""

    def model(features: Features) -> Features:
        length = torch.full_like(features["lengths"], features.get("prompt_length", -1))
        return {"sentence_embedding": length}

    assert _encode(["a"], model, Steps(), prompt_length=3).tolist() == [[3.0]]
    assert _encode(["a"], model, Steps()).tolist() == [[-1.0]]


def test_no_gradients_are_kept() -> None:
    """The model is called without gradients, and only there."""
    weight = torch.ones(1, requires_grad=True)

    rows = _encode(["a"], lambda features: {"sentence_embedding": features["lengths"] * weight}, Steps())

    assert not rows.requires_grad
    assert torch.is_grad_enabled()


def test_an_exception_in_the_model_reaches_the_caller() -> None:
    """What a module raises arrives as it is."""

    def model(_features: Features) -> Features:
        raise KeyError("token_embeddings")

    with pytest.raises(KeyError, match="token_embeddings"):
        _encode(["a"], model, Steps())


@dataclass
class Words:
    """Texts whose tokens are their words."""

    texts: Sequence[str]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many words each text has."""
        return np.array([len(text.split()) for text in self.texts], dtype=np.int64)

    def batch(self, rows: Places) -> Features:
        """What a way that packs never asks for."""
        raise AssertionError(f"a padded batch of {rows}")


class PackingForward:
    """A way that takes batches of any number of texts, and remembers them and the threads they came on."""

    batch_tokens = 1024
    is_padded = False

    def __init__(self, fails_on: str | None = None) -> None:
        self.batches: list[list[str]] = []
        self.least_tokens: list[int] = []
        self.threads: set[tuple[str, int]] = set()
        self.fails_on = fails_on

    def __call__(self, source: Words, rows: Places, least_tokens: int = 0) -> Features:
        """How many words and characters each text has."""
        texts = [source.texts[row] for row in rows]
        if self.fails_on in texts:
            raise OverflowError(self.fails_on)
        self.batches.append(texts)
        self.least_tokens.append(least_tokens)
        self.threads.add((threading.current_thread().name.split("_")[0], torch.get_num_threads()))
        return {"sentence_embedding": torch.tensor([[len(t.split()), len(t)] for t in texts], dtype=torch.float32)}


def _pack(texts: list[str], forward: PackingForward, *, batch_size: int = 32, longest: int | None = 512) -> Any:
    def tokenize(window: Sequence[Any]) -> BatchSource:
        return Words(window)

    packing = Engine(tokenize=tokenize, forward=forward, device=CPU, batch_size=batch_size, longest=longest)
    collector = SentenceEmbeddings(DistinctTexts.every(len(texts)), EncodeOptions(container="tensor"), None, CPU)
    packing.run(texts, collector, Steps(), rows=np.arange(len(texts)))
    return collector.finish()


@pytest.mark.usefixtures("two_threads")
def test_packed_batches_are_computed_side_by_side() -> None:
    """Several packed batches have a thread each, which computes alone; the caller's threads stay as they were."""
    texts = [" ".join(["word"] * (place % 90 + 1)) for place in range(400)]
    forward = PackingForward()

    rows = _pack(texts, forward)

    assert len(forward.batches) > 2
    assert forward.threads == {("encode", 1)}
    assert rows.tolist() == [[len(text.split()), len(text)] for text in texts]


def test_the_rest_has_the_size_of_the_others() -> None:
    """The last one of many batches is filled up to the size of the others, and needs no product of its own."""
    forward = PackingForward()

    _pack(["five words are in here"] * 2000, forward, longest=None)

    *others, rest = forward.least_tokens
    assert set(others) == {0}
    assert rest == 5 * len(forward.batches[0]) > 5 * len(forward.batches[-1])


@pytest.mark.usefixtures("two_threads")
def test_a_single_batch_has_all_threads() -> None:
    """A batch that is alone is computed by the caller's thread, with as many more as torch has."""
    forward = PackingForward()

    _pack(["two words", "word"], forward)

    assert forward.threads == {(threading.current_thread().name.split("_")[0], 2)}


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_batch_size_bounds_the_tokens_that_are_computed_at_once(batch_size: int) -> None:
    """All threads together never compute more tokens than batch_size texts of the greatest length have."""
    texts = [" ".join(["word"] * (place * 7 % 90 + 1)) for place in range(200)]
    forward = PackingForward()

    _pack(texts, forward, batch_size=batch_size, longest=90)

    most = max(sum(len(text.split()) for text in batch) for batch in forward.batches)
    threads = sum(1 for name, _ in forward.threads if name == "encode") + 1
    assert most <= batch_size * 90
    assert threads == 1 or 2 * most <= batch_size * 90


@pytest.mark.usefixtures("two_threads")
def test_an_exception_in_a_thread_reaches_the_caller() -> None:
    """What a batch raises in its thread arrives as it is, and nothing hangs."""
    texts = [" ".join(["word"] * (place % 90 + 1)) for place in range(400)]

    with pytest.raises(OverflowError, match="word"):
        _pack(texts, PackingForward(fails_on="word word word"))


@pytest.mark.usefixtures("two_threads")
def test_no_work_outlives_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """When encode fails where results are taken, nothing computes or tokenises any more by the time it says so."""
    monkeypatch.setattr(engine, "_WINDOW", 100)
    texts = [" ".join(["word"] * (place % 90 + 1)) for place in range(400)]

    class Full:
        """Takes nothing."""

        def add(self, _places: Places, _features: Features) -> None:
            """Fails."""
            raise OSError("no space left on device")

        def put(self, _places: Places, _results: Any) -> None:
            """Is not reached."""

        def settle(self) -> None:
            """Is not reached."""

        def finish(self) -> Any:
            """Is not reached."""

    class Slow(PackingForward):
        """Counts the batches that it is at work on."""

        at_work = 0

        def __call__(self, source: Words, rows: Places, least_tokens: int = 0) -> Features:
            """Takes its time."""
            self.at_work += 1
            time.sleep(0.05)
            features = super().__call__(source, rows, least_tokens)
            self.at_work -= 1
            return features

    tokenizing: list[Any] = []

    def slowly(window: Any) -> Words:
        tokenizing.append(window)
        time.sleep(0.05)
        tokenizing.remove(window)
        return Words(window)

    forward = Slow()
    words = Engine(tokenize=slowly, forward=forward, device=CPU, batch_size=32, longest=512)
    with pytest.raises(OSError, match="no space left"):
        words.run(texts, Full(), Steps(), rows=np.arange(len(texts)))

    computed = len(forward.batches)
    assert forward.at_work == 0
    assert not tokenizing
    for thread in threading.enumerate():
        if thread.name.startswith("tokenize"):
            thread.join(60)  # it has nothing to do any more
            assert not thread.is_alive()
    time.sleep(0.1)
    assert len(forward.batches) == computed


def test_windows_are_tokenized_ahead_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many texts are tokenised some at a time, beside the model, each once; the order is kept."""
    monkeypatch.setattr(engine, "_WINDOW", 10)
    windows: list[tuple[int, str]] = []

    def tokenize(window: Sequence[Any]) -> BatchSource:
        windows.append((len(window), threading.current_thread().name.split("_")[0]))
        return Words(window)

    texts = [f"text {place}" for place in range(25)]
    collector = SentenceEmbeddings(DistinctTexts.every(25), EncodeOptions(container="tensor"), None, CPU)
    Engine(tokenize=tokenize, forward=PackingForward(), device=CPU, batch_size=32, longest=None).run(
        texts, collector, Steps(), rows=np.arange(len(texts))
    )

    assert windows == [(10, "tokenize"), (10, "tokenize"), (5, "tokenize")]
    rows = collector.finish()
    assert isinstance(rows, torch.Tensor)
    assert rows[:, 1].tolist() == [len(text) for text in texts]


@pytest.mark.parametrize(
    ("item", "length"),
    [("abc", 3), ("", 0), (("ab", "c"), 3), (["ab", "c"], 3), ({"key": "abc"}, 3), (12, 1), (None, 1)],
    ids=str,
)
def test_text_length(item: Any, length: int) -> None:
    """The length of an item is that of its texts in characters, 1 for what is no text."""
    assert text_length(item) == length


def test_on_demand_knows_characters() -> None:
    """Where tokens are not known yet, lengths are in characters."""
    source = TokenizedOnDemand(_lengths, ["abc", ("a", "b")])

    np.testing.assert_array_equal(source.lengths, [3, 2])


def test_who_tokenizes_ahead() -> None:
    """A Transformer can tokenise ahead, other modules cannot."""
    assert hasattr(Transformer, "tokenize_ahead")
    assert not hasattr(Pooling, "tokenize_ahead")
