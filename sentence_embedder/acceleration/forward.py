"""How a batch of texts goes through the modules: as they are, or by a faster way to the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.features import BatchSource, Features, Places, TokenizedTexts, array_to_device, to_device


class Forward(Protocol):
    """A way through the modules."""

    @property
    def is_packed(self) -> bool:
        """Whether texts are laid end to end. Batches may then have any number of texts, and several threads may
        compute one each.
        """

    def __call__(self, source: Any, rows: Places) -> Features:
        """The Features that the modules make of the texts at the given places."""


@dataclass(frozen=True)
class PlainForward:
    """Padded batches through the modules as they are.

    Args:
        model: Features → Features.
        device: Where it computes.
        extra: Features of the batch as a whole.
    """

    model: Callable[[Features], Features]
    device: torch.device
    extra: Mapping[str, Any]

    @property
    def is_packed(self) -> bool:
        """False."""
        return False

    @torch.no_grad()
    def __call__(self, source: BatchSource, rows: Places) -> Features:
        """The Features that the modules make of the texts at the given places."""
        return self.model(to_device({**source.batch(rows), **self.extra}, self.device))


@dataclass(frozen=True)
class PackedForward:
    """Packed batches through an encoder, padded for the modules that follow it.

    Args:
        encoder: Stands for the Transformer.
        modules: What follows the Transformer.
        device: Where they compute.
        extra: Features of the batch as a whole.
    """

    encoder: Encoder
    modules: Sequence[nn.Module]
    device: torch.device
    extra: Mapping[str, Any]

    @property
    def is_packed(self) -> bool:
        """True."""
        return True

    @torch.no_grad()
    def __call__(self, source: TokenizedTexts, rows: Places) -> Features:
        """What the modules make of the texts at the given places; nothing stands at padding but zeros."""
        packed = source.packed(rows)
        mask = packed.mask
        tokens = self.encoder(packed)
        if mask.all():
            embeddings = tokens.view(*mask.shape, -1)
        else:
            places = array_to_device(mask.ravel().nonzero()[0], self.device)
            padded = tokens.new_zeros(mask.size, tokens.shape[-1]).index_copy_(0, places, tokens)
            embeddings = padded.view(*mask.shape, -1)
        features: Features = {
            **self.extra,
            "token_embeddings": embeddings,
            "attention_mask": array_to_device(mask.astype(int), self.device),
        }
        for module in self.modules:
            features = module(features)
        return features
