"""Layers: attention, what happens to each token on its own, and the residuals and norms around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sentence_embedder.acceleration.attention import Mask
from sentence_embedder.acceleration.batch import Batch
from sentence_embedder.acceleration.linear import Activation, Linear
from sentence_embedder.acceleration.norms import Norm
from sentence_embedder.acceleration.rotary_embedding import RotaryEmbedding


class FeedForward(Protocol):
    """What happens to each token on its own, added to the residual."""

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """(tokens, dim) → (tokens, dim), in the format of the residual, to which it may be added in place."""


@dataclass(frozen=True)
class MLP:
    """Widen, activate, narrow.

    Args:
        up: dim → wider, with its activation.
        down: wider → dim.
    """

    up: Linear
    down: Linear

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The same, added to the residual."""
        return self.down.plus(self.up(x), residual)


@dataclass(frozen=True)
class GatedMLP:
    """Widen twice, let one gate the other, narrow (Shazeer 2020, https://arxiv.org/abs/2002.05202).

    Args:
        up: dim → the activated half and the other, side by side.
        down: wider → dim.
        activation: What happens to the first half.
    """

    up: Linear
    down: Linear
    activation: Activation

    def __call__(self, x: Tensor) -> Tensor:
        """(tokens, dim) → (tokens, dim)."""
        return self.down(self._gated(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """The same, added to the residual."""
        return self.down.plus(self._gated(x), residual)

    def _gated(self, x: Tensor) -> Tensor:
        activated, gate = self.up(x).chunk(2, dim=-1)
        return self.activation.function(activated).mul_(gate)


@dataclass(frozen=True, kw_only=True)
class SelfAttention:
    """Multi-head attention of texts to themselves.

    Args:
        qkv: dim → queries, keys and values, side by side.
        out: heads × head_dim → dim.
        heads: How many heads the queries have.
        key_heads: How many heads keys and values have.
        head_dim: Width of a head.
        scale: The factor of the scores.
        mask: Which tokens look at which.
        query_norm: What happens to each head of the queries.
        key_norm: What happens to each head of the keys.
        rotary: The position embedding of queries and keys, if they have one.
    """

    qkv: Linear
    out: Linear
    heads: int
    key_heads: int
    head_dim: int
    scale: float
    mask: Mask
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    rotary: RotaryEmbedding | None = None

    def __call__(self, x: Tensor, batch: Batch, places: Tensor | None) -> Tensor:
        """(tokens, dim) → (places, dim)."""
        return self.out(self._attended(x, batch, places))

    def plus(self, x: Tensor, residual: Tensor, batch: Batch, places: Tensor | None) -> Tensor:
        """The same, in the format of the residual (places, dim), to which it may be added in place."""
        return self.out.plus(self._attended(x, batch, places), residual)

    def _attended(self, x: Tensor, batch: Batch, places: Tensor | None) -> Tensor:
        """The values, (places, heads × head_dim)."""
        parts = [self.heads, self.key_heads, self.key_heads]
        joined = self.qkv(x).view(-1, sum(parts), self.head_dim).transpose(0, 1)
        query, key, value = torch.split_with_sizes(joined, parts)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.rotary is not None:
            rotate = batch.rotation(self.rotary)
            query, key = rotate(query), rotate(key)
        return _at(places, batch.attention(query, key, value, self.mask, self.scale))


def _at(places: Tensor | None, x: Tensor) -> Tensor:
    """The rows at these places, in memory of their own; None for all, where they are."""
    return x if places is None else x.index_select(0, places)


def _in(dtype: torch.dtype, x: Tensor) -> Tensor:
    """A tensor in a format. Even a conversion to what it is takes torch a while, which a lone text waits for."""
    return x if x.dtype == dtype else x.to(dtype)


class Layer(Protocol):
    """One layer of an encoder."""

    def __call__(self, x: Tensor, batch: Batch, places: Tensor | None = None) -> Tensor:
        """What follows of each token's embedding, and of those that it looks at.

        Args:
            x: Shape (tokens, dim); its memory may be written to.
            batch: What the tokens are.
            places: Those of the tokens of which it is wanted; None for all.

        Returns:
            Shape (places, dim).
        """


@dataclass(frozen=True)
class PostNormLayer:
    """A layer that normalises what comes out of each part (BERT and its kin).

    Args:
        attention: The first part.
        attention_norm: Follows it.
        feed_forward: The second part.
        output_norm: Follows it.
        dtype: The format of the products; the residual keeps its own.
    """

    attention: SelfAttention
    attention_norm: Norm
    feed_forward: FeedForward
    output_norm: Norm
    dtype: torch.dtype

    def __call__(self, x: Tensor, batch: Batch, places: Tensor | None = None) -> Tensor:
        """(tokens, dim) → (places, dim)."""
        x = self.attention_norm(self.attention.plus(_in(self.dtype, x), _at(places, x), batch, places))
        return self.output_norm(self.feed_forward.plus(_in(self.dtype, x), x))


@dataclass(frozen=True)
class PreNormLayer:
    """A layer that normalises what goes into each part (ModernBERT, decoders).

    Args:
        attention_norm: Goes before the attention.
        attention: The first part.
        feed_forward_norm: Goes before the second part.
        feed_forward: The second part.
        dtype: The format of the products; the residual keeps its own.
    """

    attention_norm: Norm
    attention: SelfAttention
    feed_forward_norm: Norm
    feed_forward: FeedForward
    dtype: torch.dtype

    def __call__(self, x: Tensor, batch: Batch, places: Tensor | None = None) -> Tensor:
        """(tokens, dim) → (places, dim)."""
        x = self.attention.plus(_in(self.dtype, self.attention_norm(x)), _at(places, x), batch, places)
        return self.feed_forward.plus(_in(self.dtype, self.feed_forward_norm(x)), x)


@dataclass(frozen=True)
class SandwichNormLayer:
    """A layer that normalises what goes into each part and what comes out of it (Gemma).

    Args:
        attention_norm: Goes before the attention.
        attention: The first part.
        attended_norm: Follows it.
        feed_forward_norm: Goes before the second part.
        feed_forward: The second part.
        output_norm: Follows it.
        dtype: The format of the products; the residual and the norms keep their own.
    """

    attention_norm: Norm
    attention: SelfAttention
    attended_norm: Norm
    feed_forward_norm: Norm
    feed_forward: GatedMLP
    output_norm: Norm
    dtype: torch.dtype

    def __call__(self, x: Tensor, batch: Batch, places: Tensor | None = None) -> Tensor:
        """(tokens, dim) → (places, dim)."""
        attended = self.attention(_in(self.dtype, self.attention_norm(x)), batch, places)
        x = self.attended_norm(_in(x.dtype, attended)).add_(_at(places, x))
        output = self.feed_forward(_in(self.dtype, self.feed_forward_norm(x)))
        return self.output_norm(_in(x.dtype, output)).add_(x)
