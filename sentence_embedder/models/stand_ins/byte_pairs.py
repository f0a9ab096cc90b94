"""BytePairs: what is known of a tokenizer that joins pairs of bytes.

Radford et al. 2019, https://cdn.openai.com/better-language-models/language_models_are_unsupervised_multitask_learners.pdf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sentence_embedder.models.stand_ins.known_tokenizer import KnownTokenizer
from sentence_embedder.models.stand_ins.known_values import Fits, check, exactly
from sentence_embedder.models.stand_ins.tokenizer_files import TokenizerFiles


@dataclass(frozen=True, kw_only=True)
class BytePairs(KnownTokenizer):
    """What is known of a tokenizer that joins pairs of bytes; arguments as for ``KnownTokenizer``."""

    model = "BPE"

    def _settings(self) -> Mapping[str, Fits]:
        return {
            "add_prefix_space": exactly(False),
            # What decides nothing.
            "errors": exactly("replace"),
            "trim_offsets": exactly(True),
        }

    def _check_parts(self, files: TokenizerFiles) -> None:
        tokenizer, model = files.tokenizer, files.tokenizer["model"]
        fixed = {
            "type": self.model,
            **dict.fromkeys(("dropout", "unk_token")),
            **dict.fromkeys(("continuing_subword_prefix", "end_of_word_suffix"), ""),
            **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
        }
        check({"continuing_subword_prefix", "end_of_word_suffix"} <= model.keys(), "model")
        check({**fixed, **model} == {**fixed, "vocab": model["vocab"], "merges": model["merges"]}, "model")
        check(tokenizer["normalizer"] is None, "normalizer")
        check({**_BYTE_LEVEL, **tokenizer["pre_tokenizer"]} == _BYTE_LEVEL, "pre_tokenizer")

    def _own_parts(self, _: Mapping[str, Any], /) -> Mapping[str, Any]:
        return {"pre_tokenizer": _BYTE_LEVEL, "decoder": {**_BYTE_LEVEL, "add_prefix_space": True}}


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
