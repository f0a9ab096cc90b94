"""Arguments under other names that they have, or had, in versions of sentence-transformers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

_Function = TypeVar("_Function", bound=Callable[..., Any])


def also_named(**arguments: str) -> Callable[[_Function], _Function]:
    """Let a function take arguments under other names, too.

    Args:
        arguments: The other name → the argument's own.

    Raises:
        TypeError: In a call, an argument is given under two names.

    Example:
        >>> @also_named(o="obj")
        ... def name_of(obj: object) -> str:
        ...     return type(obj).__name__
        >>> name_of(o=1)
        'int'
    """

    def wrapped(function: _Function) -> _Function:
        @functools.wraps(function)
        def renaming(*args: Any, **kwargs: Any) -> Any:
            for other in arguments.keys() & kwargs.keys():
                if arguments[other] in kwargs:
                    name = function.__qualname__
                    raise TypeError(f"{name}: expected {arguments[other]} or {other}, found both: they are one")
                kwargs[arguments[other]] = kwargs.pop(other)
            return function(*args, **kwargs)

        cast("Any", renaming).other_names = arguments
        return cast("_Function", renaming)

    return wrapped


def other_names(function: object) -> Mapping[str, str]:
    """Other name → argument of a function, or of what makes an object of a class."""
    called = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    names: Mapping[str, str] = getattr(called, "other_names", {})
    return names
