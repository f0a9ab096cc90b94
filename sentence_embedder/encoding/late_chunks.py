"""Late chunks: parts of a text, each embedded with the whole text around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from sentence_embedder.features import Features, feature_of
from sentence_embedder.models import Transformer

Span = tuple[int, int]
"""Where a part of a text begins, and where it ends, in characters."""

_CHARACTERS_AT_ONCE = 2**17
"""Of texts of so many characters all token embeddings are in memory at a time."""


class TokenModel(nn.Sequential):
    """The Transformer of a model alone: texts become token embeddings.

    Args:
        modules: The chain that it is the first of.

    Raises:
        ValueError: The chain begins otherwise, or there is nothing to make one embedding of several tokens.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        if len(modules) < 2 or not isinstance(modules[0], Transformer):
            found = [type(module).__name__ for module in modules]
            raise ValueError(f"chunks: expected a Transformer and a Pooling first, found {found}")
        super().__init__(modules[0])

    @property
    def transformer(self) -> Transformer:
        """The Transformer."""
        return cast("Transformer", self[0])

    def tokenize(self, texts: Sequence[Any]) -> Features:
        """Texts as the Transformer takes them, padded."""
        return self.transformer.tokenize(texts)


def check_spans(texts: Sequence[str], spans: Sequence[Sequence[Span]]) -> None:
    """Check that the parts of each text lie in it.

    Args:
        texts: The texts.
        spans: For each its parts.

    Raises:
        ValueError: There are none for a text, or one lies outside of it.
    """
    if len(texts) != len(spans):
        raise ValueError(f"spans: expected those of {len(texts):,} texts, a list for each, found {len(spans):,}")
    for row, (text, parts) in enumerate(zip(texts, spans, strict=True)):
        if len(parts) == 0:
            raise ValueError(f"spans: expected one or more, found none{_in_row(row, texts)}")
        for place, (start, end) in enumerate(parts):
            if not 0 <= start < end <= len(text):
                raise ValueError(
                    f"span {place}: expected 0 ≤ start < end ≤ {len(text):,}, the length of the text, found "
                    f"({start}, {end}){_in_row(row, texts)}"
                )


def _in_row(row: int, texts: Sequence[str]) -> str:
    return f", in row {row}" if len(texts) > 1 else ""


def blocks_of(texts: Sequence[str]) -> Iterator[slice]:
    """Texts of about as many characters as go through the model at a time.

    Example:
        >>> list(blocks_of(["a" * 100_000, "b" * 50_000, "c"]))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    start, characters = 0, 0
    for row, text in enumerate(texts):
        characters += len(text)
        if characters >= _CHARACTERS_AT_ONCE or row == len(texts) - 1:
            yield slice(start, row + 1)
            start, characters = row + 1, 0


def chunk_embeddings(
    modules: Sequence[nn.Module], tokens: Tensor, offsets: NDArray[np.int64], spans: Sequence[Span]
) -> Tensor:
    """The embeddings of parts of a text, made of what a Transformer has made of the whole.

    Args:
        modules: What follows the Transformer.
        tokens: The token embeddings of the text, shape (tokens, dim).
        offsets: Where each token begins and ends in it, in characters, shape (tokens, 2).
        spans: The parts.

    Returns:
        Shape (spans, dim).

    Raises:
        ValueError: A part has no token that is kept.
    """
    rows = [torch.from_numpy(_tokens_in(span, offsets)).to(tokens.device) for span in spans]
    lengths = torch.tensor([len(row) for row in rows], device=tokens.device)
    chunks: Features = {
        "token_embeddings": pad_sequence([tokens[row] for row in rows], batch_first=True),
        "attention_mask": (torch.arange(int(lengths.max()), device=tokens.device) < lengths[:, None]).long(),
    }
    for module in modules:
        chunks = module(chunks)
    return feature_of(chunks, "sentence_embedding")


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
