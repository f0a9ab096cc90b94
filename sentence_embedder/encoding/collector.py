"""Batches of Features → what ``encode`` returns, in the order in which the texts came."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.encoding.inputs import DistinctTexts
from sentence_embedder.encoding.nonfinite import NonFiniteError, NonFiniteRows, are_finite
from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.features import Features, Places, array_to_device, feature_of, memory_of, tensor_of
from sentence_embedder.quantization.precision import (
    as_numpy,
    check_calibration,
    quantize_embeddings,
    quantize_matrices,
)
from sentence_embedder.similarity import normalize_embeddings, truncate_embeddings

Rows = NDArray[Any] | Tensor | list[Any]
"""What ``encode`` returns for several texts: an array or tensor (texts, dim), or a list of objects."""


Output = NDArray[Any] | Tensor
"""An array of the caller's that takes the embeddings: (texts, dim)."""

_NO_ROWS = torch.empty(0, 0)
"""What there is before the first batch."""

_ROWS_ON_DEVICE = 16_384
"""So many embeddings are brought back from a GPU together: each time, it is waited for."""


class Collector(Protocol):
    """Takes the batches as they come."""

    def add(self, places: Places, features: Features) -> None:
        """Take a batch.

        Args:
            places: The place of each of its texts among all texts.
            features: What the modules made of them.
        """

    def put(self, places: Places, results: Any) -> None:
        """Take results that somebody else has collected, cut and normalised, but not quantised.

        Args:
            places: The place of each of their texts among all texts.
            results: A tensor of sentence embeddings (texts, dim), or a list with one object a text.
        """

    def settle(self) -> None:
        """Look at all that has come: only then is it known which results are not finite."""

    def finish(self) -> Rows:
        """All results, in the order of the texts."""


class SentenceEmbeddings:
    """Sentence embeddings, each put into its place of one array that is allocated once.

    Args:
        texts: Which of the texts are computed, and which are equal to one of these.
        options: What is asked for.
        dimension: Width of the embeddings, if it is known; needed only for the result of no texts at all.
        device: Where the modules compute.
        out: The array to put them into, if there is one.
        nonfinite: Told which rows are not finite.
        ranges: Minimum and maximum of each dimension for int8 and uint8, shape (2, dim), if they are known.

    Raises:
        ValueError: A single text in a precision that needs several, or an ``out`` that does not fit.
    """

    def __init__(
        self,
        texts: DistinctTexts,
        options: EncodeOptions,
        dimension: int | None,
        device: torch.device,
        out: Output | None = None,
        *,
        nonfinite: NonFiniteRows | None = None,
        ranges: NDArray[Any] | None = None,
    ) -> None:
        if ranges is None:
            check_calibration(options.precision, texts.count)
        self._ranges = ranges
        self._nonfinite = NonFiniteRows() if nonfinite is None else nonfinite
        self._texts = texts
        self._options = options
        self._device = torch.device("cpu") if options.container == "numpy" else device
        self._out = out
        self._rows = _NO_ROWS
        if not texts.count:
            self._rows = torch.empty(0, dimension or 0, dtype=torch.float32, device=self._device)
        self._are_in_out = False
        if out is not None:
            _check_output(out, texts.count, options)
            view = _as_tensor(out)
            if view is not None and options.precision == "float32":
                self._rows, self._are_in_out = view, True
        self._waiting: list[tuple[NDArray[np.int64], Tensor]] = []

    def add(self, places: Places, features: Features) -> None:
        """Take a batch."""
        rows = truncate_embeddings(feature_of(features, "sentence_embedding"), self._options.truncate_dim)
        if self._options.normalize_embeddings:
            rows = normalize_embeddings(rows)
        self.put(places, rows)

    def put(self, places: Places, results: Tensor) -> None:
        """Take embeddings that are cut and normalised."""
        rows = results
        if self._rows.shape[0] == 0:
            # A lone text is what callers wait for.
            if self._texts.count == len(rows) == 1 and rows.ndim > 1 and self._out is None:
                self._rows = rows.detach().to(self._device, copy=True)
                self._nonfinite.look_at(self._texts.computed, self._rows)
                return
            self._rows = rows.new_empty(self._texts.count, *rows.shape[1:], device=self._device)
            self._check_out(rows.shape[1])
        elif rows.shape[1:] != self._rows.shape[1:]:
            what, expected = "embeddings" if self._out is None else "out", (self._texts.count, *rows.shape[1:])
            raise ValueError(f"{what}: expected the shape {expected}, found {tuple(self._rows.shape)}")
        if rows.device == self._rows.device:
            self._take(self._texts.computed[places], rows)
            return
        self._waiting.append((self._texts.computed[places], rows))
        if sum(len(waiting) for _, waiting in self._waiting) >= _ROWS_ON_DEVICE:
            self.settle()

    def _check_out(self, dimension: int) -> None:
        """Raise a ValueError unless the array that is to take embeddings in the end is as wide as they will be."""
        if self._out is None or self._are_in_out:
            return
        precision = self._options.precision
        width = -(-dimension // 8) if precision in ("binary", "ubinary") else dimension
        expected = (self._texts.count, width)
        if tuple(self._out.shape) != expected:
            raise ValueError(f"out: expected the shape {expected} for {precision}, found {tuple(self._out.shape)}")

    def settle(self) -> None:
        """Put the embeddings that wait into their places: only then is it known which are not finite."""
        if self._waiting:
            places, rows = zip(*self._waiting, strict=True)
            joined = rows[0] if len(rows) == 1 else torch.cat(rows)
            self._take(np.concatenate(places), joined.to(self._rows.device))
            self._waiting.clear()

    def _take(self, places: NDArray[np.int64], rows: Tensor) -> None:
        rows = rows.to(self._rows.dtype)
        self._nonfinite.look_at(places, rows)
        _put(self._rows, places, rows)

    def finish(self) -> Rows:
        """All results, in the order of the texts."""
        self.settle()
        nonfinite = self._nonfinite.places
        if len(nonfinite):
            _put(self._rows, nonfinite, self._rows.new_full((len(nonfinite), *self._rows.shape[1:]), float("nan")))
            self._nonfinite.repeat(self._texts)
        for places, originals in self._texts.repeated():
            here = self._rows.device
            _put(self._rows, places, self._rows[array_to_device(originals, here)])
        if len(nonfinite) and self._options.precision != "float32":
            raise NonFiniteError(self._nonfinite.rows, as_numpy(self._rows), precision=self._options.precision)
        if self._out is not None:
            return self._finished_in(self._out)
        container, precision = self._options.container, self._options.precision
        if precision != "float32":
            quantized = quantize_embeddings(self._rows, precision, self._ranges)
            if container == "numpy":
                return quantized
            self._rows = torch.from_numpy(quantized)
        if container == "numpy":
            return as_numpy(self._rows)
        return self._rows if container == "tensor" else list(self._rows.unbind(0))

    def _finished_in(self, out: Output) -> Output:
        if self._are_in_out or not self._texts.count:
            return out
        precision = self._options.precision
        is_quantized = precision != "float32"
        rows = quantize_embeddings(self._rows, precision, self._ranges) if is_quantized else as_numpy(self._rows)
        if isinstance(out, Tensor):
            out.copy_(torch.from_numpy(rows))
        else:
            out[...] = rows
        return out


def _as_tensor(out: Output) -> Tensor | None:
    """An array as a tensor of the same memory; None if no tensor goes through memory as it does: backwards, say."""
    try:
        return out if isinstance(out, Tensor) else torch.from_numpy(out)
    except ValueError:
        return None


def _put(target: Tensor, places: NDArray[np.int64], rows: Tensor) -> None:
    """Put rows into their places of a target of the same format on the same device."""
    if target.device.type == "cpu":
        # By numpy: torch would do it with all of its threads, and take processors from those that compute a batch.
        memory_of(target)[places] = memory_of(rows)
        torch.autograd.graph.increment_version(target)
    else:
        target[array_to_device(places, target.device)] = rows


def _check_output(out: Output, count: int, options: EncodeOptions) -> None:
    """Raise a ValueError unless an array can take the embeddings of so many texts."""
    kind = {"numpy": np.ndarray, "tensor": Tensor}.get(options.container)
    if kind is None or not isinstance(out, kind) or options.output_value != "sentence_embedding":
        raise ValueError(
            "out: expected an array for sentence embeddings as an array, or a tensor with convert_to_tensor=True, "
            f"found {type(out).__name__}"
        )
    if out.ndim != 2 or len(out) != count:
        raise ValueError(f"out: expected the shape ({count}, dim), found {tuple(out.shape)}")
    expected = _OUTPUT_FORMATS[options.precision]
    found = str(out.dtype).removeprefix("torch.")
    if found not in expected:
        raise ValueError(f"out: expected {' or '.join(expected)} for {options.precision}, found {found}")
    if isinstance(out, Tensor) and out.requires_grad:
        raise ValueError("out: expected a tensor that needs no gradient, found one with requires_grad=True")
    if isinstance(out, Tensor) and (out.layout != torch.strided or out.is_meta):
        raise ValueError(f"out: expected a dense tensor in memory, found {out.layout} on {out.device}")
    if isinstance(out, np.ndarray) and not out.flags.writeable:
        raise ValueError("out: expected an array that can be written to: open a memmap with mode 'r+' or 'w+'")


_OUTPUT_FORMATS: Mapping[str, tuple[str, ...]] = {
    "float32": ("float32", "float16", "bfloat16", "float64"),
    "int8": ("int8",),
    "uint8": ("uint8",),
    "binary": ("int8",),
    "ubinary": ("uint8",),
}
"""Precision → the formats that an ``out`` may have."""


class _PerText(ABC):
    """Results that are one object a text, in a list.

    Args:
        texts: Which of the texts are computed.
        options: What is asked for.
        nonfinite: Told which texts have results that are not finite.
    """

    def __init__(
        self, texts: DistinctTexts, options: EncodeOptions, nonfinite: NonFiniteRows | None = None
    ) -> None:
        self._options = options
        self._nonfinite = NonFiniteRows() if nonfinite is None else nonfinite
        self._rows: list[Any] = [None] * texts.count

    def put(self, places: Places, results: Sequence[Any]) -> None:
        """Take the objects of some texts."""
        for place, result in zip(places, results, strict=True):
            before = self._rows[place]
            # What is computed again, in float32, is in the format of what it takes the place of.
            self._rows[place] = result if before is None else self._like(before, result)
        if len(results):
            flags = torch.stack([_is_finite(self._embeddings_of(result)) for result in results])
            self._nonfinite.add(np.asarray(places, dtype=np.int64), flags)

    def settle(self) -> None:  # noqa: B027  # there is nothing to override
        """Nothing waits."""

    def finish(self) -> list[Any]:
        """All results, in the order of the texts."""
        for place in self._nonfinite.places.tolist():
            result = self._rows[place]
            self._rows[place] = self._with(result, torch.full_like(self._embeddings_of(result), float("nan")))
        return self._rows

    def _like(self, before: Any, result: Any) -> Any:
        """A result in the format of another."""
        embeddings = self._embeddings_of(result)
        return self._with(result, embeddings.to(self._embeddings_of(before).dtype))

    @abstractmethod
    def _embeddings_of(self, result: Any) -> Tensor:
        """The part of a result that is to be finite."""

    @abstractmethod
    def _with(self, result: Any, embeddings: Tensor) -> Any:
        """The result with other embeddings in it."""


class TokenEmbeddings(_PerText):
    """Token embeddings: for each text a tensor (tokens, dim) without padding, on the device of the modules.

    Quantised, they are arrays, with one range a dimension over the tokens of all texts.
    """

    def add(self, places: Places, features: Features) -> None:
        """Take a batch."""
        tokens, masks = feature_of(features, "token_embeddings"), feature_of(features, "attention_mask").bool()
        self.put(places, [_rows_at(mask, of_text) for of_text, mask in zip(tokens, masks, strict=True)])

    def finish(self) -> list[Any]:
        """All results, in the order of the texts."""
        rows, precision, nonfinite = super().finish(), self._options.precision, self._nonfinite.rows
        if precision == "float32":
            return rows
        if len(nonfinite):
            raise NonFiniteError(nonfinite, rows, precision=precision)
        return list(quantize_matrices(rows, precision))

    def _embeddings_of(self, result: Tensor) -> Tensor:
        return result

    def _with(self, result: Tensor, embeddings: Tensor) -> Tensor:
        del result
        return embeddings


def _is_finite(embeddings: Tensor) -> Tensor:
    """Whether all numbers of a result are finite; a GPU is not waited for."""
    if embeddings.device.type == "cpu":
        return torch.tensor(are_finite(embeddings.detach()))
    return torch.isfinite(embeddings).all()


def _rows_at(mask: Tensor, rows: Tensor) -> Tensor:
    """The rows where a mask is true, in memory of their own."""
    if rows.device.type == "cpu" and not rows.requires_grad:
        # By numpy, as in ``_put``.
        return tensor_of(memory_of(rows)[mask.numpy()], rows.dtype)
    return rows[mask]


class AllFeatures(_PerText):
    """All features: for each text a dict, its sentence embedding cut but not normalised."""

    def add(self, places: Places, features: Features) -> None:
        """Take a batch."""
        cut = truncate_embeddings(feature_of(features, "sentence_embedding"), self._options.truncate_dim)
        features = {**features, "sentence_embedding": cut}
        count = len(places)
        rows = ({name: _row_of(value, row, count) for name, value in features.items()} for row in range(count))
        self.put(places, list(rows))

    def _embeddings_of(self, result: Features) -> Tensor:
        return feature_of(result, "sentence_embedding")

    def _with(self, result: Features, embeddings: Tensor) -> Features:
        return {**result, "sentence_embedding": embeddings}


def collector_for(
    texts: DistinctTexts,
    options: EncodeOptions,
    *,
    dimension: int | None,
    device: torch.device,
    out: Output | None = None,
    nonfinite: NonFiniteRows | None = None,
    ranges: NDArray[Any] | None = None,
) -> Collector:
    """The collector for the output that is asked for; arguments as for ``SentenceEmbeddings``."""
    if options.output_value == "sentence_embedding":
        return SentenceEmbeddings(texts, options, dimension, device, out, nonfinite=nonfinite, ranges=ranges)
    if out is not None:
        _check_output(out, texts.count, options)
    per_text = TokenEmbeddings if options.output_value else AllFeatures
    return per_text(texts, options, nonfinite)


def _row_of(value: Any, row: int, count: int) -> Any:
    """The part of a feature that is a text's own; what belongs to the batch as a whole stays whole."""
    if isinstance(value, Tensor):
        return value[row] if value.ndim > 0 and len(value) == count else value
    if isinstance(value, tuple):  # one tensor a layer
        return tuple(_row_of(layer, row, count) for layer in value)
    is_per_text = isinstance(value, (list, np.ndarray)) and len(value) == count
    return value[row] if is_per_text else value
