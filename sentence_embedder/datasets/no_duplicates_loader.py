"""NoDuplicatesDataLoader: batches in which no text comes twice."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import chain
from typing import Any

import torch

from sentence_embedder.datasets.random_order import new_generator, shuffled
from sentence_embedder.input_example import InputExample


class NoDuplicatesDataLoader:
    """Batches without repeated texts, for losses that take the other texts of a batch as wrong answers, such as
    MultipleNegativesRankingLoss: no two examples of a batch share a text, whatever its case and spaces around it.

    Each ``iter`` is an epoch in another order, which depends on torch's global random generator at that moment
    alone. An example that does not fit into a batch waits for a later one, and comes again within an epoch only if
    nothing else fits any more. Batches are lists of examples, or what ``collate_fn``, if it is set, makes of them.

    Args:
        train_examples: The examples. The list is left as it is.
        batch_size: How many examples a batch has.

    Raises:
        ValueError: The batch size is not positive or, from the iterator, no such batch was found: too many examples
            share their texts.

    Example:
        >>> examples = [InputExample(texts=[text]) for text in ("a", "A ", "b", "c")]
        >>> loader = NoDuplicatesDataLoader(examples, batch_size=2)
        >>> [len(batch) for batch in loader]  # "a" and "A " are never together
        [2, 2]
    """

    def __init__(self, train_examples: Sequence[InputExample], batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, found {batch_size}")
        self.train_examples = train_examples
        self.batch_size = batch_size
        self.collate_fn: Callable[[list[InputExample]], Any] | None = None
        self._shared_texts = _shared_texts(train_examples)

    def __iter__(self) -> Iterator[Any]:
        return self._batches(new_generator())  # which is made now, not when the first batch is asked for

    def _batches(self, generator: torch.Generator) -> Iterator[Any]:
        epoch = _Epoch(self._shared_texts, generator)
        for _ in range(len(self)):
            batch = [self.train_examples[place] for place in epoch.batch(self.batch_size)]
            yield batch if self.collate_fn is None else self.collate_fn(batch)

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return len(self._shared_texts) // self.batch_size


def _shared_texts(examples: Sequence[InputExample]) -> list[tuple[int, ...]]:
    """Of each example, the texts that others have too, as numbers. What is no text, such as an image, has none."""
    texts_of = [
        # Not a set, whose order, and with it that of the examples, differs from process to process.
        tuple(dict.fromkeys(text.strip().lower() for text in example.texts or () if isinstance(text, str)))
        for example in examples
    ]
    holders = Counter(chain.from_iterable(texts_of))
    shared = (text for text, count in holders.items() if count > 1)
    numbers = {text: number for number, text in enumerate(shared)}
    return [tuple(sorted([numbers[text] for text in texts if text in numbers])) for texts in texts_of]


class _Epoch:
    """The places of examples that are to come, that wait for a batch without a certain text, and that were taken.

    Whatever is looked at is taken, or waits in the queue of a text that the batch has, of which each batch can take
    one at most. So queues are not searched, and an epoch takes time in proportion to the examples.
    """

    def __init__(self, texts_of: Sequence[tuple[int, ...]], generator: torch.Generator) -> None:
        self._texts_of = texts_of
        self._generator = generator
        self._coming = shuffled(range(len(texts_of)), generator)
        self._waiting: OrderedDict[int, deque[int]] = OrderedDict()
        self._taken: list[int] = []

    def batch(self, size: int) -> list[int]:
        """The next so many places."""
        batch: list[int] = []
        texts: set[int] = set()
        for place in self._candidates(texts):
            its_texts = self._texts_of[place]
            if not texts.isdisjoint(its_texts):
                shared = next(text for text in its_texts if text in texts)
                self._waiting.setdefault(shared, deque()).append(place)
                continue
            batch.append(place)
            texts.update(its_texts)
            if len(batch) == size:
                self._taken += batch
                return batch
        return self._started_over(size, stuck=batch)

    def _candidates(self, texts: Set[int]) -> Iterator[int]:
        """Places that may fit to the texts of a batch, which become more meanwhile: those first that have waited,
        those last that were taken before.
        """
        for _ in range(len(self._waiting)):
            text = next(iter(self._waiting))
            self._waiting.move_to_end(text)
            queue = self._waiting[text]
            while queue and text not in texts:
                yield queue.popleft()
            if not queue:
                del self._waiting[text]
        yield from self._drained()
        self._coming, self._taken = shuffled(self._taken, self._generator), []
        yield from self._drained()

    def _drained(self) -> Iterator[int]:
        while self._coming:
            yield self._coming.pop()

    def _started_over(self, size: int, stuck: Sequence[int]) -> list[int]:
        """A batch where chance led to one that nothing fits to: of examples whose texts are rare. All others but
        those that were stuck are to come once more.
        """
        holders = Counter(chain.from_iterable(self._texts_of))
        places = shuffled(range(len(self._texts_of)), self._generator)
        batch: list[int] = []
        texts: set[int] = set()
        for place in sorted(places, key=lambda place: sum(holders[text] for text in self._texts_of[place])):
            if texts.isdisjoint(self._texts_of[place]):
                batch.append(place)
                texts.update(self._texts_of[place])
        if len(batch) < size:
            raise ValueError(
                f"NoDuplicatesDataLoader: expected {size} examples of which no two share a text, found "
                f"{len(batch)} among {len(places)}: reduce batch_size, or remove examples whose texts are repeated"
            )
        left_out = {*batch[:size], *stuck}
        self._coming = [place for place in places if place not in left_out]
        self._waiting.clear()
        self._taken = batch[:size]
        return batch[:size]
