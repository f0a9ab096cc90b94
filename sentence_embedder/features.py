"""What travels between the modules of a model: Features, and the token ids that they are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Features = dict[str, Any]
"""What one module hands to the next, for a batch of texts.

Key → value: ``input_ids``, ``attention_mask`` and (for some tokenizers) ``token_type_ids``, each an int64
tensor of shape (texts, tokens); ``token_embeddings`` (texts, tokens, dim); ``sentence_embedding``
(texts, dim); ``prompt_length``, an int: how many tokens the prompt takes; ``text_keys``, a list of str.
"""

PaddingSide = Literal["left", "right"]


@dataclass(frozen=True, kw_only=True)
class TokenizedTexts:
    """Texts as token ids, not yet padded.

    Args:
        columns: Name of a feature → for each text its numbers, an int array of shape (tokens,).
        pad_values: Name of a feature → the number that fills the shorter texts of a batch.
        padding_side: The side on which the shorter texts are filled.
        text_keys: For each text the key under which it came, None for one without; if any came with one.
    """

    columns: Mapping[str, Sequence[NDArray[np.int32]]]
    pad_values: Mapping[str, int]
    padding_side: PaddingSide = "right"
    text_keys: Sequence[str | None] | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each text has, shape (texts,)."""
        return np.array([len(ids) for ids in self.columns["input_ids"]], dtype=np.int64)

    def batch(self, rows: Sequence[int]) -> Features:
        """The texts at the given places as one padded batch, in the order given."""
        lengths = [len(self.columns["input_ids"][row]) for row in rows]
        features: Features = {
            name: self._padded([column[row] for row in rows], self.pad_values[name])
            for name, column in self.columns.items()
        }
        features["attention_mask"] = self._padded([np.ones(length, dtype=np.int32) for length in lengths], 0)
        if self.text_keys is not None:
            features["text_keys"] = [self.text_keys[row] for row in rows]
        return features

    def _padded(self, sequences: Sequence[NDArray[np.int32]], pad_value: int) -> Tensor:
        # A batch of empty texts still gets a column: models do not run on no tokens at all.
        width = max((1, *(len(sequence) for sequence in sequences)))
        padded = np.full((len(sequences), width), pad_value, dtype=np.int64)
        for row, sequence in zip(padded, sequences, strict=True):
            if self.padding_side == "right":
                row[: len(sequence)] = sequence
            else:
                row[width - len(sequence) :] = sequence
        return torch.from_numpy(padded)


def to_device(features: Mapping[str, Any], device: torch.device) -> Features:
    """The same features with every tensor on the device; what was handed in stays as it is."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
        for name, value in features.items()
    }


def batch_to_device(batch: dict[str, Any], target_device: torch.device | str) -> dict[str, Any]:
    """Move the tensors of a batch to a device, in place, and return the same dict.

    In place because that is what its callers rely on: many ignore what it returns. ``to_device`` makes a
    new dict instead.
    """
    batch.update(to_device(batch, torch.device(target_device)))
    return batch
