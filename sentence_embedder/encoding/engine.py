"""The loop of ``encode``: texts through the model, results to the collector."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from sentence_embedder.acceleration.forward import Forward
from sentence_embedder.encoding.collector import Collector
from sentence_embedder.encoding.planner import by_texts, by_tokens
from sentence_embedder.encoding.threads import single_threads, thread_count
from sentence_embedder.features import BatchSource, Features, Places
from sentence_embedder.progress import Progress

_WINDOW = 16_384
"""How many texts are tokenised at a time, while the model computes those before them."""

_FEW_BATCHES = 8

OnCut = Callable[[NDArray[np.int64]], None]
"""Told the places of some texts."""

_TOKENS_A_THREAD = 512
"""Threads share what batch_size allows; with fewer tokens each, there are fewer threads."""


@runtime_checkable
class TokenizesAhead(Protocol):
    """A first module that can tokenise all texts before the first batch is put together."""

    def tokenize_ahead(self, texts: Sequence[Any]) -> BatchSource:
        """The texts as token ids."""


class TokenizedOnDemand:
    """Texts that are tokenised batch by batch, for first modules that know nothing else.

    Args:
        tokenize: Texts → Features.
        texts: The texts.
    """

    def __init__(self, tokenize: Callable[[Sequence[Any]], Features], texts: Sequence[Any]) -> None:
        self._tokenize = tokenize
        self._texts = texts

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many characters each text has."""
        return np.array([text_length(text) for text in self._texts], dtype=np.int64)

    def batch(self, rows: Places) -> Features:
        """The Features of the texts at the given places."""
        return self._tokenize([self._texts[row] for row in rows])


def text_length(item: Any) -> int:
    """How many characters an item has, over all its texts; 1 for what is no text."""
    if isinstance(item, str):
        return len(item)
    if isinstance(item, Mapping):
        return sum(text_length(text) for text in item.values())
    if isinstance(item, (list, tuple)):
        return sum(text_length(text) for text in item)
    return 1


@dataclass(frozen=True, kw_only=True)
class Engine:
    """What turns texts into Features.

    Args:
        tokenize: Texts → their tokens.
        forward: Tokens → Features.
        device: Where the model computes.
        batch_size: The most texts in a batch; of packed texts, what they may take in memory at their longest.
        longest: The most tokens that a text can have, if there is a limit.
    """

    tokenize: Callable[[Sequence[Any]], BatchSource]
    forward: Forward
    device: torch.device
    batch_size: int
    longest: int | None

    def run(
        self, texts: Sequence[Any], collector: Collector, progress: Progress, on_cut: OnCut | None = None
    ) -> None:
        """Send texts through the model.

        Args:
            texts: The texts.
            collector: Takes what the model makes.
            progress: Told how many texts are done.
            on_cut: Told the places of texts that are longer than the model reads, before it computes them.
        """
        workers = self._workers()
        windows = [texts[start : start + _WINDOW] for start in range(0, len(texts), _WINDOW)]
        # Closed at once if anything fails: what threads have begun ends before the error goes on.
        with closing(_ahead(self.tokenize, windows)) as sources:
            batches = self._batches(sources, workers, on_cut)
            with closing(_computed(self.forward, batches, workers)) as computed:
                for places, features in computed:
                    collector.add(places, features)
                    progress.update(len(places))

    def _workers(self) -> int:
        if self.forward.batch_tokens is None or self.device.type != "cpu":
            return 1
        threads = thread_count()
        return threads if self.longest is None else max(1, min(threads, self._most_tokens() // _TOKENS_A_THREAD))

    def _most_tokens(self) -> int:
        """How many tokens all batches that are computed at the same time may have, if texts have a limit."""
        return self.batch_size * (self.longest or 0)

    def _batches(self, sources: Iterable[BatchSource], workers: int, on_cut: OnCut | None) -> Iterator[_Batch]:
        start = 0
        for source in sources:
            cut: NDArray[np.int64] | None = getattr(source, "cut", None)  # known where texts are tokenised ahead
            if on_cut is not None and cut is not None and len(cut):
                on_cut(cut + start)
            lengths = source.lengths
            planned = self._planned(lengths, workers)
            for number, rows in enumerate(planned):
                # What is left in the end is worth no size of its own.
                is_rest = number == len(planned) - 1 and number >= _FEW_BATCHES
                least_tokens = int(lengths[planned[number - 1]].sum()) if is_rest else 0
                yield _Batch(source, rows, rows + start, least_tokens)
            start += len(lengths)

    def _planned(self, lengths: NDArray[np.int64], workers: int) -> list[NDArray[np.int64]]:
        tokens = self.forward.batch_tokens
        if tokens is None:
            return by_texts(lengths, self.batch_size)
        most = self._most_tokens() if self.longest else self.batch_size * int(lengths.max(initial=0))
        return by_tokens(lengths, tokens, most=most // workers, workers=workers)


@dataclass(frozen=True)
class _Batch:
    """Texts that go through the model together.

    Args:
        source: Tokens of a window.
        rows: The places of the texts in the window, shape (texts,).
        places: Their places among all texts, shape (texts,).
        least_tokens: To how many tokens they are filled up at least.
    """

    source: BatchSource
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    least_tokens: int

    def through(self, forward: Forward) -> Features:
        """What a model makes of them."""
        return forward(self.source, self.rows, self.least_tokens)


def _ahead(
    tokenize: Callable[[Sequence[Any]], BatchSource], windows: Sequence[Sequence[Any]]
) -> Generator[BatchSource, None, None]:
    """Each window tokenised while what comes of the one before is worked on."""
    if len(windows) < 2:
        yield from map(tokenize, windows)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as thread:
        following = thread.submit(tokenize, windows[0])
        for window in windows[1:]:
            source = following.result()
            following = thread.submit(tokenize, window)
            yield source
        yield following.result()


def _computed(
    forward: Forward, batches: Iterator[_Batch], workers: int
) -> Generator[tuple[NDArray[np.int64], Features], None, None]:
    """What the model makes of each batch, in the order of the batches."""
    first = list(islice(batches, 2))
    batches = chain(first, batches)
    if workers == 1 or len(first) < 2:
        for batch in batches:
            yield batch.places, batch.through(forward)
        return
    threads = single_threads(workers)
    running: deque[tuple[_Batch, Future[Features]]] = deque()
    try:
        for batch in batches:
            # One batch waits for each that is computed: nobody is idle, and not much is held.
            if len(running) == 2 * workers:
                yield _oldest(running)
            running.append((batch, threads.submit(batch.through, forward)))
        while running:
            yield _oldest(running)
    finally:
        # Only after an error is there anything left: what has begun ends before the error goes on.
        wait([future for _, future in running if not future.cancel()])


def _oldest(running: deque[tuple[_Batch, Future[Features]]]) -> tuple[NDArray[np.int64], Features]:
    """What comes of the batch that was begun first, which is taken out only when it is there."""
    batch, future = running[0]
    features = future.result()
    running.popleft()
    return batch.places, features
