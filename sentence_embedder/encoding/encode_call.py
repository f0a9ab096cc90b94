"""EncodeCall: a call of ``encode`` that this process computes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sentence_embedder.acceleration.acceleration import Acceleration
from sentence_embedder.acceleration.forward import Forward, PlainForward
from sentence_embedder.acceleration.snapshot import is_bare
from sentence_embedder.encoding.chain import Chain, PlacedCollector, RoutedTexts, by_route, links_of, no_tokenizer
from sentence_embedder.encoding.collector import Collector, Rows
from sentence_embedder.encoding.engine import Engine, TokenizedOnDemand
from sentence_embedder.encoding.findings import Findings
from sentence_embedder.encoding.inputs import DistinctTexts
from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.encoding.sharing import Sharing
from sentence_embedder.encoding.token_budget import TokenBudget
from sentence_embedder.features import BatchSource, Features
from sentence_embedder.formats import ModuleEntry
from sentence_embedder.grad_mode import grad_mode_kept
from sentence_embedder.models import CLIPModel, Router, StaticEmbedding, Transformer, WordEmbeddings
from sentence_embedder.progress import progress_bar

_MANY = 128
"""Beside so many texts it costs little to look at all weights."""

_TRIED = 64
"""So many texts are computed again before it is looked whether that helps."""

_TOKENIZE: Mapping[type[Any], Any] = {
    module: module.tokenize for module in (Transformer, StaticEmbedding, WordEmbeddings, CLIPModel)
}
"""Class → its ``tokenize`` as this package wrote it: programs put others into classes."""


@dataclass(frozen=True, kw_only=True)
class EncodeCall:
    """Texts through the modules of a model that is in evaluation mode on its device, and rows back.

    Args:
        model: The SentenceTransformer, which may be of a subclass, or the first of its modules.
        entries: What the model's files say of its modules.
        has_own_tokenize: Whether its class has a ``tokenize`` of its own.
        has_own_forward: Whether its class has a ``forward`` of its own.
        acceleration: Finds the quickest way through the modules.
        budget: How many tokens a batch may have.
        sharing: Whether all threads share what is the only batch.
        options: What is asked for.
        device: Where the model is.
        kwargs: Keyword arguments for modules that take them.
    """

    model: Any
    entries: Mapping[str, ModuleEntry]
    has_own_tokenize: bool
    has_own_forward: bool
    acceleration: Acceleration
    budget: TokenBudget
    sharing: Sharing
    options: EncodeOptions
    device: torch.device
    kwargs: Mapping[str, Any]

    @grad_mode_kept()
    def rows(
        self,
        texts: Sequence[Any],
        collector_for: Callable[[DistinctTexts], Collector],
        found: Findings,
        *,
        shows_progress: bool,
    ) -> Rows:
        """What the model makes of texts.

        Args:
            texts: The texts, with their prompts.
            collector_for: Makes what takes the results; told which of the texts are computed.
            found: Told what is found out about them.
            shows_progress: Whether a bar counts them.
        """

        def on_cut(rows: NDArray[np.int64]) -> None:
            found.cut.add(rows - found.start)

        is_rows = self.options.output_value == "sentence_embedding"
        groups = by_route(texts) if self._routers else [RoutedTexts.of_all(texts)]
        engines = [self.engine(group.key, len(group.texts)) for group in groups]
        # What comes apart for each text, its owner may change; and who tokenises by batches, may count them.
        may_share = is_rows and len(groups) == 1 and engines[0].forward.batch_tokens is not None
        distinct = DistinctTexts.of(texts) if may_share else DistinctTexts.every(len(texts))
        collector = collector_for(distinct)
        with progress_bar(len(texts), unit="sentence", shown=shows_progress, description="Encoding") as progress:
            if len(distinct.computed) < len(texts):
                groups = [RoutedTexts.of_all([texts[place] for place in distinct.computed])]
                progress.update(len(texts) - len(distinct.computed))
            for group, engine in zip(groups, engines, strict=True):
                rows = distinct.computed[group.places] + found.start
                engine.run(group.texts, group.place(collector), progress, rows=rows, on_cut=on_cut)
        collector.settle()
        if len(found.nonfinite.places):
            for group in groups:
                self._compute_again(group, distinct, collector, found)
        found.cut.repeat(distinct)
        return collector.finish()

    def _compute_again(
        self, group: RoutedTexts, distinct: DistinctTexts, collector: Collector, found: Findings
    ) -> None:
        """Compute texts of a route again whose embeddings are not finite: alone, in float32, module by module.
        Where none is finite, and that has helped none of many, the model makes nothing else; the others are left.
        """
        all_places = distinct.computed[group.places]
        these = np.flatnonzero(np.isin(all_places, found.nonfinite.places))
        formats = {parameter.dtype for parameter in self.model.parameters() if parameter.is_floating_point()}
        model = self.model if formats <= {torch.float32, torch.float64} else copy.deepcopy(self.model).float()
        alone = replace(self, model=model, options=replace(self.options, deterministic=True))
        for start in range(0, len(these), _TRIED):
            some = these[start : start + _TRIED]
            texts, places = [group.texts[place] for place in some.tolist()], all_places[some]
            placed = PlacedCollector(collector, group.places[some])
            with torch.autocast(self.device.type, enabled=False), progress_bar(0, unit="", shown=False) as progress:
                engine = alone.engine(group.key, len(texts), is_plain=True)
                engine.run(texts, placed, progress, rows=places + found.start)
            collector.settle()
            if len(these) == len(all_places) and np.isin(all_places, found.nonfinite.places).all():
                found.nonfinite.tried = len(some)
                return

    def engine(self, key: str | None, count: int, *, is_plain: bool = False) -> Engine:
        """What turns texts of a route into Features: tokenised ahead, or by batches if somebody has their own
        ``tokenize``.

        Args:
            key: The route, if there are several.
            count: How many texts there are.
            is_plain: Whether they go through the modules as they are.
        """
        links = links_of(self.model, self.entries)
        if self._routers:
            links = [routed for link in links for routed in link.routed(key, self.kwargs.get("task"))]
        chain = Chain(links, self.kwargs)
        first: Any = chain.modules[0] if links else None
        if not hasattr(first, "tokenize"):
            raise no_tokenizer(self.model._first_module(), first)
        length = _prompt_length(first, self.options.prompt) if self.options.prompt else None
        extra = {} if length is None else {"prompt_length": length}
        is_stock = not self.has_own_tokenize and _has_stock_tokenize(first)
        if is_stock and hasattr(first, "tokenize_ahead"):
            tokenize: Callable[[Sequence[Any]], BatchSource] = first.tokenize_ahead
        else:
            own = first.tokenize if is_stock else self.model.tokenize
            tokenize = functools.partial(TokenizedOnDemand, own)
            is_plain = True
        plain = PlainForward(self._called(chain, key), self.device, extra)
        return Engine(
            tokenize=tokenize,
            forward=plain if is_plain else self._quickest(chain, key, plain, count),
            device=self.device,
            batch_size=self.options.batch_size,
            longest=getattr(first, "max_seq_length", None),
            budget=self.budget,
            sharing=self.sharing,
            is_deterministic=self.options.deterministic,
        )

    def _quickest(self, chain: Chain, key: str | None, plain: PlainForward, count: int) -> Forward:
        """The quickest way through a chain."""
        routers = self._routers
        if self.has_own_forward or not chain.is_plain or not all(map(is_bare, (self.model, *routers))):
            return plain
        return self.acceleration.forward(
            nn.Sequential(*chain.modules) if routers else self.model,
            output_value=self.options.output_value,
            device=self.device,
            extra=plain.extra,
            route=key or self.kwargs.get("task"),
            thoroughly=count >= _MANY,
        )

    def _called(self, chain: Chain, key: str | None) -> Callable[[Features], Features]:
        """The model itself, which may be of a subclass, with what makes it take the way of a chain."""
        kwargs = dict(chain.kwargs)
        if key is not None:
            kwargs["task"] = key
        return functools.partial(self.model, **kwargs) if kwargs else self.model

    @functools.cached_property
    def _routers(self) -> list[Router]:
        return [module for module in self.model if isinstance(module, Router)]


def _has_stock_tokenize(first: Any) -> bool:
    """Whether a first module, if it is one of ours, tokenises as this package wrote it."""
    stock = [tokenize for module, tokenize in _TOKENIZE.items() if isinstance(first, module)]
    return "tokenize" not in vars(first) and all(type(first).tokenize is tokenize for tokenize in stock)


def _prompt_length(first: Any, prompt: str) -> int | None:
    """How many tokens a prompt takes at the start of a text; None if the first module makes no tokens."""
    if isinstance(first, Transformer):
        return first.prompt_length(prompt)
    features = first.tokenize([prompt])
    # Texts as bags of tokens are pooled as they are.
    if "input_ids" not in features or features["input_ids"].ndim < 2:
        return None
    ids = features["input_ids"][0].tolist()
    special_ids = getattr(getattr(first, "tokenizer", None), "all_special_ids", ())
    return len(ids) - (ids[-1] in special_ids)
