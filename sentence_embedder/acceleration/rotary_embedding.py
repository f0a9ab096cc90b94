"""Rotary position embedding: queries and keys turned by their places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
