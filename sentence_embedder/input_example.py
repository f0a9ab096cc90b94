"""InputExample: one example of a training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class InputExample:
    """Texts that belong together, and what is known of them.

    Args:
        guid: An id of the example.
        texts: The texts, as many as the loss wants.
        label: The label, as the loss wants it: a number, a class or a vector.
    """

    def __init__(self, guid: str = "", texts: Sequence[Any] | None = None, label: Any = 0) -> None:
        self.guid = guid
        self.texts = texts
        self.label = label

    def __str__(self) -> str:
        return f"<InputExample> label: {self.label}, texts: {'; '.join(map(str, self.texts or ()))}"
