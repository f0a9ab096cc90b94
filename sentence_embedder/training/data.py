"""Data: the batches of a loader, shared among processes, in an order that can be found again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data.distributed import DistributedSampler

from sentence_embedder.loaders import Batch, Collation, batches_of
from sentence_embedder.training.randomness import Randomness
from sentence_embedder.training.ranks import Ranks

_DEFAULT_BATCH_SIZE = 32


class Data:
    """The batches of a loader, again and again, and how far they have been taken.

    Args:
        given: What the user gave.
        collation: What makes batches of what it yields.
        ranks: The processes that share it.
        name: What it is, for messages.
    """

    def __init__(self, given: Any, collation: Collation, ranks: Ranks, name: str) -> None:
        self._collation = collation
        self._ranks = ranks
        self._name = name
        self._loader = _loader_of(given, collation, ranks)
        self._generators = _generators_of(self._loader)
        self._iterator: Iterator[Any] = iter(())
        self._taken = 0
        # Random numbers when an iteration began (workers draw their seeds then), and when its first batch was asked
        # for (samplers draw their order then): in between other objectives may have drawn some.
        self._times = 0
        self._begun: dict[str, Any] = {}
        self._first: dict[str, Any] = {}

    def __len__(self) -> int:
        """How many batches there are until they start anew.

        Raises:
            ValueError: The loader does not know.
        """
        try:
            return len(self._loader)  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(f"{self._name}: expected a loader with a length, or steps_per_epoch=") from error

    @property
    def batch_size(self) -> int | None:
        """How many rows a batch has, if the loader says so."""
        loader = _undivided(self._loader)
        sampler = _undivided(getattr(loader, "batch_sampler", None))
        return getattr(loader, "batch_size", None) or getattr(sampler, "batch_size", None)

    def __next__(self) -> Batch:
        """The next batch; behind the last one comes the first of a new iteration.

        Raises:
            ValueError: The loader gives no batches.
        """
        found = self._found()
        if found is None:
            self.begin()
            found = self._found()
        if found is None:
            raise ValueError(f"{self._name}: expected batches, the loader gave none, or none the second time")
        self._taken += 1
        return self._collation(found)

    def begin(self) -> None:
        """Start an iteration."""
        self._begun, self._first, self._taken = self._randomness(), {}, 0
        for sampler in _samplers_of(self._loader):
            if isinstance(sampler, DistributedSampler):
                sampler.set_epoch(self._times)
        self._times += 1
        with self._ranks.alike():
            self._iterator = iter(self._loader)
            if self._ranks.size > 1:  # they must draw the same order
                self._iterator = chain(list(islice(self._iterator, 1)), self._iterator)

    def _found(self) -> Any:
        if self._taken == 0:
            self._first = self._randomness()
        return next(self._iterator, None)

    def _randomness(self) -> dict[str, Any]:
        return {
            "global": Randomness.now().to_state(),
            "own": [generator.get_state() for generator in self._generators],
        }

    def _restore(self, randomness: dict[str, Any]) -> None:
        Randomness.from_state(randomness["global"]).restore()
        for generator, state in zip(self._generators, randomness["own"], strict=True):
            generator.set_state(state)

    def state_dict(self) -> dict[str, Any]:
        """How far the batches have been taken, and in which order they come."""
        return {"begun": self._begun, "first": self._first, "taken": self._taken, "times": self._times}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where the batches had been taken; random numbers are left anywhere.

        Raises:
            ValueError: There are not as many batches.
        """
        self._restore(state["begun"])
        self._times = state["times"] - 1
        self.begin()
        if state["taken"] > 0:
            self._restore(state["first"])
        with self._collation.idle():
            skipped = sum(1 for _ in islice(self._iterator, state["taken"]))
        if skipped < state["taken"]:
            raise ValueError(
                f"{self._name}: expected the data of the checkpoint, with {state['taken']} batches or more, found "
                f"{skipped}"
            )
        self._begun, self._first, self._taken = state["begun"], state["first"], state["taken"]


class Share:
    """Those of some batches that are one process's, which takes its turn with the others.

    Batches at the end that are not enough for all processes are nobody's.

    Args:
        batches: All batches, the same in each process.
        ranks: The processes.
    """

    def __init__(self, batches: Any, ranks: Ranks) -> None:
        self.batches = batches
        self._ranks = ranks

    def __iter__(self) -> Iterator[Any]:
        return (group[self._ranks.rank] for group in zip(*[iter(self.batches)] * self._ranks.size, strict=False))

    def __len__(self) -> int:
        return len(self.batches) // self._ranks.size


def _loader_of(given: Any, collation: Collation, ranks: Ranks) -> Iterable[Any]:
    """What yields the batches of this process."""
    if hasattr(given, "column_names") and hasattr(given, "__getitem__"):  # of datasets
        if isinstance(given, Mapping):
            raise ValueError(
                f"expected one data set, found several, by the names {list(given)}: choose one of them"
            )
        is_stream = isinstance(given, IterableDataset)
        given = DataLoader(given, batch_size=_DEFAULT_BATCH_SIZE, shuffle=not is_stream)
    loader: Any = batches_of(given, collation)
    if ranks.size == 1 or any(isinstance(sampler, DistributedSampler) for sampler in _samplers_of(loader)):
        return loader  # type: ignore[no-any-return]
    is_indexed = isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset)
    if loader is given or not is_indexed or loader.batch_sampler is None:
        return Share(loader, ranks)
    # A DataLoader lets nobody set it, as it would not be heeded once workers are there.
    loader.__dict__["batch_sampler"] = Share(loader.batch_sampler, ranks)
    return loader  # type: ignore[no-any-return]


def _undivided(batches: Any) -> Any:
    """All batches of which some are a process's share."""
    return batches.batches if isinstance(batches, Share) else batches


def _samplers_of(loader: Any) -> list[Any]:
    """The samplers of a loader, and theirs."""
    whole = _undivided(loader)
    samplers = [_undivided(getattr(whole, name, None)) for name in ("batch_sampler", "sampler")]
    return [*samplers, *(getattr(sampler, "sampler", None) for sampler in samplers)]


def _generators_of(loader: Any) -> list[torch.Generator]:
    """The generators of random numbers that a loader and its samplers have of their own, each once."""
    found = [getattr(owner, "generator", None) for owner in (_undivided(loader), *_samplers_of(loader))]
    generators = [generator for generator in found if isinstance(generator, torch.Generator)]
    return list({id(generator): generator for generator in generators}.values())
