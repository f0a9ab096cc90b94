"""Encoder: a transformer as a flat list of layers, run on packed texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from sentence_embedder.acceleration.attention import FEW_TOKENS, Attention, Mask, attention_over
from sentence_embedder.acceleration.linear import Activation, Linear
from sentence_embedder.acceleration.recording import Recordings
from sentence_embedder.features import PackedTexts, array_to_device


class Norm(Protocol):
    """Brings each row to a standard scale."""

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) → the same shape."""


@dataclass(frozen=True)
class LayerNorm:
    """Zero mean, unit variance, then scale and shift (Ba et al. 2016, https://arxiv.org/abs/1607.06450).

    Args:
        weight: Shape (dim,).
        bias: Shape (dim,), if there is one.
        eps: What is added to the variance.
    """

    weight: Tensor
    bias: Tensor | None
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) → the same shape."""
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class RMSNorm:
    """Unit mean square, then scale (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467).

    Args:
        weight: Shape (dim,).
        eps: What is added to the mean square.
        offset: What is added to the weight.
    """

    weight: Tensor
    eps: float
    offset: float = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) → the same shape."""
        weight = self.weight.float() + self.offset if self.offset else self.weight
        return (_rms_normed if x.device.type == "cpu" else _rms_normed_at_once)(x, weight, self.eps)


def _rms_normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """In half as many passes over the memory as torch's own norm makes on the CPU."""
    wide = x.float()
    squares: Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_()
    factors = squares.mul_(1 / x.shape[-1]).add_(eps).rsqrt_()
    return (wide * factors).mul_(weight.float()).to(x.dtype)


def _rms_normed_at_once(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """By torch's own norm, which squares in float32, whatever the format."""
    wide = x.to(torch.promote_types(x.dtype, weight.dtype))
    return functional.rms_norm(wide, weight.shape, weight, eps).to(x.dtype)


def identity(x: Tensor) -> Tensor:
    """The norm of a layer that has none."""
    return x


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


@dataclass(frozen=True)
class Rotation:
    """Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864) of one batch.

    Args:
        cos: Shape (tokens, dim of a head).
        sin: Likewise, negative in its first half.
    """

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(…, tokens, dim) → the same shape."""
        # Products of two formats take torch longer than a conversion.
        wide, half = x.to(torch.promote_types(x.dtype, self.cos.dtype)), x.shape[-1] // 2
        rotated = wide * self.cos
        rotated[..., :half].addcmul_(wide[..., half:], self.sin[..., :half])
        rotated[..., half:].addcmul_(wide[..., :half], self.sin[..., half:])
        return rotated.to(x.dtype)


@dataclass(frozen=True)
class RotaryEmbedding:
    """The frequencies of a rotary position embedding.

    Args:
        frequencies: Radians a place, shape (dim of a head / 2,).
        scaling: The factor of cosine and sine.
    """

    frequencies: Tensor
    scaling: float

    def at(self, positions: Tensor) -> Rotation:
        """The rotation of tokens at these positions (tokens,)."""
        angles = positions[:, None].float() * self.frequencies.float()
        cos, sin = angles.cos() * self.scaling, angles.sin() * self.scaling
        return Rotation(torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1))


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


class Embedding(Protocol):
    """The first step: token ids → token embeddings."""

    def columns(self, texts: PackedTexts, device: torch.device) -> dict[str, Tensor]:
        """What it reads of texts beside their lengths: a name → int64, shape (tokens,).

        Args:
            texts: The batch.
            device: Where it is computed.
        """

    def __call__(self, columns: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The embeddings of all tokens, float32, shape (tokens, dim), in memory that nobody else has.

        Args:
            columns: What ``columns`` makes of the texts.
            batch: What the tokens are.
        """

    def counts_padding(self, pad_token_id: int | None) -> bool:
        """Whether padding is counted among the positions of a text, so that padding on the left shifts the text.

        Args:
            pad_token_id: The token that texts are padded with.
        """


@dataclass(frozen=True)
class TableEmbedding:
    """The sum of one row of each table, and what follows it.

    Args:
        tables: Name of a column, or ``positions`` → its table, shape (rows, dim).
        after: What happens to the sum; a norm, as a rule.
        padding_id: If there is one, positions are counted from the next number on, as RoBERTa does, and
            tokens with this id have it for a position.
    """

    tables: Sequence[tuple[str, Tensor]]
    after: Callable[[Tensor], Tensor]
    padding_id: int | None = None

    def columns(self, texts: PackedTexts, device: torch.device) -> dict[str, Tensor]:
        """What it reads of texts beside their lengths: the positions, too, where padding is among the tokens."""
        columns = {name: texts.columns[name] for name, _ in self.tables if name in texts.columns}
        if self.padding_id is not None:
            is_token = texts.columns["input_ids"][: texts.lengths.sum()] != self.padding_id
            if not is_token.all():
                columns["positions"] = self._positions(texts, is_token)
        return {name: array_to_device(column, device) for name, column in columns.items()}

    def __call__(self, columns: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The embeddings of all tokens."""
        return self.after(reduce(torch.add, (self._rows(*table, columns, batch) for table in self.tables)))

    def counts_padding(self, pad_token_id: int | None) -> bool:
        """Whether padding is counted among the positions of a text."""
        has_positions = any(name == "positions" for name, _ in self.tables)
        return has_positions and (self.padding_id is None or self.padding_id != pad_token_id)

    def _rows(self, name: str, table: Tensor, columns: Mapping[str, Tensor], batch: Batch) -> Tensor:
        if name in columns:
            return torch.embedding(table, columns[name])
        if name != "positions":
            return table[0]  # a tokenizer that gives no token types means type 0
        first = 0 if self.padding_id is None else self.padding_id + 1
        end = first + batch.texts.tokens
        if batch.texts.is_lone and end <= table.shape[0]:
            return table[first:end]  # the weights themselves, of which a sum is made
        return torch.embedding(table, batch.positions + first)

    def _positions(self, texts: PackedTexts, is_token: NDArray[np.bool_]) -> NDArray[np.int64]:
        counted = np.cumsum(is_token)
        starts = np.cumsum(texts.lengths) - texts.lengths
        before = np.repeat(np.concatenate(([0], counted))[starts], texts.lengths)
        return texts.filled((counted - before) * is_token + self.padding_id)


@dataclass(frozen=True)
class Batch:
    """What all layers share while they work on one batch.

    Args:
        texts: The batch, of which but the lengths count.
        device: Where it is computed.
    """

    texts: PackedTexts
    device: torch.device
    _rotations: dict[int, Rotation] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def attention(self) -> Attention:
        """The attention over its texts."""
        return attention_over(self.texts.lengths, self.device)

    @cached_property
    def positions(self) -> Tensor:
        """The place of each token in its text, shape (tokens,)."""
        return array_to_device(self.texts.positions, self.device)

    def rotation(self, rotary: RotaryEmbedding) -> Rotation:
        """The rotation of the batch's tokens, made once."""
        if id(rotary) not in self._rotations:
            self._rotations[id(rotary)] = rotary.at(self.positions)
        return self._rotations[id(rotary)]


class Head(Protocol):
    """What follows the token embeddings. Two that are equal do the same."""

    def __call__(self, tokens: Tensor, lengths: NDArray[np.int64]) -> Tensor:
        """What comes of token embeddings.

        Args:
            tokens: Those that are wanted of a batch, and perhaps filling; shape (places, dim).
            lengths: How many tokens each text of it has, shape (texts,).
        """


@dataclass(frozen=True)
class Encoder:
    """A transformer read into a flat list of layers; the weights of its linear layers may be copies.

    Args:
        embedding: The first step.
        layers: What follows; at least one.
        norm: The last step.
        dtype: The format of the products.
        device: Where it is computed.
        recordings: What was recorded of lone texts of few tokens.
    """

    embedding: Embedding
    layers: Sequence[Layer]
    norm: Norm
    dtype: torch.dtype
    device: torch.device
    recordings: Recordings = field(default_factory=Recordings, repr=False, compare=False)

    def __call__(
        self, texts: PackedTexts, places: NDArray[np.int64] | None = None, head: Head | None = None
    ) -> Tensor:
        """The token embeddings of a batch, those of filling mean nothing; or what a head makes of them.

        Args:
            texts: The batch.
            places: Those of the tokens of which they are wanted: most of the last layer is computed for no others.
                None for all.
            head: What follows, if anything does.

        Returns:
            Shape (places, dim), or what the head makes.
        """
        inputs = self.embedding.columns(texts, self.device)
        if places is not None:
            inputs["places"] = array_to_device(places, self.device)
        call = partial(self._computed, texts, tuple(inputs), head)
        if not texts.is_lone or texts.tokens >= FEW_TOKENS or self.device.type != "cpu":
            return call(*inputs.values())
        key = (texts.tokens, tuple(inputs), None if places is None else len(places), head)
        return self.recordings.computed(key, call, *inputs.values())

    def _computed(self, texts: PackedTexts, names: Sequence[str], head: Head | None, *inputs: Tensor) -> Tensor:
        """The same of tensors with these names; of the texts but the lengths count."""
        columns = dict(zip(names, inputs, strict=True))
        places, batch = columns.pop("places", None), Batch(texts, self.device)
        x = self.embedding(columns, batch)
        for layer in self.layers[:-1]:
            x = layer(x, batch)
        x = self.norm(self.layers[-1](x, batch, places))
        return x if head is None else head(x, texts.lengths)
