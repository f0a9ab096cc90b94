"""Whole numbers: what counts as one, of whichever library."""

from __future__ import annotations

from numbers import Integral


def is_whole(number: object) -> bool:
    """Whether something is a whole number, of numpy too."""
    return isinstance(number, Integral)


def whole_or_none(value: object, name: str) -> int | None:
    """A setting as a number of Python's, which can be written to a file; None for None.

    Args:
        value: The setting.
        name: What it is called, for the message.

    Raises:
        ValueError: It is no whole number.

    Example:
        >>> import numpy as np
        >>> whole_or_none(np.int64(5), "truncate_dim")
        5
    """
    if value is None or isinstance(value, Integral):
        return None if value is None else int(value)
    raise ValueError(f"{name}: expected a whole number or None, found {value!r}")
