"""What is compared with sentence-transformers: texts, and calls of ``encode`` on them.

This file runs in the environments of both: it needs numpy, torch and whichever class it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

TEXTS = (
    "The cat sat on the mat.",
    "hello world",
    "A long sentence about token embeddings in Paris and London, which is cut: " + "the quick red dog runs. " * 6,
    "query",
    "What is the text of the two vectors?",
    "kitten",
    "Größe, naïve café, 東京 and emoji 🙂 !!",
    "the the the the the the the",
    "a",
    "Is a cat a dog?  Two  spaces,\ttab and\nline.",
    "1234567890",
    "hello world",
)
"""No empty text: pooled over no token at all it is −inf or NaN in the reference, by decision zero here."""

SPACED_TEXTS = ("  the cat  ", "\thello world\n", " a", "two vectors ")
"""Texts that versions before 5.4 strip and later ones do not: compared with 2.7 only."""

PROMPT = "query:"
"""Without a space behind it, which later versions count as a token of the prompt for byte-level tokenizers."""

SPACED_PROMPT = "query: "
"""With one, and left out of the pooling: compared with 2.7 only."""


@dataclass(frozen=True)
class Case:
    """A call of ``encode``, as far as its arguments change the numbers.

    Args:
        prompt: The prompt.
        include_prompt: Whether the pooling counts the prompt's tokens.
        precision: As for ``encode``, like the two that follow.
        normalize_embeddings: See above.
        output_value: See above.
        truncate_dim: Width to which embeddings are cut.
    """

    prompt: str | None = None
    include_prompt: bool = True
    precision: str = "float32"
    normalize_embeddings: bool = False
    output_value: str | None = "sentence_embedding"
    truncate_dim: int | None = None

    def __str__(self) -> str:
        parts = (self.prompt, self.include_prompt, self.precision, self.normalize_embeddings)
        return "|".join(map(str, (*parts, self.output_value, self.truncate_dim)))


def cases() -> Iterator[Case]:
    """Every combination of the arguments that change the numbers."""
    prompts = [(None, True), (PROMPT, True), (PROMPT, False)]
    precisions = ["float32", "int8", "uint8", "binary", "ubinary"]
    for (prompt, included), precision, normalized, width in product(prompts, precisions, (False, True), (None, 16)):
        yield Case(prompt, included, precision, normalized, "sentence_embedding", width)
    for (prompt, included), precision in product(prompts, ["float32", "int8", "ubinary"]):
        yield Case(prompt, included, precision, output_value="token_embeddings")
    for (prompt, included), width in product(prompts, (None, 16)):
        yield Case(prompt, included, output_value=None, truncate_dim=width)


def texts_for(case: Case, texts: tuple[str, ...] = TEXTS) -> list[str]:
    """The texts of a case: fewer where the output is large."""
    return list(texts if case.output_value == "sentence_embedding" else texts[:4])


def set_include_prompt(model: Any, include_prompt: bool) -> None:
    """Set what the poolings count, in whichever class the model is of."""
    for module in model:
        if hasattr(module, "include_prompt"):
            module.include_prompt = include_prompt


def run(model: Any, case: Case, texts: list[str], **arguments: Any) -> list[np.ndarray[Any, Any]]:
    """The arrays that a call returns: the one array, or one array a text.

    Args:
        model: A SentenceTransformer of either library.
        case: The call.
        texts: The texts.
        arguments: Arguments of ``encode`` that should not change the numbers.
    """
    set_include_prompt(model, case.include_prompt)
    before, model.truncate_dim = model.truncate_dim, case.truncate_dim
    try:
        rows = model.encode(
            texts,
            **{"prompt": case.prompt, **arguments},
            precision=case.precision,
            normalize_embeddings=case.normalize_embeddings,
            output_value=case.output_value,
        )
    finally:
        model.truncate_dim = before
    if case.output_value == "sentence_embedding":
        return [np.stack([np.asarray(row) for row in rows])]
    if case.output_value is None:
        rows = [row["sentence_embedding"] for row in rows]
    return [np.asarray(row) for row in rows]


def as_item(item: Any) -> Any:
    """What is embedded: an image for the name of one."""
    if isinstance(item, str) and item.startswith("image:"):
        from PIL import Image

        numbers = np.random.default_rng(int(item.removeprefix("image:"))).integers(0, 256, (40, 50, 3))
        return Image.fromarray(numbers.astype(np.uint8))
    return item
