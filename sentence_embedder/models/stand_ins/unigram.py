"""Unigram: what is known of a tokenizer that cuts texts into the pieces that are likeliest together.

Kudo 2018, https://arxiv.org/abs/1804.10959.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from sentence_embedder.models.stand_ins.known_tokenizer import KnownTokenizer
from sentence_embedder.models.stand_ins.known_values import Fits, a, check, exactly, none_or
from sentence_embedder.models.stand_ins.post_processors import template
from sentence_embedder.models.stand_ins.tokenizer_files import TokenizerFiles

_SPACE = "▁"
"""Stands before what begins a word."""

_UNKNOWN_ID = 3
"""The id of what is in no piece, whatever ``tokenizer.json`` says."""

_SOUND_SINCE = (5, 3)
"""Before this version of transformers, its own classes lost the normalizer."""


@dataclass(frozen=True, kw_only=True)
class Unigram(KnownTokenizer):
    """What is known of a tokenizer that takes the likeliest pieces; arguments as for ``KnownTokenizer``."""

    model = "Unigram"

    def _settings(self) -> Mapping[str, Fits]:
        return {
            "add_prefix_space": exactly(True),
            # What decides nothing.
            "sp_model_kwargs": exactly({}),
            **dict.fromkeys(("do_lower_case", "tokenize_chinese_chars"), a(bool)),
            "strip_accents": none_or(a(bool)),
        }

    def _vocabulary(self, model: Mapping[str, Any]) -> Mapping[str, int]:
        vocabulary = {piece: place for place, (piece, _) in enumerate(model["vocab"])}
        check(len(vocabulary) == len(model["vocab"]), "vocab")
        return vocabulary

    def _check_parts(self, files: TokenizerFiles) -> None:
        check(_release("transformers") >= _SOUND_SINCE, "transformers")
        tokenizer, model = files.tokenizer, files.tokenizer["model"]
        fixed = {"type": self.model, "unk_id": _UNKNOWN_ID, "byte_fallback": False}
        check({**fixed, **model} == {**fixed, "vocab": model["vocab"]}, "model")
        check(model["vocab"][_UNKNOWN_ID][0] == self.roles["unk_token"], "vocab")
        normalizers = _in_sequence(tokenizer["normalizer"], "normalizers")
        check(not normalizers or normalizers[0]["type"] == "Precompiled", "normalizer")
        check(normalizers[1:] in _SPACES_JOINED, "normalizer")
        *before, metaspace = _in_sequence(tokenizer["pre_tokenizer"], "pretokenizers")
        check(before in ([], [_WHITESPACE]), "pre_tokenizer")
        check({"prepend_scheme", "add_prefix_space"} & metaspace.keys() != set(), "pre_tokenizer")
        check({**_METASPACE, **_OLDER, **metaspace} == {**_METASPACE, **_OLDER}, "pre_tokenizer")

    def _own_parts(self, tokenizer: Mapping[str, Any], /) -> Mapping[str, Any]:
        first = _in_sequence(tokenizer["normalizer"], "normalizers")[:1]
        return {
            "normalizer": first[0] if first else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_WHITESPACE, _METASPACE]},
            "decoder": _METASPACE,
        }


def _in_sequence(part: Mapping[str, Any] | None, key: str) -> Sequence[Mapping[str, Any]]:
    """The steps of which a part of ``tokenizer.json`` is made."""
    if part is None:
        return []
    steps: Sequence[Mapping[str, Any]] = part[key] if part["type"] == "Sequence" else [part]
    return steps


def _release(package: str) -> tuple[int, ...]:
    """The first two numbers of the version that is installed."""
    return tuple(int(number) for number in version(package).split(".")[:2])


_METASPACE = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True}
_OLDER = {"str_rep": _SPACE, "add_prefix_space": True}
"""What older versions wrote in its place, or beside it."""

_WHITESPACE = {"type": "WhitespaceSplit"}

_SPACES_JOINED: Sequence[Sequence[Mapping[str, Any]]] = (
    [],
    [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}],
    [
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": _SPACE},
    ],
)
"""What versions of transformers put behind the normalizer of SentencePiece, and its own classes leave out."""

_ROLES = {
    **dict.fromkeys(("bos_token", "cls_token"), "<s>"),
    **dict.fromkeys(("eos_token", "sep_token"), "</s>"),
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}

XLM_ROBERTA_TOKENIZER = Unigram(
    name="XLMRoberta",
    roles=_ROLES,
    inputs=("input_ids", "attention_mask"),
    post_processors=lambda special: [
        template(special, first="<s>", last="</s>", between=2, tells_apart=False),
    ],
    spaced=frozenset({"<mask>"}),
    normalized=frozenset(_ROLES.values()),
)
