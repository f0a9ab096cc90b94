"""Chain: the modules that a text goes through, depending on its route and on the arguments of ``encode``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sentence_embedder.deferred import modules_seen
from sentence_embedder.encoding.collector import Collector, Rows
from sentence_embedder.features import Features, Places
from sentence_embedder.formats import ModuleEntry
from sentence_embedder.models import Router
from sentence_embedder.models.module import accepted_kwargs


@dataclass(frozen=True)
class Link:
    """A module in a chain.

    Args:
        module: The module.
        named: Keyword arguments of ``encode`` that it takes, as the model's files say.
    """

    module: nn.Module
    named: Sequence[str] = ()

    @property
    def accepted(self) -> frozenset[str]:
        """The keyword arguments of ``encode`` that it takes."""
        return accepted_kwargs(self.module).union(self.named)

    def __call__(self, features: Features, **kwargs: Any) -> Features:
        """What the module makes of Features, with those of the arguments that it takes."""
        given = {name: value for name, value in kwargs.items() if name in self.accepted}
        made: Features = self.module(features, **given)
        return made

    def routed(self, key: str | None, task: str | None) -> Iterator[Link]:
        """The module, or in place of a Router those of the route."""
        if not isinstance(self.module, Router):
            yield self
            return
        for module in self.module.modules_of(self.module.route_of(key, task)):
            yield from Link(module).routed(key, task)

    def accepted_on_any_route(self) -> frozenset[str]:
        """The keyword arguments that the module takes, or one inside it."""
        inside = (accepted_kwargs(module) for module in modules_seen(self.module))
        return self.accepted.union(*inside)


def links_of(model: nn.Sequential, entries: Mapping[str, ModuleEntry]) -> list[Link]:
    """The modules of a model, with the arguments that they take: the modules say it, or the model's files.

    Args:
        model: The model.
        entries: Name → what the files say of a module.
    """
    return [
        Link(module, entries[name].kwargs if name in entries else ()) for name, module in model._modules.items()
    ]


def no_tokenizer(own: nn.Module, found: nn.Module | None) -> Exception:
    """What to raise where texts come to a module that has no ``tokenize``.

    Args:
        own: The first module of the model.
        found: The module that texts come to.
    """
    if isinstance(own, Router):
        return ValueError(
            f"expected {{route: text}} with one of the routes {list(own.routes)}, or task=, found neither"
        )
    return TypeError(
        f"expected a first module with a tokenize method, a Transformer say, found {type(found).__name__}"
    )


@dataclass(frozen=True)
class Chain:
    """The modules that texts of one route go through, one by one.

    Args:
        links: The modules.
        kwargs: Keyword arguments of ``encode``, for those that take them.
    """

    links: Sequence[Link]
    kwargs: Mapping[str, Any]

    @property
    def modules(self) -> list[nn.Module]:
        """The modules, in their order."""
        return [link.module for link in self.links]

    @property
    def is_plain(self) -> bool:
        """Whether no module is given any argument."""
        return not (self.kwargs and any(link.accepted & self.kwargs.keys() for link in self.links))

    def __call__(self, features: Features) -> Features:
        """What the modules make of Features."""
        for link in self.links:
            features = link(features, **self.kwargs)
        return features


@dataclass(frozen=True)
class RoutedTexts:
    """Texts that name the same route, or none.

    Args:
        key: The route.
        texts: The texts, without it.
        places: Their places among all texts, shape (texts,).
    """

    key: str | None
    texts: Sequence[Any]
    places: NDArray[np.int64]

    @staticmethod
    def of_all(texts: Sequence[Any]) -> RoutedTexts:
        """All texts, if there are no routes."""
        return RoutedTexts(None, texts, np.arange(len(texts)))

    def place(self, collector: Collector) -> PlacedCollector:
        """A collector that takes these texts alone."""
        return PlacedCollector(collector, self.places)


@dataclass(frozen=True)
class PlacedCollector:
    """Takes the batches of some of the texts for a collector of all.

    Args:
        collector: The collector.
        places: The places of these texts among all, shape (texts,).
    """

    collector: Collector
    places: NDArray[np.int64]

    def add(self, places: Places, features: Features) -> None:
        """Take a batch."""
        self.collector.add(self.places[places], features)

    def put(self, places: Places, results: Any) -> None:
        """Take results that somebody else has collected."""
        self.collector.put(self.places[places], results)

    def settle(self) -> None:
        """Let the collector look at all that has come."""
        self.collector.settle()

    def finish(self) -> Rows:
        """What the collector has."""
        return self.collector.finish()


def by_route(items: Sequence[Any]) -> list[RoutedTexts]:
    """Items by the route that they name as ``{route: text}``; one group, if empty, in any case.

    Raises:
        ValueError: An item names several routes.

    Example:
        >>> [(group.key, group.texts) for group in by_route([{"query": "a"}, "b", {"query": "c"}])]
        [('query', ['a', 'c']), (None, ['b'])]
    """
    rows: dict[str | None, list[tuple[int, Any]]] = {}
    for place, item in enumerate(items):
        key, text = None, item
        if isinstance(item, Mapping):
            if len(item) != 1:
                raise ValueError(f"row {place}: expected {{route: text}}, found {item!r:.80}")
            ((key, text),) = item.items()
        rows.setdefault(key, []).append((place, text))
    return [
        RoutedTexts(key, [text for _, text in placed], np.array([place for place, _ in placed], dtype=np.int64))
        for key, placed in (rows or {None: []}).items()
    ]
