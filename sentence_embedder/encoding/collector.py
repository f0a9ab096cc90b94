"""Batches of Features → what ``encode`` returns, in the order in which the texts came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.features import Features
from sentence_embedder.quantization import as_numpy, check_calibration, quantize_embeddings, quantize_matrices
from sentence_embedder.similarity import normalize_embeddings, truncate_embeddings

Rows = NDArray[Any] | Tensor | list[Any]
"""What ``encode`` returns for several texts: an array or tensor (texts, dim), or a list of objects."""


class Collector(Protocol):
    """Takes the batches as they come."""

    def add(self, places: Sequence[int], features: Features) -> None:
        """Take a batch.

        Args:
            places: The place of each of its texts among all texts.
            features: What the modules made of them.
        """

    def finish(self) -> Rows:
        """All results, in the order of the texts."""


class SentenceEmbeddings:
    """Sentence embeddings, each put into its place of one array that is allocated once.

    Args:
        count: How many texts there are.
        options: What is asked for.
        dimension: Width of the embeddings, if it is known; for the result of no texts at all.
        device: Where the modules compute.

    Raises:
        ValueError: A single text in a precision that needs several.
    """

    def __init__(self, count: int, options: EncodeOptions, dimension: int | None, device: torch.device) -> None:
        check_calibration(options.precision, count)
        self._options = options
        self._count = count
        self._device = torch.device("cpu") if options.container == "numpy" else device
        self._rows = torch.empty(0, dimension or 0, device=self._device)

    def add(self, places: Sequence[int], features: Features) -> None:
        """Take a batch."""
        rows = truncate_embeddings(_feature(features, "sentence_embedding"), self._options.truncate_dim)
        if self._options.normalize_embeddings:
            rows = normalize_embeddings(rows)
        if len(self._rows) == 0:
            self._rows = rows.new_empty(self._count, *rows.shape[1:], device=self._device)
        self._rows[torch.tensor(places, device=self._device)] = rows.to(self._device)

    def finish(self) -> Rows:
        """All results, in the order of the texts."""
        container, precision = self._options.container, self._options.precision
        if precision != "float32":
            quantized = quantize_embeddings(self._rows, precision)
            if container == "numpy":
                return quantized
            self._rows = torch.from_numpy(quantized)
        if container == "numpy":
            return as_numpy(self._rows)
        return self._rows if container == "tensor" else list(self._rows.unbind(0))


class _PerText:
    """Results that are one object a text, in a list.

    Args:
        count: How many texts there are.
        options: What is asked for.
    """

    def __init__(self, count: int, options: EncodeOptions) -> None:
        self._options = options
        self._rows: list[Any] = [None] * count

    def finish(self) -> Rows:
        """All results, in the order of the texts."""
        return self._rows


class TokenEmbeddings(_PerText):
    """Token embeddings: for each text a tensor (tokens, dim) without padding, on the device of the modules.

    Quantised, they are arrays, with one range a dimension over the tokens of all texts.
    """

    def add(self, places: Sequence[int], features: Features) -> None:
        """Take a batch."""
        for place, tokens, mask in zip(
            places, _feature(features, "token_embeddings"), _feature(features, "attention_mask"), strict=True
        ):
            self._rows[place] = tokens[mask.bool()]

    def finish(self) -> Rows:
        """All results, in the order of the texts."""
        if self._options.precision == "float32":
            return super().finish()
        return list(quantize_matrices(self._rows, self._options.precision))


class AllFeatures(_PerText):
    """All features: for each text a dict, its sentence embedding cut but not normalised."""

    def add(self, places: Sequence[int], features: Features) -> None:
        """Take a batch."""
        cut = truncate_embeddings(_feature(features, "sentence_embedding"), self._options.truncate_dim)
        features = {**features, "sentence_embedding": cut}
        for row, place in enumerate(places):
            self._rows[place] = {name: _row_of(value, row, len(places)) for name, value in features.items()}


def collector_for(count: int, options: EncodeOptions, *, dimension: int | None, device: torch.device) -> Collector:
    """The collector for the output that is asked for; arguments as for ``SentenceEmbeddings``."""
    if options.output_value == "sentence_embedding":
        return SentenceEmbeddings(count, options, dimension, device)
    return TokenEmbeddings(count, options) if options.output_value else AllFeatures(count, options)


def _feature(features: Features, name: str) -> Tensor:
    if name not in features:
        raise ValueError(
            f"expected {name} from the modules, found {sorted(features)}: a Transformer makes token_embeddings, "
            "and of these a Pooling makes one sentence_embedding"
        )
    feature: Tensor = features[name]
    return feature


def _row_of(value: Any, row: int, count: int) -> Any:
    """The part of a feature that is a text's own; what belongs to the batch as a whole stays whole."""
    if isinstance(value, Tensor):
        return value[row] if value.ndim > 0 and len(value) == count else value
    if isinstance(value, tuple):  # one tensor a layer
        return tuple(_row_of(layer, row, count) for layer in value)
    is_per_text = isinstance(value, (list, np.ndarray)) and len(value) == count
    return value[row] if is_per_text else value
