"""JSON as any program reads it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any


def json_text(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """A value in JSON (RFC 8259), which has no NaN and no infinity: null stands for them.

    Args:
        value: What is to be written.
        indent: By how many spaces what is inside is shifted; by default all is in one line.
        default: Makes something that has a form in JSON of what has none.

    Raises:
        TypeError: There is no such form.

    Example:
        >>> json_text({"score": math.nan, "of": ["für", 1.5]})
        '{"score": null, "of": ["für", 1.5]}'
    """
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent, default=default, allow_nan=False)
    except ValueError:  # a number is not finite: seldom, so they are not looked for before
        return json.dumps(_finite(value, default), ensure_ascii=False, indent=indent, allow_nan=False)


def _finite(value: Any, default: Callable[[Any], Any] | None) -> Any:
    """The value in what JSON has, with None in place of each number that is not finite."""
    if isinstance(value, dict):
        return {key: _finite(part, default) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part, default) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if default is None or value is None or isinstance(value, (str, int)):
        return value
    return _finite(default(value), default)
