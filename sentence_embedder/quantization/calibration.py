"""Calibration: the range of each dimension, for int8 and uint8, of the embeddings that a model makes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.quantization.precision import WELL_CALIBRATED

logger = logging.getLogger(__name__)

_KEYS = ("minima", "maxima", "normalized_minima", "normalized_maxima")


@dataclass(frozen=True)
class Calibration:
    """Minimum and maximum of each dimension over many embeddings of a model.

    Args:
        ranges: Of embeddings as the modules make them, float32, shape (2, dim).
        normalized_ranges: Of embeddings that ``encode`` has scaled to length 1, the same shape.
    """

    ranges: NDArray[np.float32]
    normalized_ranges: NDArray[np.float32]

    @staticmethod
    def of(embeddings: NDArray[Any]) -> Calibration:
        """What embeddings say, shape (texts, dim), as the modules make them.

        Raises:
            ValueError: There are fewer than two, or some are not finite.
        """
        if len(embeddings) < 2:
            raise ValueError(f"calibrate: expected two texts or more, better hundreds, found {len(embeddings)}")
        if not np.isfinite(embeddings).all():
            row = int(np.argwhere(~np.isfinite(embeddings))[0, 0])
            raise ValueError(f"calibrate: expected finite embeddings, found {embeddings[row]} in row {row}")
        if len(embeddings) < WELL_CALIBRATED:
            logger.warning(
                "calibrate: the ranges are read off %d texts only; hundreds make them steady", len(embeddings)
            )
        rows = embeddings.astype(np.float32)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return Calibration(_ranges_of(rows), _ranges_of(rows / np.maximum(lengths, 1e-12)))

    def ranges_for(self, width: int, *, normalized: bool) -> NDArray[np.float32]:
        """The ranges of embeddings of a width.

        Args:
            width: How many values they are cut to.
            normalized: Whether they are then scaled to length 1.

        Raises:
            ValueError: Only what is not cut before it is scaled is known.
        """
        dimension = self.ranges.shape[1]
        if width > dimension or (normalized and width != dimension):
            kind = "scaled to length 1" if normalized else "as they are"
            raise ValueError(
                f"the ranges that calibrate found are of {dimension} dimensions, expected {width}, {kind}: "
                f"calibrate with truncate_dim={width}"
            )
        return self.normalized_ranges if normalized else self.ranges[:, :width]

    def to_dict(self) -> dict[str, list[float]]:
        """The JSON object."""
        rows = (*self.ranges, *self.normalized_ranges)
        return {name: [float(str(value)) for value in row] for name, row in zip(_KEYS, rows, strict=True)}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Calibration:
        """Read the JSON object.

        Raises:
            ValueError: It does not hold finite minima and maxima of the same dimensions.
        """
        try:
            minima, maxima, *normalized = (np.array(data[name], dtype=np.float32) for name in _KEYS)
            found = Calibration(np.stack([minima, maxima]), np.stack(normalized))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"expected lists of numbers {list(_KEYS)} ({error})") from error
        for ranges in (found.ranges, found.normalized_ranges):
            if ranges.ndim != 2 or ranges.shape != found.ranges.shape or not np.isfinite(ranges).all():
                raise ValueError(f"expected finite minima and maxima of the same dimensions, found {ranges.shape}")
        return found


def _ranges_of(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([rows.min(axis=0), rows.max(axis=0)])
