"""Embeddings in fewer bits: one byte, or one bit, a dimension."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)

Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
CALIBRATED_PRECISIONS: tuple[Precision, ...] = ("int8", "uint8")
"""The precisions that spread each dimension's own range over 256 steps."""

_BLOCK = 2**18
"""So many values are quantised at a time: a megabyte of float32."""

WELL_CALIBRATED = 100
"""From fewer embeddings, ranges are not read without a warning."""


def check_precision(precision: str) -> None:
    """Raise a ValueError unless there is such a precision."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {list(PRECISIONS)}, found {precision!r}")


def check_calibration(precision: str, rows: int) -> None:
    """Raise a ValueError where the range of each dimension would have to be read off a single embedding."""
    if precision in CALIBRATED_PRECISIONS and rows == 1:
        raise ValueError(
            f"{precision} needs the range of each dimension, and one embedding has none: calibrate the model "
            "(model.calibrate(texts)), or call quantize_embeddings with ranges= (shape (2, dim): minima, maxima)"
        )


def as_numpy(embeddings: Tensor | NDArray[Any] | Sequence[Any]) -> NDArray[Any]:
    """The embeddings as one array on the CPU; bfloat16, which numpy lacks, becomes float32."""
    if isinstance(embeddings, Tensor):
        on_cpu = embeddings.detach().cpu()
        return (on_cpu.float() if on_cpu.dtype == torch.bfloat16 else on_cpu).numpy()
    if isinstance(embeddings, np.ndarray):
        return embeddings
    return np.array([as_numpy(row) if isinstance(row, Tensor) else row for row in embeddings])


def quantize_embeddings(
    embeddings: Tensor | NDArray[Any] | Sequence[Any],
    precision: Precision,
    ranges: NDArray[Any] | None = None,
    calibration_embeddings: Tensor | NDArray[Any] | Sequence[Any] | None = None,
) -> NDArray[Any]:
    """Embeddings in a smaller number format.

    Args:
        embeddings: Shape (texts, dim), or (dim,) for one; floats.
        precision: ``"float32"``; ``"int8"`` and ``"uint8"``: the range of each dimension in 256 steps, what
            lies outside it at its ends; ``"binary"`` and ``"ubinary"``: a bit a dimension, set where the
            value is above 0, eight to a byte (int8 or uint8), the last byte of a row filled with zeros.
        ranges: Minimum and maximum of each dimension, shape (2, dim), for int8 and uint8.
        calibration_embeddings: Embeddings to read the ranges off, shape (n, dim), if there are no
            ``ranges``; by default the embeddings themselves.

    Returns:
        Shape (texts, dim), or (texts, ⌈dim / 8⌉) for the binary precisions.

    Raises:
        ValueError: The precision is unknown, the embeddings are quantised already or not finite, or the ranges
            would have to be read off a single embedding.

    Example:
        >>> quantize_embeddings(np.array([[0.5, -0.5, 1.0]]), "ubinary")
        array([[160]], dtype=uint8)
    """
    check_precision(precision)
    values = as_numpy(embeddings)
    if values.dtype in (np.int8, np.uint8):
        raise ValueError(f"embeddings to quantise: expected floats, found {values.dtype}: quantised already?")
    if precision == "float32":
        return values.astype(np.float32)
    if precision not in CALIBRATED_PRECISIONS:
        return _by_blocks(values, -(-values.shape[-1] // 8), precision, partial(_in_bits, precision=precision))
    if ranges is None:
        ranges = ranges_of(values if calibration_embeddings is None else calibration_embeddings, precision)
        if not np.isfinite(ranges).all() and calibration_embeddings is None:
            _check_finite(np.atleast_2d(values))
    minima, steps = _steps(np.asarray(ranges, dtype=np.float32), values.shape[-1])
    in_steps = partial(_in_steps, minima=minima, steps=steps, precision=precision)
    return _by_blocks(values, values.shape[-1], precision, in_steps)


def ranges_of(calibration: Tensor | NDArray[Any] | Sequence[Any], precision: Precision) -> NDArray[Any]:
    """Minimum and maximum of each dimension, shape (2, dim), over embeddings, shape (n, dim).

    Raises:
        ValueError: There is a single embedding, which has no range.
    """
    values = np.atleast_2d(as_numpy(calibration))
    check_calibration(precision, len(values))
    if len(values) == 0:
        return np.zeros((2, values.shape[1]), dtype=np.float32)
    if len(values) < WELL_CALIBRATED:
        logger.warning(
            "%s ranges are read off %d embeddings only; pass ranges= or calibration_embeddings= (%d or more) to "
            "quantize_embeddings for a steadier result",
            precision,
            len(values),
            WELL_CALIBRATED,
        )
    return np.stack([values.min(axis=0), values.max(axis=0)])


def _by_blocks(
    values: NDArray[Any], width: int, precision: Precision, quantized: Callable[[NDArray[Any]], NDArray[Any]]
) -> NDArray[Any]:
    """Values quantised block by block, each of which stays in the cache from its first look to its last.

    Args:
        values: Shape (…, dim).
        width: Values of a row of the result.
        precision: The precision.
        quantized: A block (rows, …, dim) → (rows, …, width), of any format that is cast to that of the result.
    """
    result = np.empty((*values.shape[:-1], width), dtype=np.int8 if precision in ("int8", "binary") else np.uint8)
    rows, made = np.atleast_2d(values), np.atleast_2d(result)
    at_once = max(1, _BLOCK // max(1, math.prod(rows.shape[1:])))
    for start in range(0, len(rows), at_once):
        block = rows[start : start + at_once]
        _check_finite(block, start)
        made[start : start + at_once] = quantized(block)
    return result


def _check_finite(rows: NDArray[Any], start: int = 0) -> None:
    finite = np.isfinite(rows)
    if not finite.all():
        place = tuple(np.argwhere(~finite)[0].tolist())
        raise ValueError(
            f"embeddings to quantise: expected finite numbers, found {rows[place]} in row {start + place[0]}, "
            f"dimension {place[-1]}"
        )


def _steps(ranges: NDArray[np.float32], width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The minimum of each dimension, and how wide one of its 256 steps is."""
    if ranges.shape != (2, width):
        raise ValueError(f"ranges: expected minima and maxima, shape (2, {width}), found {ranges.shape}")
    if not np.isfinite(ranges).all():
        dimension = int(np.argwhere(~np.isfinite(ranges))[0, 1])
        raise ValueError(f"ranges: expected finite minima and maxima, found {ranges[:, dimension]} in {dimension=}")
    minima, maxima = ranges
    steps = (maxima - minima) / 255
    # A dimension without a range would divide by zero; any step will do, as all its values are the minimum.
    return minima, np.where(steps == 0, np.float32(1), steps)


def _in_steps(
    values: NDArray[Any], minima: NDArray[np.float32], steps: NDArray[np.float32], precision: Precision
) -> NDArray[Any]:
    levels = (values - minima) / steps
    np.floor(levels, out=levels)
    np.clip(levels, 0, 255, out=levels)
    if precision == "int8":
        levels -= 128
    return levels


def _in_bits(values: NDArray[Any], precision: Precision) -> NDArray[Any]:
    packed = np.packbits(values > 0, axis=-1)
    # Byte b as int8 is b − 128: flipping the highest bit and reading the byte as signed does just that.
    return packed if precision == "ubinary" else (packed ^ 0x80).view(np.int8)


def quantize_matrices(matrices: Sequence[Tensor | NDArray[Any]], precision: Precision) -> list[NDArray[Any]]:
    """Matrices of different heights, quantised with one range a dimension over all of them.

    Args:
        matrices: Each of shape (rows, dim): the token embeddings of texts, say.
        precision: As for ``quantize_embeddings``.
    """
    if not matrices:
        return []
    arrays = [as_numpy(matrix) for matrix in matrices]
    joint = quantize_embeddings(np.concatenate(arrays), precision)
    return np.split(joint, np.cumsum([len(array) for array in arrays])[:-1])
