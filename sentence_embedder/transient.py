"""Transient: a value that its owner can make again at any time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from sentence_embedder.forks import ProcessLock

_Value = TypeVar("_Value")


class Transient(Generic[_Value]):
    """One value, kept until it no longer holds.

    It belongs to the running process alone: a copy or a pickle of its owner starts without it. Threads can
    share it; the value is made once.

    Example:
        >>> root = Transient()
        >>> root.get(make=lambda: 3.0, holds=lambda value: value**2 == 9)
        3.0
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._kept: list[_Value] = []

    def get(self, *, make: Callable[[], _Value], holds: Callable[[_Value], bool]) -> _Value:
        """The value that is kept if it holds, or else a new one, which takes its place.

        Args:
            make: Makes the value.
            holds: Says of the value that is kept whether it may still be used.
        """
        for value in self._kept:
            if holds(value):
                return value
        with self._lock.here():
            # While this thread waited, another one may have made it.
            for value in self._kept:
                if holds(value):
                    return value
            value = make()
            self._kept = [value]
            return value

    def __deepcopy__(self, memo: dict[int, Any]) -> Transient[_Value]:
        return Transient()

    def __copy__(self) -> Transient[_Value]:
        return Transient()

    def __reduce__(self) -> tuple[type[Transient[_Value]], tuple[()]]:
        return Transient, ()
