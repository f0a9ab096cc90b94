"""The loop of ``encode``: batches through the model, results to the collector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from sentence_embedder.encoding.collector import Collector, Rows
from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.encoding.planner import plan
from sentence_embedder.features import Features, to_device
from sentence_embedder.progress import Progress


class BatchSource(Protocol):
    """Texts that become Features, batch by batch."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How long each text is, in tokens or, where these are not known yet, in characters."""

    def batch(self, rows: Sequence[int]) -> Features:
        """The Features of the texts at the given places."""


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

    def batch(self, rows: Sequence[int]) -> Features:
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


@torch.no_grad()
def encode_all(
    model: Callable[[Features], Features],
    source: BatchSource,
    options: EncodeOptions,
    *,
    device: torch.device,
    collector: Collector,
    progress: Progress,
) -> Rows:
    """Send all texts through the model.

    Args:
        model: Features → Features, on the device.
        source: The texts.
        options: What is asked for.
        device: Where the model computes.
        collector: Takes what the model makes, and says what is returned.
        progress: Told how many texts are done.
    """
    whole_batch = {} if options.prompt_length is None else {"prompt_length": options.prompt_length}
    try:
        for places in plan(source.lengths, options.batch_size):
            features = to_device({**source.batch(places), **whole_batch}, device)
            collector.add(places, model(features))
            progress.update(len(places))
    finally:
        progress.close()
    return collector.finish()
