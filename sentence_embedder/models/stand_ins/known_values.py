"""Values of JSON files that are known to mean what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

_MOST = 10_000_000
"""The most that a size, or an id, can be."""

Fits = Callable[[Any], bool]
"""Says whether a value is one that is known. A whole number is no float, nor is true a number."""


class UnknownError(ValueError):
    """Something is not as it is known to be."""


def exactly(*known: Any) -> Fits:
    """One of these."""
    return lambda value: any(type(value) is type(one) and value == one for one in known)


def whole(least: int = 0, most: int = _MOST) -> Fits:
    """A whole number within limits."""
    return lambda value: type(value) is int and least <= value <= most


def share(*kinds: type) -> Fits:
    """A number between 0 and 1, of one of these types."""
    return lambda value: type(value) in kinds and 0 <= value <= 1


def a(kind: type) -> Fits:
    """Any value of a type."""
    return lambda value: type(value) is kind


def none_or(fits: Fits) -> Fits:
    """None, or what fits."""
    return lambda value: value is None or fits(value)


def are_texts(value: Any) -> bool:
    """Whether it is a list of texts."""
    return type(value) is list and all(type(one) is str for one in value)


def are_labels(value: Any) -> bool:
    """Whether it has a text for each number."""
    return type(value) is dict and all(key.isdecimal() and type(one) is str for key, one in value.items())


def check(fits: bool, what: str) -> None:
    """Raise an UnknownError that names something unless it fits."""
    if not fits:
        raise UnknownError(what)


def check_keys(data: Any, known: Mapping[str, Fits], where: str) -> None:
    """Raise unless each key of a file is known, and its value fits."""
    for key, value in data.items():
        check(key in known and known[key](value), f"{where}: {key}")
