"""How a batch of texts goes through the modules: as they are, or by a faster way to the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sentence_embedder.acceleration.encoder import Encoder, Head
from sentence_embedder.acceleration.shadow import Shadow
from sentence_embedder.acceleration.sizes import rounded_up
from sentence_embedder.features import (
    BatchSource,
    Features,
    PackedTexts,
    Places,
    TokenizedTexts,
    array_to_device,
    feature_of,
    to_device,
)
from sentence_embedder.forks import between_forks
from sentence_embedder.formats import PoolingMode
from sentence_embedder.grad_mode import inference_mode
from sentence_embedder.models import Normalize, Pooling
from sentence_embedder.models.pooling import pool_packed
from sentence_embedder.models.transformer import forward_through
from sentence_embedder.similarity import normalize_embeddings

_TOKENS_ON_CPU = 768
"""So many are enough for a product at full speed, and what is computed of them stays near; of halves, twice."""

_TOKENS_ON_GPU = 32_768
"""So many keep a large GPU busy between two launches."""

_NORMALIZES = Normalize().config
"""The settings of a Normalize that reads sentence embeddings, and puts others into their place."""


class Forward(Protocol):
    """A way through the modules."""

    @property
    def batch_tokens(self) -> int | None:
        """How many tokens a batch should have for the processor to be at its best; several threads may then compute
        a batch each. None if batches have a number of texts.
        """

    @property
    def is_padded(self) -> bool:
        """Whether texts are padded to the longest of a batch, which then is of ``batch_size`` texts at most."""

    def __call__(self, source: Any, rows: Places, least_tokens: int = 0) -> Features:
        """The Features that the modules make of some texts.

        Args:
            source: The texts.
            rows: The places of those that are wanted.
            least_tokens: To how many tokens a packed batch is filled up at least.
        """


@dataclass(frozen=True)
class PlainForward:
    """Padded batches through the modules as they are.

    Args:
        model: Features → Features.
        device: Where it computes.
        extra: Features of the batch as a whole.
    """

    is_padded: ClassVar[bool] = True

    model: Callable[[Features], Features]
    device: torch.device
    extra: Mapping[str, Any]

    @property
    def batch_tokens(self) -> int | None:
        """None: who knows what the modules expect."""
        return None

    def __call__(self, source: BatchSource, rows: Places, least_tokens: int = 0) -> Features:
        """The Features that the modules make of some texts."""
        del least_tokens
        with between_forks(), torch.no_grad():
            return self.model(to_device({**source.batch(rows), **self.extra}, self.device))


@dataclass(frozen=True)
class ShadowForward:
    """Padded batches through a shadow of a model, and the modules that follow it.

    Args:
        shadow: Stands for the model of the Transformer.
        modules: What follows the Transformer.
        output_value: The feature that is wanted; None for all.
        device: Where they compute.
        extra: Features of the batch as a whole.
        are_shared_out: Whether texts may be put together in any way, and threads compute a batch each.
    """

    is_padded: ClassVar[bool] = True

    shadow: Shadow
    modules: Sequence[nn.Module]
    output_value: str | None
    device: torch.device
    extra: Mapping[str, Any]
    are_shared_out: bool

    @property
    def batch_tokens(self) -> int | None:
        """How many tokens a batch should have, if threads may compute one each."""
        return _tokens_on_cpu(self.shadow.dtype) if self.are_shared_out else None

    def __call__(self, source: BatchSource, rows: Places, least_tokens: int = 0) -> Features:
        """The Features that the modules make of some texts; with token embeddings which of them are tokens."""
        del least_tokens
        with between_forks(), torch.no_grad():
            batch = to_device({**source.batch(rows), **self.extra}, self.device)
            # Outside of it each product takes a detour to where gradients would be recorded.
            with self.shadow.lent() as model, inference_mode():
                features = forward_through(model, batch)
            features["token_embeddings"] = features["token_embeddings"].clone()  # of no mode, as what comes below
            for module in self.modules:
                features = module(features)
        return features if self.output_value is None else _wanted(features, self.output_value)


@dataclass(frozen=True)
class PackedForward:
    """Packed batches through an encoder, padded for the modules that follow it if they need it.

    Args:
        encoder: Stands for the Transformer.
        modules: What follows the Transformer.
        output_value: The feature that is wanted.
        device: Where they compute.
        extra: Features of the batch as a whole.
    """

    is_padded: ClassVar[bool] = False

    encoder: Encoder
    modules: Sequence[nn.Module]
    output_value: str
    device: torch.device
    extra: Mapping[str, Any]

    @property
    def batch_tokens(self) -> int | None:
        """How many tokens a batch should have."""
        return _tokens_on_cpu(self.encoder.dtype) if self.device.type == "cpu" else _TOKENS_ON_GPU

    def __call__(self, source: TokenizedTexts, rows: Places, least_tokens: int = 0) -> Features:
        """The feature that is wanted; with token embeddings which of them are tokens: the others are zeros."""
        with between_forks(), torch.no_grad():
            packed = source.packed(rows)
            pooling = None if packed.has_empty else self._packed_pooling
            if pooling is None:
                made, following = self._padded(packed, least_tokens), self.modules
            else:
                following = self.modules[1:]
                normalizes = len(following) > 0 and _only_normalizes(following[0])
                made = self._pooled(packed, least_tokens, pooling, normalizes=normalizes)
                following = following[1:] if normalizes else following
            features = {**self.extra, **made}
            for module in following:
                features = module.forward(features)  # as written, and without hooks: else there is another way
        return _wanted(features, self.output_value)

    def _encoded(
        self,
        packed: PackedTexts,
        least_tokens: int,
        places: NDArray[np.int64] | None = None,
        head: Head | None = None,
    ) -> Tensor:
        """What the encoder makes of a batch that is filled up."""
        packed = packed.filled_up(self._size(packed.tokens, least_tokens))
        if places is not None and (missing := self._size(len(places)) - len(places)):
            places = np.concatenate((places, np.zeros(missing, dtype=np.int64)))
        # No longer than that: who listens to a module that follows may keep what it sees for gradients.
        with inference_mode():
            return self.encoder(packed, places, head)

    def _size(self, tokens: int, least: int = 0) -> int:
        """The size to which a batch is filled up. Only products on the CPU are made for a size; elsewhere only what
        has no tokens at all is filled up.
        """
        return rounded_up(max(tokens, least)) if self.device.type == "cpu" else max(tokens, 1)

    def _pooled(self, packed: PackedTexts, least_tokens: int, pooling: Pooling, *, normalizes: bool) -> Features:
        """What a Transformer and a Pooling, and perhaps a Normalize, make of a batch."""
        places = pooling.places(packed.lengths) if pooling.takes_one_token else None
        head = _PoolingHead(None if places is not None else tuple(pooling.config.pooling_modes), normalizes)
        pooled = self._encoded(packed, least_tokens, places, head)
        return {"sentence_embedding": pooled.clone()}  # of no mode, as what comes below

    @property
    def _packed_pooling(self) -> Pooling | None:
        """The Pooling, if it takes packed texts, and nobody else needs their token embeddings."""
        pooling = self.modules[0] if self.modules else None
        if type(pooling) is not Pooling or not pooling.takes_packed:
            return None
        # Elsewhere than on the CPU a sum of packed texts would be made in any order.
        if self.device.type != "cpu" and not pooling.takes_one_token:
            return None
        is_wanted = self.output_value == "sentence_embedding" and all(
            _reads(module) == "sentence_embedding" for module in self.modules[1:]
        )
        leaves_prompt_out = "prompt_length" in self.extra and not pooling.include_prompt
        return pooling if is_wanted and not leaves_prompt_out else None

    def _padded(self, packed: PackedTexts, least_tokens: int) -> Features:
        """What a Transformer makes of a padded batch."""
        tokens = self._encoded(packed, least_tokens)[: packed.tokens]
        mask = packed.mask
        if mask.all():
            tokens = tokens.clone()  # of no mode, as what comes below
        else:
            places = array_to_device(mask.ravel().nonzero()[0], self.device)
            tokens = tokens.new_zeros(mask.size, tokens.shape[-1]).index_copy_(0, places, tokens)
        return {
            "token_embeddings": tokens.view(*mask.shape, -1),
            "attention_mask": array_to_device(mask.astype(int), self.device),
        }


@dataclass(frozen=True)
class _PoolingHead:
    """What pools token embeddings.

    Args:
        modes: How; None if they are the embeddings already.
        normalizes: Whether the embeddings are scaled to length 1.
    """

    modes: tuple[PoolingMode, ...] | None
    normalizes: bool

    def __call__(self, tokens: Tensor, lengths: NDArray[np.int64]) -> Tensor:
        """The embeddings, shape (texts, dim of the embedding)."""
        real = int(lengths.sum()) if self.modes is not None else len(lengths)
        pooled = tokens if real == tokens.shape[0] else tokens[:real]
        if self.modes is not None:
            pooled = pool_packed(pooled, lengths, self.modes)
        return normalize_embeddings(pooled) if self.normalizes else pooled


def _only_normalizes(module: nn.Module) -> bool:
    """Whether a module does nothing but scale sentence embeddings to length 1."""
    return type(module) is Normalize and module.config == _NORMALIZES


def _tokens_on_cpu(dtype: torch.dtype) -> int:
    return _TOKENS_ON_CPU if dtype == torch.float32 else 2 * _TOKENS_ON_CPU


def _wanted(features: Features, output_value: str) -> Features:
    """A feature, with token embeddings which of them are tokens. Batches wait for each other: the rest is not kept
    until then.
    """
    wanted = {output_value: feature_of(features, output_value)}
    if output_value == "token_embeddings":
        wanted["attention_mask"] = feature_of(features, "attention_mask")
    return wanted


def _reads(module: nn.Module) -> str:
    """The feature that a module of this package reads."""
    if isinstance(module, Pooling):
        return "token_embeddings"
    name: str = getattr(module.config, "module_input_name", "sentence_embedding")
    return name
