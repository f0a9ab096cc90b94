"""StandInTokenizer: a tokenizer without the code of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class StandInTokenizer:
    """What ``encode`` asks of a tokenizer of transformers, under the same names.

    Args:
        backend_tokenizer: A ``tokenizers.Tokenizer``.
        model_max_length: How many tokens are kept.
        pad_token_id: What fills shorter texts.
        model_input_names: What the model reads.
    """

    backend_tokenizer: Any
    model_max_length: int
    pad_token_id: int
    model_input_names: Sequence[str]
    pad_token_type_id: int = 0
    padding_side: Literal["right"] = "right"
    truncation_side: Literal["right"] = "right"
    split_special_tokens: bool = False
