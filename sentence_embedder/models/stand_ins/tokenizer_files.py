"""TokenizerFiles: what the files of a tokenizer hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TokenizerFiles:
    """The files of a tokenizer.

    Args:
        config: ``tokenizer_config.json``.
        tokenizer: ``tokenizer.json``.
        special_tokens: ``special_tokens_map.json``; empty if there is none.
        content: ``tokenizer.json`` as it is written.
    """

    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    special_tokens: Mapping[str, Any]
    content: str
