"""Tokenizers of tiny models as their checkpoints usually have them: tokenizer.json, and tokenizer_config.json."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tokenizers import processors

from tests.tiny_models import ROBERTA_SPECIALS, TINY_MODELS, TinyModel

_ROBERTA_ROLES = {
    **dict.fromkeys(("bos_token", "cls_token"), "<s>"),
    **dict.fromkeys(("eos_token", "sep_token"), "</s>"),
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}

MPNET_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")


def _added(vocabulary: Mapping[str, int], tokens: Sequence[str]) -> list[dict[str, Any]]:
    """Special tokens; a mask takes the space before it."""
    marks = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    return [{"id": vocabulary[name], "content": name, "lstrip": name == "<mask>", **marks} for name in tokens]


def _mpnet() -> tuple[Any, Any]:
    """As microsoft/mpnet-base has it: pieces of words as in BERT, special tokens as in RoBERTa."""
    tokenizer, _ = TINY_MODELS["bert"].tokenizer()
    words = [word for word in tokenizer["model"]["vocab"] if not word.startswith("[")]
    vocabulary = {word: place for place, word in enumerate([*MPNET_TOKENS[:-1], *words, MPNET_TOKENS[-1]])}
    tokenizer["model"]["vocab"] = vocabulary
    tokenizer["added_tokens"] = _added(vocabulary, MPNET_TOKENS)
    tokenizer["post_processor"] = json.loads(
        processors.TemplateProcessing(
            single="<s>:0 $A:0 </s>:0",
            pair="<s>:0 $A:0 </s>:0 </s>:0 $B:1 </s>:1",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        ).__getstate__()
    )
    known = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True, "name_or_path": "x"}
    settings = {**_ROBERTA_ROLES, "unk_token": "[UNK]", **known}
    return tokenizer, {**settings, "model_max_length": 48, "tokenizer_class": "MPNetTokenizer"}


def _distilbert() -> tuple[Any, Any]:
    """As distilbert-base-uncased has it, which is as BERT has it."""
    tokenizer, settings = TINY_MODELS["bert"].tokenizer()
    return tokenizer, {
        **{key: value for key, value in settings.items() if key != "model_input_names"},
        "tokenizer_class": "DistilBertTokenizer",
    }


def _roberta() -> tuple[Any, Any]:
    """As roberta-base has it."""
    tokenizer, _ = TINY_MODELS["roberta"].tokenizer()
    tokenizer["added_tokens"] = _added(tokenizer["model"]["vocab"], ROBERTA_SPECIALS)
    tokenizer["model"].update(continuing_subword_prefix="", end_of_word_suffix="")
    tokenizer["post_processor"] = {
        "type": "RobertaProcessing",
        "sep": ["</s>", 2],
        "cls": ["<s>", 0],
        "trim_offsets": True,
        "add_prefix_space": False,
    }
    known = {"add_prefix_space": False, "errors": "replace", "trim_offsets": True, "model_max_length": 48}
    return tokenizer, {**_ROBERTA_ROLES, **known, "tokenizer_class": "RobertaTokenizer"}


def _xlm_roberta() -> tuple[Any, Any]:
    """As xlm-roberta-base has it, in the form that versions of 2021 wrote."""
    pieces = ["▁the", "▁cat", "▁s", "at", "▁red", "▁do", "▁", *"abcdefghijklmnopqrstuvwxyzï東京!,"]
    likely = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = [*likely, *((piece, -2.0 - place / 8) for place, piece in enumerate(pieces)), ("<mask>", 0.0)]
    ids = {piece: place for place, (piece, _) in enumerate(vocabulary)}
    added = [{**token, "normalized": token["content"] == "<mask>"} for token in _added(ids, ROBERTA_SPECIALS)]
    metaspace = {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [PRECOMPILED, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}],
        },
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": json.loads(
            processors.TemplateProcessing(
                single="<s> $A </s>",
                pair="<s> $A </s> </s> $B </s>",
                special_tokens=[("<s>", 0), ("</s>", 2)],
            ).__getstate__()
        ),
        "decoder": metaspace,
        "model": {"unk_id": 3, "vocab": [list(piece) for piece in vocabulary]},
    }
    mask = {"content": "<mask>", "lstrip": True, "normalized": True, "rstrip": False, "single_word": False}
    settings = {**_ROBERTA_ROLES, "mask_token": {**mask, "__type": "AddedToken"}, "sp_model_kwargs": {}}
    return tokenizer, {**settings, "model_max_length": 48, "tokenizer_class": "XLMRobertaTokenizer"}


def _charsmap(replaced: Mapping[str, str]) -> bytes:
    """A table of SentencePiece that replaces single ASCII characters: a trie, and the texts to which it leads."""
    units, texts = [0] * 1024, b""
    units[0] = 256 << 10  # the root: children lie at 256 xor their character
    for place, (character, other) in enumerate(replaced.items()):
        child, leaf = 256 ^ ord(character), 512 + place
        units[child] = (child ^ leaf) << 10 | 1 << 8 | ord(character)
        units[leaf] = 1 << 31 | len(texts)
        texts += other.encode() + b"\0"
    trie = struct.pack(f"<{len(units)}I", *units)
    return struct.pack("<I", len(trie)) + trie + texts


PRECOMPILED = {
    "type": "Precompiled",
    "precompiled_charsmap": base64.b64encode(_charsmap({"T": "t", "\n": " ", "\t": " "})).decode(),
}
"""A normalizer of SentencePiece; the real one is Unicode's NFKC."""

_XLM_ROBERTA = TinyModel(
    "XLMRobertaModel", {**TINY_MODELS["roberta"].config, "model_type": "xlm-roberta"}, _xlm_roberta
)

USUAL_CHECKPOINTS: Mapping[str, TinyModel] = {
    "bert": TINY_MODELS["bert"],
    "multilingual bert": replace(TINY_MODELS["bert"], tokenizer=_xlm_roberta),
    "distilbert": replace(TINY_MODELS["distilbert"], tokenizer=_distilbert),
    "mpnet": replace(TINY_MODELS["mpnet"], tokenizer=_mpnet),
    "roberta": replace(TINY_MODELS["roberta"], tokenizer=_roberta),
    "xlm-roberta": _XLM_ROBERTA,
}
"""Name → a tiny model with the tokenizer that its checkpoints have."""
