"""Names and signatures of sentence-transformers 2.7.0 and 6.2.0 are there, or docs/compatibility.md says why not.

``make golden`` records them anew.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from sentence_embedder import SentenceTransformer
from sentence_embedder.argument_names import other_names
from tests.reference.environment import VERSIONS
from tests.reference.golden import GOLDEN

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
MODEL = "SentenceTransformer"
NAMES: dict[str, dict[str, dict[str, Any]]] = {
    version: {**surface["names"], MODEL: surface[MODEL]}
    for version in VERSIONS
    for surface in [json.loads((GOLDEN / f"surface-{version}.json").read_text(encoding="utf-8"))]
}
"""Version → module, or the class → name → signature: (parameter, kind, default) each, or None."""

PARTS = [(version, part) for version in VERSIONS for part in NAMES[version]]


def _table(heading: str) -> Iterator[list[list[str]]]:
    """The rows below a heading of the page: the words in code of each of its first two cells."""
    _, _, section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")
    for row in re.findall(r"^\| *(.+) *\|$", section.partition("\n## ")[0], re.MULTILINE)[2:]:
        cells = row.split(" | ")
        assert len(cells) == 3
        assert cells[2].strip()
        yield [re.findall(r"`([^`]+)`", cell) for cell in cells[:2]]


def _missing() -> set[tuple[str, str]]:
    """(module, or the class; name) of what the page says is missing."""
    return {("".join(where), name) for where, names in _table("What is missing") for name in names}


def _different() -> set[tuple[str, str]]:
    """(dotted name, parameter) of what the page says differs."""
    return {(where, name) for wheres, names in _table("Signatures") for where in wheres for name in names}


@cache
def _owner(part: str) -> Any:
    if part == MODEL:
        return SentenceTransformer
    return importlib.import_module(f"sentence_embedder.{part}".rstrip("."))


def _in_common(version: str) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, their parameters, and ours that is called, of all that has both."""
    for part, names in NAMES[version].items():
        for name, theirs in names.items():
            ours = getattr(_owner(part), name, None)
            if theirs is not None and callable(ours):
                yield f"{part}.{name}".lstrip("."), theirs, ours


def _unlike(version: str) -> Iterator[tuple[str, str]]:
    """(dotted name, parameter) of what ours does not take as theirs does."""
    for dotted, theirs, called in _in_common(version):
        ours = [p for p in inspect.signature(called).parameters.values() if p.name != "self"]
        named = {p.name: p for p in ours}
        for other, own in other_names(called).items():
            named.setdefault(other, named[own])
        takes_any = {p.kind for p in ours} >= {inspect.Parameter.VAR_KEYWORD}
        for name, kind, default in theirs:
            if kind.startswith("VAR_") or (name not in named and takes_any and name != "inputs"):
                continue
            if name not in named or not _accepts(named[name], default):
                yield dotted, name
        if version == "2.7" and (misplaced := _misplaced(theirs, ours)):
            yield dotted, misplaced


def _accepts(parameter: inspect.Parameter, default: str | None) -> bool:
    """Whether a parameter may be left out where theirs may, with the same meaning as far as one can see."""
    if default is None:
        return True
    if parameter.default is parameter.empty:
        return False
    try:
        value = ast.literal_eval(default)
    except (ValueError, SyntaxError):  # an object
        return True
    value = tuple(value) if isinstance(value, list) else value
    own = list(parameter.default.items()) if hasattr(parameter.default, "items") else parameter.default
    if isinstance(value, dict):
        return own is None or own == list(value.items())
    return bool(own == value)


def _misplaced(theirs: Any, ours: list[inspect.Parameter]) -> str | None:
    """Their first positional parameter that is not in its place in ours; None if all are."""
    if any(p.kind is p.VAR_POSITIONAL for p in ours):
        return None
    positional = [p.name for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
    known = {p.name for p in ours}
    wanted = [name for name, kind, _ in theirs if kind == "POSITIONAL_OR_KEYWORD"]
    misplaced = (n for place, n in enumerate(wanted) if n in known and positional[place : place + 1] != [n])
    return next(misplaced, None)


@pytest.mark.parametrize(("version", "part"), PARTS, ids=lambda value: value or "package")
def test_names_are_there_or_listed(version: str, part: str) -> None:
    """Each name that a version exports is there, or stands in the table of what is missing."""
    lacking = {name for name in NAMES[version][part] if not hasattr(_owner(part), name)}

    assert lacking <= {name for where, name in _missing() if where == part}


def test_nothing_is_listed_that_is_there() -> None:
    """What the table calls missing was in one of the versions, and is missing."""
    for where, name in _missing():
        assert any(name in NAMES[version].get(where, {}) for version in VERSIONS), (where, name)
        assert not hasattr(_owner(where), name), (where, name)


@pytest.mark.parametrize("version", VERSIONS)
def test_signatures_agree_or_are_listed(version: str) -> None:
    """Ours takes each parameter of theirs: by its name, in the place that it has in 2.7, with the same default; or
    it stands in the table of signatures.
    """
    assert sum(1 for _ in _in_common(version)) > 100
    assert set(_unlike(version)) - _different() == set()


def test_no_signature_is_listed_that_agrees() -> None:
    """What the table lists differs from one of the versions."""
    unlike = {each for version in VERSIONS for each in _unlike(version)}

    assert _different() - unlike == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_properties_are_properties(version: str) -> None:
    """What is no method there, is none here."""
    for name, theirs in NAMES[version][MODEL].items():
        if hasattr(SentenceTransformer, name):
            assert callable(getattr(SentenceTransformer, name)) == (theirs is not None), name
