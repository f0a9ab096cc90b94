"""Attention within each text of a packed batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sentence_embedder.features import array_to_device


@dataclass(frozen=True, kw_only=True)
class Mask:
    """Which tokens of its text a token looks at: all of them, unless it is said otherwise.

    Args:
        causal: Only those before it and itself.
        window: Only those at most so many places away.
        bias: Tokens of the longest text → what is added to the scores, shape (heads, tokens, tokens).
    """

    causal: bool = False
    window: int | None = None
    bias: Callable[[int], Tensor] | None = None

    def tensor(self, width: int, like: Tensor) -> Tensor | None:
        """What is added to the scores of texts of so many tokens, broadcast to (heads, tokens, tokens); None for
        nothing.
        """
        bias = None if self.bias is None else self.bias(width).to(like.dtype)
        window = self.window if self.window is not None and self.window < width - 1 else None
        if not self.causal and window is None:
            return bias
        places = torch.arange(width, device=like.device)
        distance = places[:, None] - places  # how far the key lies before the query
        hidden = distance < 0 if self.causal else torch.zeros_like(distance, dtype=torch.bool)
        if window is not None:
            hidden = hidden | (distance.abs() > window)
        return (like.new_zeros(1) if bias is None else bias).masked_fill(hidden, float("-inf"))


class Attention(Protocol):
    """Attention over the texts of one batch."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float) -> Tensor:
        """The attended values.

        Args:
            query: Shape (tokens of all texts, heads, dim).
            key: Shape (tokens of all texts, key heads, dim); the heads are a multiple of the key heads.
            value: Like the key.
            mask: Which tokens look at which.
            scale: The factor of the scores.

        Returns:
            Shape (tokens of all texts, heads × dim).
        """


@dataclass(frozen=True)
class GroupedAttention:
    """Attention on the CPU: neighbours of equal length are one dense product, nothing is padded.

    Args:
        lengths: How many tokens each text has, shape (texts,).
    """

    lengths: NDArray[np.int64]
    _masks: dict[tuple[Mask, int], Tensor | None] = field(default_factory=dict)

    @cached_property
    def _groups(self) -> list[tuple[int, int]]:
        """How many neighbours have the same length, and which."""
        runs = ((length, sum(1 for _ in run)) for length, run in groupby(self.lengths.tolist()))
        return [(count, length) for length, count in runs if length > 0]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float) -> Tensor:
        """The attended values."""
        outputs, start = [], 0
        for texts, tokens in self._groups:
            end = start + texts * tokens
            split = [
                part[start:end].view(texts, tokens, *part.shape[1:]).transpose(1, 2) for part in (query, key, value)
            ]
            attended = _attend(*split, mask=self._mask(mask, tokens, query), scale=scale)
            outputs.append(attended.transpose(1, 2).reshape(texts * tokens, -1))
            start = end
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _mask(self, mask: Mask, tokens: int, like: Tensor) -> Tensor | None:
        """The mask's tensor, which all layers share."""
        if (mask, tokens) not in self._masks:
            self._masks[mask, tokens] = mask.tensor(tokens, like)
        return self._masks[mask, tokens]


@dataclass(frozen=True)
class PaddedAttention:
    """Attention on an accelerator: the texts side by side, padded to the longest, in one product.

    Args:
        lengths: How many tokens each text has, shape (texts,).
        device: Where it is computed.
    """

    lengths: NDArray[np.int64]
    device: torch.device
    _masks: dict[Mask, Tensor | None] = field(default_factory=dict)

    @cached_property
    def _is_ragged(self) -> bool:
        return bool((self.lengths != self.lengths[0]).any())

    @cached_property
    def _shape(self) -> tuple[int, int]:
        return len(self.lengths), int(self.lengths.max())

    @cached_property
    def _places(self) -> Tensor:
        """The place of each token among those of the padded batch, shape (tokens of all texts,)."""
        width = self._shape[1]
        real = np.arange(width) < self.lengths[:, None]
        return array_to_device(np.flatnonzero(real), self.device)

    @cached_property
    def _padding(self) -> Tensor:
        """Whether a token of the padded batch is none, shape (texts, 1, 1, tokens)."""
        padding = np.arange(self._shape[1]) >= self.lengths[:, None]
        return array_to_device(padding, self.device)[:, None, None, :]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float) -> Tensor:
        """The attended values."""
        split = [self._padded(part).transpose(1, 2) for part in (query, key, value)]
        attended = _attend(*split, mask=self._mask(mask, query), scale=scale).transpose(1, 2)
        rows = attended.reshape(-1, attended.shape[2] * attended.shape[3])
        return rows[self._places] if self._is_ragged else rows

    def _padded(self, part: Tensor) -> Tensor:
        if not self._is_ragged:
            return part.view(*self._shape, *part.shape[1:])
        texts, width = self._shape
        padded = part.new_zeros(texts * width, *part.shape[1:]).index_copy_(0, self._places, part)
        return padded.view(texts, width, *part.shape[1:])

    def _mask(self, mask: Mask, like: Tensor) -> Tensor | None:
        """The mask's tensor, which all layers share."""
        if mask not in self._masks:
            tensor = mask.tensor(self._shape[1], like)
            if self._is_ragged:
                lowest = torch.finfo(like.dtype).min  # -inf in a whole row, that of a padding token, is NaN
                tensor = like.new_zeros(1) if tensor is None else tensor.clamp(min=lowest)
                tensor = tensor.masked_fill(self._padding, lowest)
            self._masks[mask] = tensor
        return self._masks[mask]


def attention_over(lengths: NDArray[np.int64], device: torch.device) -> Attention:
    """The attention for texts of these lengths.

    Args:
        lengths: How many tokens each text has, shape (texts,).
        device: Where it is computed.
    """
    return GroupedAttention(lengths) if device.type == "cpu" else PaddedAttention(lengths, device)


_SCORES_IN_CACHE = 2**20
"""So many scores, and what is made of them, stay near the processor; about 2 MB in half precision."""

_FEWEST_TOKENS = 64
"""With fewer tokens, what a product costs before it begins is more than it takes."""


def _attend(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of texts of one length: (texts, heads, tokens, dim) → the same shape."""
    if mask is not None and mask.ndim == 3:
        mask = mask[None]  # the fused kernels take two or four dimensions
    texts, heads, tokens, _ = query.shape
    at_once = _SCORES_IN_CACHE // (heads * tokens**2)
    # On the CPU the fused kernel is made for float32; halves are quicker in plain products, a few texts at a time.
    is_half = query.dtype != torch.float32 and query.device.type == "cpu"
    if is_half and key.shape[1] == heads and at_once > 0 and texts * tokens >= _FEWEST_TOKENS:
        parts = zip(*(torch.split(part, at_once) for part in (query, key, value)), strict=True)
        outputs = [_products(*part, mask=mask, scale=scale) for part in parts]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=heads != key.shape[1]
    )


def _products(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, scale: float) -> Tensor:
    """Attention as it is written down, with all scores in memory."""
    scores = torch.matmul(query * scale, key.transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    return torch.matmul(scores.softmax(dim=-1), value)
