"""Batch: what the layers of an encoder share."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from sentence_embedder.acceleration.attention import Attention, attention_over
from sentence_embedder.acceleration.rotary_embedding import RotaryEmbedding, Rotation
from sentence_embedder.features import PackedTexts, array_to_device


@dataclass(frozen=True)
class Batch:
    """What all layers share while they work on one batch.

    Args:
        texts: The batch, of which only the lengths count.
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
