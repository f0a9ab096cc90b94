"""Attention within each text of a packed batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sentence_embedder.acceleration.dtypes import has_instructions, is_made_by
from sentence_embedder.features import array_to_device


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """Which tokens of its text a token looks at: all of them, unless it is said otherwise.

    It is the same as itself alone: layers that share its tensor share the object.

    Args:
        causal: Only those before it and itself.
        window: Only those at most so many places away.
        bias: Tokens of a text → what is added to the scores, shape (heads, tokens, tokens). That of a shorter text
            is the upper left corner of that of a longer one.
    """

    causal: bool = False
    window: int | None = None
    bias: Callable[[int], Tensor] | None = None

    def tensor(self, width: int, like: Tensor) -> Tensor | None:
        """What is added to the scores of texts of so many tokens, broadcast to (heads, tokens, tokens); None for
        nothing.
        """
        bias = None if self.bias is None else self.bias(width).to(like.dtype).contiguous()
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
        """The attended values; at what follows the last text, zeros.

        Args:
            query: Shape (heads, tokens, dim).
            key: Shape (key heads, tokens, dim); the heads are a multiple of the key heads.
            value: Like the key.
            mask: Which tokens look at which.
            scale: The factor of the scores.

        Returns:
            Shape (tokens, heads × dim).
        """


class GroupedAttention:
    """Attention on the CPU: neighbours of equal length are one dense product, nothing is padded.

    Args:
        lengths: How many tokens each text has, shape (texts,).
    """

    def __init__(self, lengths: NDArray[np.int64]) -> None:
        runs = ((length, sum(1 for _ in run)) for length, run in groupby(lengths.tolist()))
        # How many neighbours have the same length, and which.
        self._groups = [(count, length) for length, count in runs if length > 0]
        texts, tokens = self._groups[0] if len(self._groups) == 1 else (0, 0)
        # How many tokens the text has, if there is but one, and few of them; or else 0.
        self._lone = tokens if texts == 1 and tokens < FEW_TOKENS else 0
        self._longest = max((tokens for _, tokens in self._groups), default=0)
        self._masks: dict[tuple[Mask, int], Tensor | None] = {}

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, scale: float) -> Tensor:
        """The attended values."""
        if self._lone > 0:
            missing = query.shape[1] - self._lone
            if missing:
                query, key, value = (part[:, : self._lone] for part in (query, key, value))
            alone = _attended_alone(query, key, value, mask=self._mask(mask, self._lone, query), scale=scale)
            return functional.pad(alone, (0, 0, 0, missing)) if missing else alone
        attended, start = query.new_empty(query.shape[1], query.shape[0], query.shape[2]), 0
        for texts, tokens in self._groups:
            end = start + texts * tokens
            group = (query[:, start:end], key[:, start:end], value[:, start:end])
            _attend(*group, texts=texts, mask=self._mask(mask, tokens, query), scale=scale, out=attended[start:end])
            start = end
        attended[start:].zero_()
        return attended.flatten(1)

    def _mask(self, mask: Mask, tokens: int, like: Tensor) -> Tensor | None:
        """The mask's tensor, which all layers share."""
        if (mask, tokens) not in self._masks:
            self._masks[mask, tokens] = self._tensor(mask, tokens, like)
        return self._masks[mask, tokens]

    def _tensor(self, mask: Mask, tokens: int, like: Tensor) -> Tensor | None:
        """The same, made: with a bias, which takes longer, of that of the longest text."""
        if mask.bias is None or tokens == self._longest:
            return mask.tensor(tokens, like)
        longest = self._mask(mask, self._longest, like)
        return None if longest is None else longest[:, :tokens, :tokens]


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
        if not self.lengths.any():  # all that there is is filling
            return query.new_zeros(query.shape[1], query.shape[0] * query.shape[2])
        tensor = self._mask(mask, query)
        if tensor is not None and len(key) != len(query):
            # Beside a mask no kernel of CUDA but the slowest takes fewer heads of keys than of queries.
            key, value = (part.repeat_interleave(len(query) // len(part), dim=0) for part in (key, value))
        split = [self._padded(part) for part in (query, key, value)]
        rows = _by_token(_fused(*split, mask=tensor, scale=scale))
        return rows[self._places] if self._is_ragged else rows

    def _padded(self, part: Tensor) -> Tensor:
        """(heads, tokens of all texts, dim) → (texts, heads, tokens, dim)."""
        texts, width = self._shape
        if not self._is_ragged:
            return _by_text(part, texts)
        tokens = part.transpose(0, 1)
        padded = tokens.new_zeros(texts * width, *tokens.shape[1:]).index_copy_(0, self._places, tokens)
        return padded.view(texts, width, *tokens.shape[1:]).transpose(1, 2)

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
"""So many bytes of scores, and what is made of them, stay near the processor."""

FEW_TOKENS = 64
"""Among fewer, what an operation costs before it begins is more than it takes: one softmax is less than what takes
its place below, and products of halves, which are prepared anew each time, are more than those of float32."""

_LONGEST_UNSHIFTED = 1024
"""Up to so many scores in a row, their softmax takes longer than exponentials and a sum."""

_LOG2_E = math.log2(math.e)

_GRAIN = 2**15
"""Of a tensor of so many values, torch gives none to a second thread."""

_VECTORS = 64
"""Of the part of each thread, torch computes as many values at once as this, or a divisor of it; of what is left it
computes one by one, and to other last digits."""

_TOTALS = (1e-26, 1e35)
"""Sums of exponentials within these limits have lost nothing to the limits of a float."""


@cache
def _floats_in_a_vector() -> int:
    """How many floats torch computes at once; at least, where it does not say.

    Of a row of fewer scores it computes the softmax one by one, which takes longer than that of a column. Of as
    many columns or more it would compute some together and others alone, to other last digits: which, would depend
    on the number of threads.
    """
    return {"AVX512": 16, "AVX2": 8}.get(torch.backends.cpu.get_cpu_capability(), 4)


@cache
def _longest_in_products(dtype: torch.dtype) -> float:
    """How many tokens a text may have for products of all its scores to be quicker than torch's fused kernel, which
    on the CPU is made for longer ones.

    Halves the kernel multiplies itself, and as quickly as oneDNN only where the processor has tiles (AMX). Products
    of float32 are MKL's in both; on processors of AMD, the small blocks that the kernel makes of them take longer.
    """
    if dtype == torch.float32:
        return 256 if is_made_by("AMD") else 24
    return 24 if dtype == torch.bfloat16 and has_instructions("amx_bf16") else math.inf


def _attend(
    query: Tensor, key: Tensor, value: Tensor, *, texts: int, mask: Tensor | None, scale: float, out: Tensor
) -> None:
    """Attention of texts of one length on the CPU, in the way that is quickest.

    Args:
        query: Shape (heads, tokens of all texts, dim).
        key: Likewise; the heads are a multiple of the key heads.
        value: Like the key.
        texts: How many there are.
        mask: What is added to the scores.
        scale: The factor of the scores.
        out: Takes the result; shape (tokens of all texts, heads, dim).
    """
    tokens, heads = query.shape[1] // texts, len(query)
    if tokens > _longest_in_products(query.dtype) or len(key) != heads:
        split = [_by_text(part, texts) for part in (query, key, value)]
        attended = _fused(*split, mask=mask, scale=scale).transpose(1, 2)
        out.view(attended.shape).copy_(attended)
        return
    at_once = max(1, _SCORES_IN_CACHE // (query.element_size() * heads * tokens**2))
    if texts <= at_once:
        _multiply(query, key, value, texts=texts, mask=mask, scale=scale, out=out)
        return
    parts = (torch.split(part, at_once * tokens, dim=1) for part in (query, key, value))
    for *some, rows in zip(*parts, torch.split(out, at_once * tokens), strict=True):
        _multiply(*some, texts=len(rows) // tokens, mask=mask, scale=scale, out=rows)


def _attended_alone(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of one text of few tokens; shapes as in ``_attend``, and of the result (tokens, heads × dim).

    Where several threads share it, torch's kernel opens a team of them for each small product of float32, which
    takes longer than the two products of all heads.
    """
    is_long = query.shape[1] > _longest_in_products(query.dtype)
    if query.dtype != torch.float32 or is_long or len(key) != len(query):
        return _by_token(_fused(query[None], key[None], value[None], mask=mask, scale=scale))
    return _by_token(_softmax_of_scores(query, key, value, texts=1, mask=mask, scale=scale))


def _fused(query: Tensor, key: Tensor, value: Tensor, *, mask: Tensor | None, scale: float) -> Tensor:
    """Attention in torch's own kernel: (texts, heads, tokens, dim) → the same shape."""
    if mask is not None and mask.ndim == 3:
        mask = mask[None]  # the fused kernels take two or four dimensions
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )


def _multiply(
    query: Tensor, key: Tensor, value: Tensor, *, texts: int, mask: Tensor | None, scale: float, out: Tensor
) -> None:
    """Attention as it is written down, with all scores in memory; arguments as for ``_attend``."""
    are_few = query.shape[1] < FEW_TOKENS
    dtype = torch.float32 if are_few else query.dtype
    by_head = [_by_head(part, texts).to(dtype) for part in (query, key, value)]
    if dtype != torch.float32:
        # oneDNN multiplies halves, and would bring these into order itself, which takes it longer.
        by_head[:2] = [part.contiguous() for part in by_head[:2]]
    # float16 holds no exponentials but those of scores around zero.
    is_unshifted = not are_few and query.shape[1] // texts <= _LONGEST_UNSHIFTED and dtype != torch.float16
    if not (is_unshifted and _exponentials_of_scores(*by_head, texts=texts, mask=mask, scale=scale, out=out)):
        _put_by_token(_softmax_of_scores(*by_head, texts=texts, mask=mask, scale=scale), texts, out)


def _scores(
    query: Tensor,
    key: Tensor,
    *,
    texts: int,
    mask: Tensor | None,
    scale: float,
    factor: float = 1.0,
    out: Tensor | None = None,
) -> Tensor:
    """Shape (texts × heads, tokens, dim) twice → (texts × heads, tokens, tokens), all of it times a factor."""
    # Nobody reads it, but torch has no product with a factor without it.
    nothing = torch.empty(1, dtype=query.dtype, device=query.device)
    scores = torch.baddbmm(nothing, query, key.transpose(1, 2), beta=0, alpha=scale * factor, out=out)
    if mask is not None:
        (scores if texts == 1 else scores.view(texts, -1, *scores.shape[1:])).add_(mask, alpha=factor)
    return scores


def _softmax_of_scores(
    query: Tensor, key: Tensor, value: Tensor, *, texts: int, mask: Tensor | None, scale: float
) -> Tensor:
    """The attended values, shape (texts × heads, tokens, dim)."""
    if query.shape[1] < _floats_in_a_vector():
        mask = None if mask is None else mask.transpose(-1, -2)
        weights = _scores(key, query, texts=texts, mask=mask, scale=scale).softmax(dim=1).transpose(1, 2)
    else:
        weights = _scores(query, key, texts=texts, mask=mask, scale=scale).softmax(dim=-1)
    return torch.bmm(weights, value)


def _exponentials_of_scores(
    query: Tensor, key: Tensor, value: Tensor, *, texts: int, mask: Tensor | None, scale: float, out: Tensor
) -> bool:
    """The same without a softmax, which first subtracts the highest score of a row from all: alike to a rounding.

    Returns:
        Whether the result is there: it is not if an exponential overflows or a whole row of them vanishes.
    """
    # As powers of 2: those of e torch leaves to MKL, which on processors of AMD takes four times as long.
    shape = (len(query), query.shape[1], key.shape[1])
    count = math.prod(shape)
    powers = query.new_empty(_whole_vectors(count))
    weights = powers[:count].view(shape)
    _scores(query, key, texts=texts, mask=mask, scale=scale, factor=_LOG2_E, out=weights)
    powers.exp2_()
    totals = weights.sum(dim=-1, keepdim=True)  # added up in float32, and then rounded, like the product below
    lowest, highest = torch.aminmax(totals)
    if not (_TOTALS[0] < lowest and highest < _TOTALS[1]):
        return False
    split = _split(torch.bmm(weights, value), texts)
    torch.div(split, _split(totals, texts), out=out.view(split.shape))
    return True


def _whole_vectors(count: int) -> int:
    """How many values, of which each thread computes whole vectors, hold this many.

    So it makes no difference to any of them how many threads there are.
    """
    of_all = _VECTORS * min(torch.get_num_threads(), -(-count // _GRAIN))
    return -(-count // of_all) * of_all


def _by_text(part: Tensor, texts: int) -> Tensor:
    """(heads, tokens of all texts, dim) → (texts, heads, tokens, dim)."""
    return part.view(len(part), texts, -1, part.shape[2]).transpose(0, 1)


def _by_head(part: Tensor, texts: int) -> Tensor:
    """(heads, tokens of all texts, dim) → (texts × heads, tokens, dim)."""
    return part if texts == 1 else _by_text(part, texts).flatten(0, 1)


def _by_token(attended: Tensor) -> Tensor:
    """(texts, heads, tokens, dim), or that of one text, → (tokens of all texts, heads × dim)."""
    return attended.transpose(-3, -2).reshape(-1, attended.shape[-3] * attended.shape[-1])


def _put_by_token(attended: Tensor, texts: int, out: Tensor) -> None:
    """(texts × heads, tokens, dim) → (tokens of all texts, heads, dim), which is ``out``."""
    split = _split(attended, texts)
    out.view(split.shape).copy_(split)


def _split(by_head: Tensor, texts: int) -> Tensor:
    """(texts × heads, tokens, …) → (texts, tokens, heads, …)."""
    return by_head.view(texts, -1, *by_head.shape[1:]).transpose(1, 2)
