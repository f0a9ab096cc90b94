"""WordPieces: what is known of a tokenizer that cuts words into pieces.

Wu et al. 2016, https://arxiv.org/abs/1609.08144.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentence_embedder.models.stand_ins.known_tokenizer import KnownTokenizer
from sentence_embedder.models.stand_ins.known_values import Fits, a, check, exactly, none_or
from sentence_embedder.models.stand_ins.tokenizer_files import TokenizerFiles


@dataclass(frozen=True, kw_only=True)
class WordPieces(KnownTokenizer):
    """What is known of a tokenizer that cuts words into pieces; arguments as for ``KnownTokenizer``."""

    model = "WordPiece"

    def _settings(self) -> Mapping[str, Fits]:
        return {
            "do_lower_case": a(bool),
            "tokenize_chinese_chars": a(bool),
            "strip_accents": none_or(a(bool)),
            "do_basic_tokenize": exactly(True),
            "never_split": exactly(None),
        }

    def _check_parts(self, files: TokenizerFiles) -> None:
        config, tokenizer = files.config, files.tokenizer
        expected: Mapping[str, Mapping[str, Any]] = {
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
                "strip_accents": config.get("strip_accents"),
                "lowercase": config.get("do_lower_case", True),
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "model": {
                "type": self.model,
                "unk_token": self.roles["unk_token"],
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": tokenizer["model"]["vocab"],
            },
        }
        for name, part in expected.items():
            check({"type": part["type"], **tokenizer[name]} == part, name)

    def _own_parts(self, _: Mapping[str, Any], /) -> Mapping[str, Any]:
        return {"decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
