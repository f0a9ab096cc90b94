"""The loop of ``encode``: texts through the model, results to the collector."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sentence_embedder.acceleration.forward import Forward
from sentence_embedder.devices import give_back_memory, is_out_of_memory
from sentence_embedder.encoding.collector import Collector
from sentence_embedder.encoding.planner import FEW_BATCHES, by_padded_tokens, by_texts, by_tokens
from sentence_embedder.encoding.sharing import Sharing
from sentence_embedder.encoding.single_threads import SingleThreads, single_threads, thread_count
from sentence_embedder.encoding.token_budget import TokenBudget
from sentence_embedder.features import BatchSource, Features, Places
from sentence_embedder.progress import Progress
from sentence_embedder.threads import Future

_WINDOW = 16_384
"""How many texts are tokenised at a time, while the model computes those before them."""

OnCut = Callable[[NDArray[np.int64]], None]
"""Told the rows of some texts."""

_TOKENS_A_THREAD = 512
"""Threads share what batch_size allows; with fewer tokens each, there are fewer threads."""


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
        budget: How many tokens a batch may have, for the memory.
        is_deterministic: Whether each text is computed alone, in one thread if it can be: in products of the same
            shape, whatever else there is.
        sharing: Whether all threads share what is the only batch.
    """

    tokenize: Callable[[Sequence[Any]], BatchSource]
    forward: Forward
    device: torch.device
    batch_size: int
    longest: int | None
    budget: TokenBudget = field(default_factory=TokenBudget)
    is_deterministic: bool = False
    sharing: Sharing = field(default_factory=Sharing)

    def run(
        self,
        texts: Sequence[Any],
        collector: Collector,
        progress: Progress,
        *,
        rows: NDArray[np.int64],
        on_cut: OnCut | None = None,
    ) -> None:
        """Send texts through the model.

        Args:
            texts: The texts.
            collector: Takes what the model makes.
            progress: Told how many texts are done.
            rows: The row that the caller knows each text by, shape (texts,).
            on_cut: Told the rows of texts that are longer than the model reads, before it computes them.

        Raises:
            MemoryError: A text does not fit into the memory, although it was tried alone.
        """
        if len(texts) == 1 and not self.is_deterministic:
            for places, features in self._single(texts, rows, on_cut):
                collector.add(places, features)
                progress.update(len(places))
            return
        workers = self._workers()
        windows = [texts[start : start + _WINDOW] for start in range(0, len(texts), _WINDOW)]
        # Closed at once if anything fails: what threads have begun ends before the error goes on.
        with closing(_ahead(self.tokenize, windows)) as sources:
            batches = self._batches(sources, workers, rows, on_cut)
            with closing(self._computed(batches, workers, rows)) as computed:
                for places, features in computed:
                    collector.add(places, features)
                    progress.update(len(places))

    def _single(self, texts: Sequence[Any], rows: NDArray[np.int64], on_cut: OnCut | None) -> list[_Computed]:
        """What the model makes of a single text, which all threads share: callers wait, and there is nothing to
        plan.
        """
        source = self.tokenize(texts)
        _tell_of_cut(source, rows, on_cut)
        place = np.zeros(1, dtype=np.int64)
        return self._shared(_Batch(source, place, place, 0), rows)

    def _shared(self, batch: _Batch, rows: NDArray[np.int64]) -> list[_Computed]:
        """What the model makes of a batch that is the only one at the time, so that all threads can share it."""
        if not self._can_choose_threads:
            return self._parts(batch, rows)
        return self.sharing.computed(partial(self._parts, batch, rows), lambda: batch.tokens)

    @property
    def _can_choose_threads(self) -> bool:
        """Whether it may be one thread that computes a batch, or several, as is best."""
        return self.forward.batch_tokens is not None and self.device.type == "cpu"

    def _workers(self) -> int:
        """How many batches are computed at the same time."""
        if not self._can_choose_threads:
            return 1
        threads = thread_count()
        if self.is_deterministic or self.longest is None:
            return threads
        return max(1, min(threads, self._most_tokens() // _TOKENS_A_THREAD))

    def _most_tokens(self) -> int:
        """How many tokens all batches that are computed at the same time may have, if texts have a limit."""
        return self.batch_size * (self.longest or 0)

    def _batches(
        self, sources: Iterable[BatchSource], workers: int, rows: NDArray[np.int64], on_cut: OnCut | None
    ) -> Iterator[_Batch]:
        start = 0
        for source in sources:
            _tell_of_cut(source, rows[start:], on_cut)
            lengths = source.lengths
            planned = self._planned(lengths, workers)
            for number, places in enumerate(planned):
                # What is left in the end is worth no size of its own: it gets that of the batch before it.
                is_rest = number == len(planned) - 1 and number >= FEW_BATCHES
                least_tokens = int(lengths[planned[number - 1]].sum()) if is_rest else 0
                yield _Batch(source, places, places + start, 0 if self.is_deterministic else least_tokens)
            start += len(lengths)

    def _planned(self, lengths: NDArray[np.int64], workers: int) -> list[NDArray[np.int64]]:
        if self.is_deterministic:
            return by_texts(lengths, 1)
        tokens = self.forward.batch_tokens
        if tokens is None:
            return by_texts(lengths, self.batch_size)
        most = self._most_tokens() if self.longest else self.batch_size * int(lengths.max(initial=0))
        most //= workers
        most_padded = self.budget.most(str(self.device))
        if not self.forward.is_padded:
            return by_tokens(lengths, tokens, most=most, workers=workers, most_padded=most_padded)
        most = most if most_padded is None else min(most, most_padded)
        return by_padded_tokens(lengths, tokens, batch_size=self.batch_size, most=most, workers=workers)

    def _computed(
        self, batches: Iterator[_Batch], workers: int, rows: NDArray[np.int64]
    ) -> Generator[_Computed, None, None]:
        """What the model makes of each batch, in the order of the batches."""
        first = list(islice(batches, 2))
        batches = chain(first, batches)
        # One batch alone is shared by all threads, which may change the last digit.
        if workers == 1 or len(first) < (1 if self.is_deterministic else 2):
            for batch in batches:
                yield from self._shared(batch, rows)
            return
        threads = single_threads(workers)
        running: deque[Future[list[_Computed]]] = deque()
        try:
            for batch in batches:
                # One batch waits for each that is computed: nobody is idle, and not much is held.
                if len(running) == 2 * workers:
                    yield from _oldest(running)
                running.append(threads.submit(partial(self._parts, batch, rows)))
            while running:
                yield from _oldest(running)
        finally:
            # Only after an error is there anything left: what has begun ends before the error goes on.
            for future in running:
                future.cancel()
            for future in running:
                future.wait()

    def _parts(self, batch: _Batch, rows: NDArray[np.int64]) -> list[_Computed]:
        """What the model makes of a batch: in one part, or in several if it takes more memory than there is."""
        device, is_alone = str(self.device), len(batch.rows) == 1
        most = self.budget.most(device)
        is_allowed = most is None or batch.tokens <= most
        if is_allowed or (is_alone and not self._is_over_limit(batch)):
            try:
                return [(batch.places, batch.through(self.forward))]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if is_alone:
                    raise self._does_not_fit(batch, rows) from error
                self.budget.has_failed(device, batch.tokens)
            # Only here is the error gone, and what its frames hold.
            give_back_memory(self.device)
        elif is_alone:
            raise self._does_not_fit(batch, rows)
        return [part for half in batch.halves() for part in self._parts(half, rows)]

    def _is_over_limit(self, batch: _Batch) -> bool:
        """Whether somebody has said that there may not be so many tokens, where it is tokens that are counted."""
        limit = self.budget.limit
        return limit is not None and batch.counts_tokens and batch.tokens > limit

    def _does_not_fit(self, batch: _Batch, rows: NDArray[np.int64]) -> MemoryError:
        kind = "tokens" if batch.counts_tokens else "characters"
        text = f"row {int(rows[batch.places[0]])}: a text of {batch.tokens:,} {kind}"
        if self._is_over_limit(batch):
            return MemoryError(
                f"{text} is more than a batch may have, max_batch_tokens={self.budget.limit:,}: raise it, lower "
                "max_seq_length, or split the text"
            )
        return MemoryError(
            f"{text} does not fit into the memory of {self.device} even alone: lower max_seq_length, or split the "
            "text"
        )


_Computed = tuple[NDArray[np.int64], Features]
"""The places of some texts, and what the model makes of them."""


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

    @property
    def tokens(self) -> int:
        """How many tokens they are if they are padded."""
        return len(self.rows) * int(self.source.lengths[self.rows].max(initial=1))

    @property
    def counts_tokens(self) -> bool:
        """Whether it is known how many tokens they have, and not only how many characters."""
        return not isinstance(self.source, TokenizedOnDemand)

    def through(self, forward: Forward) -> Features:
        """What a model makes of them."""
        return forward(self.source, self.rows, self.least_tokens)

    def halves(self) -> tuple[_Batch, _Batch]:
        """The first half of the texts, and the other."""
        middle = len(self.rows) // 2
        return (
            replace(self, rows=self.rows[:middle], places=self.places[:middle], least_tokens=0),
            replace(self, rows=self.rows[middle:], places=self.places[middle:], least_tokens=0),
        )


def _tell_of_cut(source: BatchSource, rows: NDArray[np.int64], on_cut: OnCut | None) -> None:
    """Tell of the texts that are longer than the model reads, which is known where they are tokenised ahead.

    Args:
        source: The texts.
        rows: The rows that the caller knows them by, and perhaps those of others that follow.
        on_cut: Who is told.
    """
    cut: NDArray[np.int64] | None = getattr(source, "cut", None)
    if on_cut is not None and cut is not None and len(cut):
        on_cut(rows[cut])


def _ahead(
    tokenize: Callable[[Sequence[Any]], BatchSource], windows: Sequence[Sequence[Any]]
) -> Generator[BatchSource, None, None]:
    """Each window tokenised while what comes of the one before is worked on."""
    if len(windows) < 2:
        yield from map(tokenize, windows)
        return
    with SingleThreads(1, "tokenize") as thread:
        following = thread.submit(partial(tokenize, windows[0]))
        try:
            for window in windows[1:]:
                source = following.result()
                following = thread.submit(partial(tokenize, window))
                yield source
            yield following.result()
        finally:
            following.end()


def _oldest(running: deque[Future[list[_Computed]]]) -> list[_Computed]:
    """What comes of the batch that was begun first, which is taken out only when it is there."""
    parts = running[0].result()
    running.popleft()
    return parts
