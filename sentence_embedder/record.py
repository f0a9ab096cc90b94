"""Record: a frozen dataclass that is read from a JSON object, key by key, each checked."""

from __future__ import annotations

import dataclasses
import reprlib
from collections import abc
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field
from types import MappingProxyType, NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_Record = TypeVar("_Record", bound="Record")
_REQUIRED: Any = object()
_SPELT = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = 80


class FormatError(ValueError):
    """A file of a model folder does not hold what its format says.

    Args:
        where: The file, and the key in it.
        expected: What belongs there.
        found: What is there.
    """

    def __init__(self, where: str, expected: str, found: object) -> None:
        super().__init__(f"{where}: expected {expected}, found {_shortened.repr(found)}")
        self._parts = (where, expected, found)

    def __reduce__(self) -> tuple[type[FormatError], tuple[str, str, object]]:
        return type(self), self._parts

    def within(self, file: str) -> FormatError:
        """The same, of a file."""
        where, expected, found = self._parts
        return type(self)(f"{file}: {where}", expected, found)


@dataclass(frozen=True)
class Range:
    """The least and the most that a number may be."""

    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.least:,} to {self.most:,}"


Width = Annotated[int, Range(1, 10_000_000)]
"""How wide a vector is, or how many rows a table has; a file cannot ask for more memory than there is."""

Count = Annotated[int, Range(1, 1_000)]
"""How many parts a module is made of."""

Share = Annotated[float, Range(0, 1)]
"""A part of a whole."""


class Fields:
    """A JSON object whose keys are taken out one by one; what is left at the end is unknown, and kept.

    Args:
        data: The object.
        where: Its file, for messages.

    Raises:
        FormatError: It is no object.
    """

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            raise FormatError(where, "a JSON object", data)
        self._left = dict(data)
        self.where = where

    def take(self, key: str, kind: Any, default: Any = _REQUIRED) -> Any:
        """The value of a key; the default where the key is absent or null.

        Args:
            key: The key.
            kind: What the value must be: a class, a union, a ``Sequence`` or ``Mapping`` of such, or one that is
                annotated with a ``Range``.
            default: What is meant without the key; if there is none, the key must be there.

        Raises:
            FormatError: The value is something else.
        """
        value = self._left.pop(key, None)
        if value is None:
            if default is _REQUIRED:
                raise FormatError(self.where, f"a key {key!r}", sorted(self._left))
            return default
        misfit = _misfit(value, kind)
        if misfit is not None:
            raise FormatError(f"{self.where}: {key}{misfit.place}", _spelt(misfit.kind), misfit.found)
        return tuple(value) if isinstance(value, list) else value

    def default_to(self, key: str, other: str) -> None:
        """Give a key that is absent the value of another one."""
        if other in self._left:
            self._left.setdefault(key, self._left[other])

    def fill_nulls(self, key: str, text: str) -> None:
        """Put a text for each null in the mapping that is the value of a key."""
        value = self._left.get(key)
        if isinstance(value, Mapping):
            self._left[key] = {name: text if one is None else one for name, one in value.items()}

    def rename(self, names: Mapping[str, str]) -> None:
        """Give keys their older names, where those are not taken."""
        for new, old in names.items():
            if new in self._left:
                self._left.setdefault(old, self._left.pop(new))

    def drop_defaults(self, defaults: Mapping[str, Any]) -> None:
        """Forget keys that say what is meant without them."""
        for key, default in defaults.items():
            if key in self._left and self._left[key] == default:
                del self._left[key]

    def rest(self) -> dict[str, Any]:
        """What was not taken."""
        return self._left


@dataclass(frozen=True, kw_only=True)
class Record:
    """A JSON object: a field for each key that is known.

    A subclass is a frozen dataclass whose annotations say what values a key may have.

    Args:
        extra: Keys of other versions.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class PointConfig(Record):
        ...     width: Width
        >>> PointConfig.from_dict({"width": 3, "colour": "red"})
        PointConfig(extra={'colour': 'red'}, width=3)
    """

    newer_names: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Name of a key in newer versions → the name that is written."""

    written_if_set: ClassVar[frozenset[str]] = frozenset()
    """Keys that older versions do not know, some of which fail on them: written only where they say something."""

    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls: type[_Record], data: object, where: str = "config.json") -> _Record:
        """The record of a JSON object.

        Args:
            data: The object.
            where: Its file, for messages.

        Raises:
            FormatError: It is no object, a key is missing, or the value of one is not what it may be.
        """
        fields = Fields(data, where)
        fields.rename(cls.newer_names)
        return cls(**cls._taken_from(fields), extra=fields.rest())

    @classmethod
    def _taken_from(cls, fields: Fields) -> dict[str, Any]:
        """The values of the record's own keys."""
        return {name: fields.take(name, kind, default()) for name, (kind, default) in _keys(cls).items()}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of the record."""
        data = {
            name: _as_json(getattr(self, name))
            for name, (_, default) in _keys(type(self)).items()
            if name not in self.written_if_set or getattr(self, name) != default()
        }
        return {**data, **self.extra}


def _keys(record_class: type[Record]) -> Mapping[str, tuple[Any, Any]]:
    """Name of a key → what its value must be, and what makes the value that is meant without it."""
    kinds = get_type_hints(record_class, include_extras=True)
    return {
        item.name: (kinds[item.name], _default_of(item))
        for item in dataclasses.fields(record_class)
        if item.name != "extra"
    }


def _default_of(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory
    return lambda: _REQUIRED if item.default is MISSING else item.default


@dataclass(frozen=True)
class _Misfit:
    """What is not what it must be, in the value of a key.

    Args:
        found: What it is.
        kind: What it must be.
        place: Where in the value it stands.
    """

    found: object
    kind: Any
    place: str = ""


def _misfit(value: object, kind: Any) -> _Misfit | None:
    """The first thing in a value of a JSON file that is not what it must be."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return None
    if origin is Annotated:
        of_kind, limits = arguments
        fits = _misfit(value, of_kind) is None and limits.least <= value <= limits.most
    elif origin in (Union, UnionType):
        misfits = [_misfit(value, one) for one in arguments]
        if any(misfit is not None and misfit.place for misfit in misfits):  # of the right kind, but for an item
            return None if None in misfits else next(m for m in misfits if m is not None and m.place)
        fits = None in misfits
    elif origin is Literal:
        fits = value in arguments
    elif origin is abc.Sequence:
        if isinstance(value, (list, tuple)):
            return _first_misfit(enumerate(value), arguments[0])
        fits = False
    elif origin is abc.Mapping:
        if isinstance(value, Mapping):
            return _first_misfit(value.items(), arguments[1])
        fits = False
    elif isinstance(value, bool):  # which Python takes for a number
        fits = kind is bool
    else:
        fits = isinstance(value, (int, float) if kind is float else kind)
    return None if fits else _Misfit(value, kind)


def _first_misfit(items: Iterable[tuple[Any, object]], kind: Any) -> _Misfit | None:
    for place, item in items:
        if type(item) is not kind:  # vocabularies are long
            misfit = _misfit(item, kind)
            if misfit is not None:
                return _Misfit(misfit.found, misfit.kind, f"[{place!r}]{misfit.place}")
    return None


def _spelt(kind: Any) -> str:
    """What a value must be, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_spelt(arguments[0])} from {arguments[1]}"
    if origin in (Union, UnionType):
        return " or ".join(_spelt(one) for one in arguments if one is not NoneType)
    if origin is Literal:
        return f"one of {list(arguments)}"
    if origin is abc.Sequence:
        return f"a list, each item {_spelt(arguments[0])}"
    if origin is abc.Mapping:
        return f"an object, each value {_spelt(arguments[1])}"
    return "anything" if kind is Any else _SPELT[kind]


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value
