"""SentenceLabelDataset: examples of the same label one after the other."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch.utils.data import IterableDataset

from sentence_embedder.datasets.random_order import new_generator, shuffled
from sentence_embedder.input_example import InputExample


class SentenceLabelDataset(IterableDataset[InputExample]):
    """Examples in groups of one label each, for losses that look for examples of the same label in a batch, such as
    BatchHardTripletLoss. The batch size should be a multiple of the size of the groups.

    All labels have their turn, in random order, then all of them again. So they come equally often, however many
    examples they have. Labels with fewer examples than a group has are left out. Each ``iter`` is an epoch in
    another order, of about as many examples as there are; it depends on torch's global random generator at that
    moment alone.

    Args:
        examples: The examples.
        samples_per_label: How many examples a group has. They are different ones.
        with_replacement: Whether each group is drawn from all examples of its label. Otherwise it is drawn from
            those that have not come yet, and from all again when these are too few for a group.

    Raises:
        ValueError: A group has no examples.
    """

    def __init__(
        self, examples: Sequence[InputExample], samples_per_label: int = 2, with_replacement: bool = False
    ) -> None:
        if samples_per_label < 1:
            raise ValueError(f"samples_per_label: expected at least 1, found {samples_per_label}")
        self.samples_per_label = samples_per_label
        self.with_replacement = with_replacement
        by_label: dict[Hashable, list[InputExample]] = {}
        for example in examples:
            by_label.setdefault(example.label, []).append(example)
        self._labels = [group for group in by_label.values() if len(group) >= samples_per_label]

    def __iter__(self) -> Iterator[InputExample]:
        return self._examples(new_generator())  # which is made now, not when the first example is asked for

    def _examples(self, generator: torch.Generator) -> Iterator[InputExample]:
        left: list[list[InputExample]] = [[] for _ in self._labels]
        turns: list[int] = []
        for _ in range(self._groups):
            turns = turns or shuffled(range(len(self._labels)), generator)
            label = turns.pop()
            if self.with_replacement or len(left[label]) < self.samples_per_label:
                left[label] = shuffled(self._labels[label], generator)
            for _ in range(self.samples_per_label):
                yield left[label].pop()

    @property
    def _groups(self) -> int:
        """How many groups an epoch has: as few as have as many examples as there are."""
        return -(-sum(map(len, self._labels)) // self.samples_per_label)

    def __len__(self) -> int:
        """How many examples an epoch has."""
        return self._groups * self.samples_per_label
