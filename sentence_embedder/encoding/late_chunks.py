"""Late chunks: parts of a text, each embedded with the whole text around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sentence_embedder.devices import module_device
from sentence_embedder.features import Features, feature_of, to_device
from sentence_embedder.models import Transformer

Span = tuple[int, int]
"""Where a part of a text begins, and where it ends, in characters."""


def chunk_embeddings(modules: Sequence[nn.Module], text: str, spans: Sequence[Span], prompt: str = "") -> Tensor:
    """The embeddings of parts of a text, which goes through the transformer once, as a whole.

    Args:
        modules: The chain; the first is a Transformer.
        text: The text.
        spans: The parts.
        prompt: What stands before the text; no part of it.

    Returns:
        Shape (spans, dim).

    Raises:
        ValueError: The chain begins otherwise, or a span lies outside of the text, or has no token that is kept.
    """
    first, rest = next(iter(modules), None), modules[1:]
    if not isinstance(first, Transformer) or not rest:
        found = [type(module).__name__ for module in modules]
        raise ValueError(f"chunks: expected a Transformer and a Pooling first, found {found}")
    _check(text, spans)
    device = module_device(first)
    features = first(to_device(first.tokenize([prompt + text]), device))
    offsets = first.token_offsets(prompt + text) - len(prompt)
    rows = [_tokens_in(span, offsets) for span in spans]
    tokens = features["token_embeddings"][0]
    lengths = torch.tensor([len(row) for row in rows], device=device)
    chunks: Features = {
        "token_embeddings": pad_sequence(
            [tokens[torch.from_numpy(row).to(device)] for row in rows], batch_first=True
        ),
        "attention_mask": (torch.arange(int(lengths.max()), device=device) < lengths[:, None]).long(),
    }
    for module in rest:
        chunks = module(chunks)
    return feature_of(chunks, "sentence_embedding")


def _check(text: str, spans: Sequence[Span]) -> None:
    if len(spans) == 0:
        raise ValueError("spans: expected one or more, found none")
    for place, (start, end) in enumerate(spans):
        if not 0 <= start < end <= len(text):
            raise ValueError(
                f"span {place}: expected 0 ≤ start < end ≤ {len(text):,}, the length of the text, found "
                f"({start}, {end})"
            )


def _tokens_in(span: Span, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    start, end = span
    starts, ends = offsets.T
    found = np.flatnonzero((starts < end) & (ends > start) & (starts < ends))
    if len(found) == 0:
        known = int(ends.max(initial=0))
        raise ValueError(
            f"span ({start}, {end}): expected a token in it, found none: it is blank, or behind what the model "
            f"reads, which ends with character {known:,}"
        )
    return found
