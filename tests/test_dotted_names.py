"""Dotted names ⇄ classes."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest

from sentence_embedder.util import fullname, import_from_string


def test_a_name_leads_back_to_its_class() -> None:
    """The name of a class, or of a thing of that class, is one under which the class is found."""
    assert fullname(OrderedDict) == fullname(OrderedDict()) == "collections.OrderedDict"
    assert import_from_string("collections.OrderedDict") is OrderedDict


def test_what_is_built_in_has_a_short_name() -> None:
    """``builtins`` is not named."""
    assert fullname({}) == fullname(dict) == "dict"


def test_a_module_may_have_the_name_of_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``package.Thing`` is the class ``Thing`` in the module ``package.Thing``, as older model files say it."""
    (tmp_path / "package_with_thing").mkdir()
    (tmp_path / "package_with_thing" / "Thing.py").write_text("class Thing: ...\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert fullname(import_from_string("package_with_thing.Thing")) == "package_with_thing.Thing.Thing"


@pytest.mark.parametrize(
    ("dotted_path", "message"),
    [
        ("OrderedDict", "expected a dotted name"),
        ("collections.UnorderedDict", "named 'UnorderedDict' in the module 'collections'"),
        ("no_such_package.Thing", "No module named 'no_such_package'"),
    ],
)
def test_a_name_of_nothing_is_an_import_error(dotted_path: str, message: str) -> None:
    """The error says what is missing."""
    with pytest.raises(ImportError, match=message):
        import_from_string(dotted_path)


def test_what_a_module_lacks_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that fails because it imports what is not there, is not taken for missing itself."""
    (tmp_path / "needy.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        import_from_string("needy.Thing")
