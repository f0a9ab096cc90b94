"""What travels between the modules of a model: Features, and the token ids that they are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Protocol

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

Places = Sequence[int] | NDArray[np.int64]
"""Which texts, by their place among all texts."""

PaddingSide = Literal["left", "right"]


class BatchSource(Protocol):
    """Texts that become Features, batch by batch."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How long each text is, in tokens or, where these are not known yet, in characters."""

    def batch(self, rows: Places) -> Features:
        """The Features of the texts at the given places."""


@dataclass(frozen=True, kw_only=True)
class PackedTexts:
    """A batch of texts laid end to end, without padding.

    Args:
        columns: Name of a feature → its numbers, int64 arrays of shape (tokens of all texts,); what follows the
            last text is filling, of no text.
        lengths: How many tokens each text has, shape (texts,).
        padding_side: The side on which shorter texts are filled where a batch is padded after all.
    """

    columns: Mapping[str, NDArray[np.int64]]
    lengths: NDArray[np.int64]
    padding_side: PaddingSide = "right"

    @property
    def tokens(self) -> int:
        """How many tokens there are, those of the filling included."""
        return len(self.columns["input_ids"])

    @property
    def is_lone(self) -> bool:
        """Whether it is one text, without filling."""
        return len(self.lengths) == 1 and bool(self.lengths[0] == self.tokens)

    @property
    def has_empty(self) -> bool:
        """Whether a text has no tokens."""
        return bool(self.lengths[0] == 0) if len(self.lengths) == 1 else not self.lengths.all()

    @property
    def positions(self) -> NDArray[np.int64]:
        """The place of each token in its text, shape (tokens of all texts,); 0 for what is filling."""
        if len(self.lengths) == 1:
            return self.filled(np.arange(self.lengths[0]))
        ends = np.cumsum(self.lengths)
        return self.filled(np.arange(self.lengths.sum()) - np.repeat(ends - self.lengths, self.lengths))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Whether a place of the padded batch holds a token, shape (texts, tokens of the longest)."""
        return self.mask_of(0)

    def mask_of(self, width: int) -> NDArray[np.bool_]:
        """The same for a batch that is padded to so many tokens, or to more if its longest text has more."""
        # A batch of empty texts still gets a column: models do not run on no tokens at all.
        width = max(1, width, int(self.lengths.max(initial=0)))
        places = np.arange(width)
        if self.padding_side == "left":
            places = places[::-1]
        return places < self.lengths[:, None]

    def filled_up(self, tokens: int) -> PackedTexts:
        """The same texts, followed by as much filling as makes up so many tokens."""
        if tokens == self.tokens:
            return self
        missing = np.zeros(tokens - self.tokens, dtype=np.int64)
        return replace(
            self, columns={name: np.concatenate((column, missing)) for name, column in self.columns.items()}
        )

    def filled(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Numbers of the tokens of all texts, followed by a zero for each token of the filling."""
        if len(numbers) == self.tokens:
            return numbers
        return np.concatenate((numbers, np.zeros(self.tokens - len(numbers), dtype=np.int64)))


@dataclass(frozen=True, kw_only=True)
class TokenizedTexts:
    """Texts as token ids, not yet padded.

    Args:
        columns: Name of a feature → the numbers of all texts end to end, shape (tokens of all texts,).
        lengths: How many tokens each text has, shape (texts,).
        pad_values: Name of a feature → the number that fills the shorter texts of a batch.
        padding_side: The side on which the shorter texts are filled.
        text_keys: For each text the key under which it came, None for one without; if any came with one.
        cut: The places of those that had more tokens than are kept, ascending.
    """

    columns: Mapping[str, NDArray[np.int32]]
    lengths: NDArray[np.int64]
    pad_values: Mapping[str, int]
    padding_side: PaddingSide = "right"
    text_keys: Sequence[str | None] | None = None
    cut: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def packed(self, rows: Places) -> PackedTexts:
        """The texts at the given places as one batch without padding, in the order given."""
        if len(rows) == len(self.lengths) == 1:  # a lone text is what callers wait for
            columns = {name: column.astype(np.int64) for name, column in self.columns.items()}
            return PackedTexts(columns=columns, lengths=self.lengths, padding_side=self.padding_side)
        lengths = self.lengths[rows]
        ends = np.cumsum(lengths)
        # Each text's first token in the columns, less its place in the batch, plus the places in the batch.
        shifts = self._starts[rows] - (ends - lengths)
        tokens = np.repeat(shifts, lengths) + np.arange(lengths.sum())
        columns = {name: column[tokens].astype(np.int64) for name, column in self.columns.items()}
        return PackedTexts(columns=columns, lengths=lengths, padding_side=self.padding_side)

    def batch(self, rows: Places, width: int = 0) -> Features:
        """The texts at the given places as one padded batch, in the order given.

        Args:
            rows: The places.
            width: To how many tokens they are padded at least.
        """
        packed = self.packed(rows)
        mask = packed.mask_of(width)
        features: Features = {}
        for name, column in packed.columns.items():
            padded = np.full(mask.shape, self.pad_values[name], dtype=np.int64)
            padded[mask] = column
            features[name] = torch.from_numpy(padded)
        features["attention_mask"] = torch.from_numpy(mask.astype(np.int64))
        if self.text_keys is not None:
            features["text_keys"] = [self.text_keys[row] for row in rows]
        return features

    def least_width(self, padding: str | bool, limit: int | None) -> int:
        """To how many tokens all texts are padded at least, for a batch of them.

        Args:
            padding: True or ``"longest"``: as many as the longest has; ``"max_length"``: as many as the model
                reads; False or ``"do_not_pad"``: none, of texts of one length.
            limit: How many tokens the model reads, if that is limited.

        Raises:
            ValueError: There is no such padding, or none of texts of several lengths.
        """
        if padding is True or padding == "longest":
            return 0
        if padding == "max_length" and limit is not None:
            return limit
        if padding is False or padding == "do_not_pad":
            if len(set(self.lengths.tolist())) > 1:
                raise ValueError(
                    f"padding: expected some, for texts of {sorted(set(self.lengths.tolist()))} tokens"
                )
            return 0
        raise ValueError(
            "padding: expected True, False, 'longest', 'do_not_pad' or, if there is a limit, 'max_length', "
            f"found {padding!r}"
        )

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The place of each text's first token in the columns, shape (texts,)."""
        return np.cumsum(self.lengths) - self.lengths


def feature_of(features: Features, name: str) -> Tensor:
    """What the modules have made under a name.

    Raises:
        ValueError: They have not made it.
    """
    if name not in features:
        raise ValueError(
            f"expected {name} from the modules, found {sorted(features)}: a Transformer makes token_embeddings, "
            "and of these a Pooling makes one sentence_embedding"
        )
    feature: Tensor = features[name]
    return feature


def to_device(features: Mapping[str, Any], device: torch.device) -> Features:
    """The same features with every tensor on the device; what was handed in stays as it is."""
    return {name: _moved(value, device) if isinstance(value, Tensor) else value for name, value in features.items()}


def array_to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor on the device."""
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else _moved(tensor, device)


def memory_of(tensor: Tensor) -> NDArray[Any]:
    """The memory of a tensor on the CPU as an array of whole numbers of the same size: numpy lacks some formats."""
    array: NDArray[Any] = tensor.view(_WHOLE_NUMBERS[tensor.itemsize]).numpy()
    return array


def tensor_of(memory: NDArray[Any], dtype: torch.dtype) -> Tensor:
    """The tensor of a format whose memory an array is; the reverse of ``memory_of``."""
    return torch.from_numpy(memory).view(dtype)


_WHOLE_NUMBERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Size in bytes → format."""


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    # From pinned memory a GPU fetches it while other work goes on; from elsewhere it is waited for.
    pinned = device.type == "cuda" and tensor.device.type == "cpu"
    return (tensor.pin_memory() if pinned else tensor).to(device, non_blocking=True)


def batch_to_device(batch: dict[str, Any], target_device: torch.device | str) -> dict[str, Any]:
    """Move the tensors of a batch to a device, in place, and return the same dict.

    In place because that is what its callers rely on: many ignore what it returns. ``to_device`` makes a
    new dict instead.
    """
    batch.update(to_device(batch, torch.device(target_device)))
    return batch
