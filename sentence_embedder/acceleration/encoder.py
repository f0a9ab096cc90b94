"""Encoder: a transformer as a flat list of layers, run on packed texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.acceleration.attention import FEW_TOKENS
from sentence_embedder.acceleration.batch import Batch
from sentence_embedder.acceleration.embedding import TableEmbedding
from sentence_embedder.acceleration.layers import Layer
from sentence_embedder.acceleration.norms import Norm
from sentence_embedder.acceleration.recording import Recordings
from sentence_embedder.features import PackedTexts, array_to_device


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

    embedding: TableEmbedding
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
        if len(texts.lengths) != 1 or texts.lengths[0] >= FEW_TOKENS or self.device.type != "cpu":
            return call(*inputs.values())
        key = (*texts.lengths, texts.tokens, tuple(inputs), None if places is None else len(places), head)
        return self.recordings.computed(key, call, *inputs.values())

    def _computed(self, texts: PackedTexts, names: Sequence[str], head: Head | None, *inputs: Tensor) -> Tensor:
        """The same of tensors with these names; of the texts only the lengths count."""
        columns = dict(zip(names, inputs, strict=True))
        places, batch = columns.pop("places", None), Batch(texts, self.device)
        x = self.embedding(columns, batch)
        for layer in self.layers[:-1]:
            x = layer(x, batch)
        x = self.norm(self.layers[-1](x, batch, places))
        return x if head is None else head(x, texts.lengths)
