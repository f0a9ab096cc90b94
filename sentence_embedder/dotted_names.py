"""Dotted names of things: ``package.module.Class`` ⇄ the class."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from sentence_embedder.argument_names import also_named


@also_named(o="obj")
def fullname(obj: object) -> str:
    """The dotted name of a class, or of the class of anything else; of what is built in the name alone.

    Example:
        >>> from fractions import Fraction
        >>> fullname(Fraction), fullname(Fraction(1, 2)), fullname([])
        ('fractions.Fraction', 'fractions.Fraction', 'list')
    """
    named = obj if isinstance(obj, type) else type(obj)
    return named.__name__ if named.__module__ == "builtins" else f"{named.__module__}.{named.__name__}"


def qualified_name(thing: Any) -> str:
    """The dotted name by which a class or a function knows itself, those that it stands in included.

    Example:
        >>> from fractions import Fraction
        >>> qualified_name(Fraction), qualified_name(Fraction.limit_denominator)
        ('fractions.Fraction', 'fractions.Fraction.limit_denominator')
    """
    return f"{thing.__module__}.{thing.__qualname__}"


def import_from_string(dotted_path: str) -> Any:
    """What a dotted name names. Its module is imported, which runs code: a stranger must not choose the name.

    Args:
        dotted_path: ``package.module.name``; or ``package.name``, if that is a module with such a name in it.

    Raises:
        ImportError: There is no such module, or nothing of that name in it.

    Example:
        >>> import_from_string("math.tau")
        6.283185307179586
    """
    home, _, name = dotted_path.rpartition(".")
    if not home or not name:
        raise ImportError(f"expected a dotted name, package.module.name, found {dotted_path!r}")
    try:
        module = import_module(dotted_path)
    except ModuleNotFoundError as error:
        # Another name is that of something that the module itself imports.
        if error.name is None or not f"{dotted_path}.".startswith(f"{error.name}."):
            raise
        module = import_module(home)
    if not hasattr(module, name):
        raise ImportError(f"expected something named {name!r} in the module {module.__name__!r}, found nothing")
    return getattr(module, name)
