"""What puts special tokens around texts, as in ``tokenizer.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def template(
    special: Mapping[str, int], *, first: str, last: str, between: int, tells_apart: bool = True
) -> Mapping[str, Any]:
    """What puts a token before texts, one behind, and some between them.

    Args:
        special: Special token → id.
        first: What goes before.
        last: What goes behind.
        between: How many of these go between two texts.
        tells_apart: Whether the second text is of another type than the first.
    """
    second = int(tells_apart)

    def token(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    begun = [token(first, 0), text("A", 0)]
    return {
        "type": "TemplateProcessing",
        "single": [*begun, token(last, 0)],
        "pair": [*begun, *[token(last, 0)] * between, text("B", second), token(last, second)],
        "special_tokens": {name: {"id": name, "ids": [special[name]], "tokens": [name]} for name in (first, last)},
    }


def roberta_processing(special: Mapping[str, int], *, first: str, last: str) -> Mapping[str, Any]:
    """What puts a token before texts, one behind, and two between them, in a form of RoBERTa's own.

    Args:
        special: Special token → id.
        first: What goes before.
        last: What goes behind.
    """
    return {
        "type": "RobertaProcessing",
        "sep": [last, special[last]],
        "cls": [first, special[first]],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
