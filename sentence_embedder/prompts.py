"""Prompts: which text is put before a sentence, and how."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

logger = logging.getLogger(__name__)

QUERY_PROMPT_NAMES: tuple[str, ...] = ("query",)
DOCUMENT_PROMPT_NAMES: tuple[str, ...] = ("document", "passage", "corpus")


def check_prompt_name(prompts: Mapping[str, str], name: str, what: str = "prompt_name") -> None:
    """Raise a ValueError unless the prompts have the name.

    Args:
        prompts: Name → text.
        name: The name that is looked for.
        what: What the name was given as, for the message.
    """
    if name not in prompts:
        remedy = f"found {sorted(prompts)}" if prompts else "but this model has no prompts; pass prompts= to it"
        raise ValueError(f"{what}={name!r}: expected the name of one of the model's prompts, {remedy}")


def resolve_prompt(
    prompts: Mapping[str, str],
    *,
    prompt: str | None,
    prompt_name: str | None,
    default_prompt_name: str | None,
) -> str | None:
    """The text to put before each sentence: the prompt given, else the one named, else the default, else none.

    Raises:
        TypeError: The prompt, or its name, is no text.
        ValueError: There is no prompt of the given name.
    """
    _check_text(prompt, "prompt")
    _check_text(prompt_name, "prompt_name")
    if prompt is not None:
        if prompt_name is not None:
            logger.warning("prompt and prompt_name were both given: prompt_name=%r is ignored", prompt_name)
        return prompt
    if prompt_name is not None:
        check_prompt_name(prompts, prompt_name)
        return prompts[prompt_name]
    if default_prompt_name is not None:
        return prompts.get(default_prompt_name)
    return None


def _check_text(given: object, what: str) -> None:
    if not (given is None or isinstance(given, str)):
        found = f"{type(given).__name__}: {given!r:.80}"
        raise TypeError(f"{what}: expected one text, for all rows, or None, found {found}")


def first_named(prompts: Mapping[str, str], names: Sequence[str]) -> str | None:
    """The first of the names under which there is a prompt."""
    return next((name for name in names if name in prompts), None)


def apply_prompt(prompt: str | None, items: Sequence[Any]) -> Sequence[Any]:
    """The items with the prompt before them: before the first text of a pair, before the text of ``{key: text}``;
    what is no text, such as an image, stays as it is.

    Example:
        >>> apply_prompt("query: ", ["hello", ("one", "two"), {"title": "three"}])
        ['query: hello', ['query: one', 'two'], {'title': 'query: three'}]
    """
    return [_prepend(prompt, item) for item in items] if prompt else items


def _prepend(prompt: str, item: Any) -> Any:
    if isinstance(item, Mapping):
        return {key: _prompted(prompt, text) for key, text in item.items()}
    if isinstance(item, (list, tuple)):
        return [_prompted(prompt, text) if place == 0 else text for place, text in enumerate(item)]
    return _prompted(prompt, item)


def _prompted(prompt: str, text: Any) -> Any:
    return f"{prompt}{text}" if isinstance(text, (str, Number)) else text
