"""Late chunks: parts of a text, each embedded with the whole text around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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

_TOKENS_AT_ONCE = 2**15
"""The embeddings of about so many tokens are in memory at a time."""


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


@dataclass(frozen=True)
class DividedText:
    """A text of which parts are embedded.

    Args:
        text: The text, as it goes through the model.
        tokens: How many of its tokens are kept.
        parts: For each part the places of its tokens, shape (tokens of the part,).
    """

    text: str
    tokens: int
    parts: Sequence[NDArray[np.int64]]


def divided(
    transformer: Transformer, texts: Sequence[str], spans: Sequence[Sequence[Span]], prompt: str = ""
) -> list[DividedText]:
    """Find the tokens of the parts of texts.

    Args:
        transformer: Knows where they lie.
        texts: The texts.
        spans: For each its parts.
        prompt: What stands before each text; no part of it.

    Raises:
        ValueError: A text has no parts, or one lies outside of it, or has no token that is kept.
    """
    if len(texts) != len(spans):
        raise ValueError(f"spans: expected those of {len(texts):,} texts, a list for each, found {len(spans):,}")
    found = []
    for row, (text, parts) in enumerate(zip(texts, spans, strict=True)):
        where = f" in row {row}" if len(texts) > 1 else ""
        if len(parts) == 0:
            raise ValueError(f"spans{where}: expected one or more, found none")
        offsets = transformer.token_offsets(prompt + text) - len(prompt)
        places = [_tokens_in(span, text, offsets, f"span {place}{where}") for place, span in enumerate(parts)]
        found.append(DividedText(prompt + text, len(offsets), places))
    return found


def _tokens_in(span: Span, text: str, offsets: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    """The places of the tokens of a part."""
    start, end = span
    if not 0 <= start < end <= len(text):
        raise ValueError(
            f"{where}: expected 0 ≤ start < end ≤ {len(text):,}, the length of the text, found ({start}, {end})"
        )
    starts, ends = offsets.T
    found = np.flatnonzero((starts < end) & (ends > start) & (starts < ends))
    if len(found) == 0:
        known = int(ends.max(initial=0))
        raise ValueError(
            f"{where}: expected a token in ({start}, {end}), found none: it is blank, or behind what the model "
            f"reads, which ends with character {known:,}"
        )
    return found


def groups_of(texts: Sequence[DividedText]) -> Iterator[slice]:
    """The places of texts that go through the model together.

    Example:
        >>> list(groups_of([DividedText("", tokens, []) for tokens in (20_000, 20_000, 1)]))
        [slice(0, 2, None), slice(2, 3, None)]
    """
    start, tokens = 0, 0
    for row, text in enumerate(texts):
        tokens += text.tokens
        if tokens >= _TOKENS_AT_ONCE or row == len(texts) - 1:
            yield slice(start, row + 1)
            start, tokens = row + 1, 0


def chunk_embeddings(modules: Sequence[nn.Module], tokens: Tensor, text: DividedText) -> Tensor:
    """The embeddings of parts of a text, made of what a Transformer has made of the whole.

    Args:
        modules: What follows the Transformer.
        tokens: The token embeddings of the text, shape (tokens, dim).
        text: The text.

    Returns:
        Shape (parts, dim).

    Raises:
        ValueError: The Transformer has left out tokens, so that nobody knows which these are.
    """
    if len(tokens) != text.tokens:
        raise ValueError(f"chunks: expected the embeddings of {text.tokens} tokens, found {len(tokens)}")
    lengths = torch.tensor([len(part) for part in text.parts], device=tokens.device)
    parts = [tokens[torch.from_numpy(part).to(tokens.device)] for part in text.parts]
    chunks: Features = {
        "token_embeddings": pad_sequence(parts, batch_first=True),
        "attention_mask": (torch.arange(int(lengths.max()), device=tokens.device) < lengths[:, None]).long(),
    }
    for module in modules:
        chunks = module(chunks)
    return feature_of(chunks, "sentence_embedding")
