"""Prompts: which one, and where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from sentence_embedder.prompts import apply_prompt, check_prompt_name, first_named, resolve_prompt

PROMPTS = {"query": "q: ", "passage": "p: ", "empty": ""}


@pytest.mark.parametrize(
    ("prompt", "prompt_name", "default", "expected"),
    [
        (None, None, None, None),
        ("x ", None, "query", "x "),
        ("", None, "query", ""),
        ("x ", "query", None, "x "),
        (None, "query", "passage", "q: "),
        (None, "empty", "passage", ""),
        (None, None, "passage", "p: "),
        (None, None, "gone", None),
    ],
)
def test_which_prompt(
    prompt: str | None, prompt_name: str | None, default: str | None, expected: str | None
) -> None:
    """The prompt itself goes before its name, and that before the default; an empty one is a choice, too."""
    resolved = resolve_prompt(PROMPTS, prompt=prompt, prompt_name=prompt_name, default_prompt_name=default)

    assert resolved == expected


@pytest.mark.parametrize("given", [5, ["q: "], ("q: ",), b"q: "], ids=repr)
@pytest.mark.parametrize("name", ["prompt", "prompt_name"])
def test_what_is_no_prompt(name: str, given: Any) -> None:
    """A prompt is a text for all rows, and so is its name."""
    arguments = {"prompt": None, "prompt_name": None, name: given}

    with pytest.raises(TypeError, match=f"^{name}: expected one text, .* found {type(given).__name__}: "):
        resolve_prompt(PROMPTS, default_prompt_name=None, **arguments)


@pytest.mark.parametrize(
    ("prompts", "remedy"), [(PROMPTS, r"found \['empty', 'passage', 'query'\]"), ({}, "pass prompts= to it")]
)
def test_an_unknown_name(prompts: dict[str, str], remedy: str) -> None:
    """A name that does not exist is an error with those that do, or with the way to have some."""
    with pytest.raises(ValueError, match=f"what='code': .*{remedy}"):
        check_prompt_name(prompts, "code", "what")


class _Image:
    """What is no text."""

    def __repr__(self) -> str:
        return "an image"


_IMAGE = _Image()


@pytest.mark.parametrize(
    ("item", "prompted"),
    [
        ("a", "q: a"),
        ("", "q: "),
        (7, "q: 7"),
        (("a", "b"), ["q: a", "b"]),
        (["a", "b"], ["q: a", "b"]),
        ({"title": "a"}, {"title": "q: a"}),
        (_IMAGE, _IMAGE),
        ({"picture": _IMAGE}, {"picture": _IMAGE}),
        ([_IMAGE, "b"], [_IMAGE, "b"]),
    ],
    ids=repr,
)
def test_where_it_stands(item: Any, prompted: Any) -> None:
    """A prompt stands before the text, the first text of a pair, the text under a key, and before nothing else."""
    given = [item]

    assert apply_prompt("q: ", given) == [prompted]
    assert given == [item]


@pytest.mark.parametrize("prompt", [None, ""])
def test_no_prompt(prompt: str | None) -> None:
    """Without a prompt the items are as they were."""
    assert apply_prompt(prompt, ["a", 7]) == ["a", 7]


def test_first_named() -> None:
    """Names are tried in their order."""
    assert first_named(PROMPTS, ("document", "passage", "query")) == "passage"
    assert first_named(PROMPTS, ("document",)) is None
