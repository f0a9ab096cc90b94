"""Model folders of a few kilobytes, made from scratch: the same numbers on every machine and in every version.

The folders are in the form that sentence-transformers 2.7 writes, so that every version reads them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WORDS = [
    "a",
    "about",
    "and",
    "are",
    "cat",
    "dog",
    "embedding",
    "hello",
    "in",
    "is",
    "kitten",
    "london",
    "long",
    "model",
    "of",
    "on",
    "paris",
    "query",
    "quick",
    "red",
    "runs",
    "sat",
    "sentence",
    "sleeps",
    "small",
    "text",
    "the",
    "token",
    "two",
    "vector",
    "what",
    "where",
    "world",
]
PIECES = ["##s", "##ing", "##ed", "##er", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789")]
CHARACTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,:;!?'-"]

POOLING_FLAGS = (
    "cls_token",
    "mean_tokens",
    "max_tokens",
    "mean_sqrt_len_tokens",
    "weightedmean_tokens",
    "lasttoken",
)

_HIDDEN = 32
_ENCODER = {
    "hidden_size": _HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "hidden_act": "gelu",
}


@dataclass(frozen=True)
class TinyModel:
    """What a tiny model is made of.

    Args:
        architecture: The class of transformers that its config.json names.
        config: The rest of config.json.
        tokenizer: Makes tokenizer.json and the settings in tokenizer_config.json.
        pooling: Flags of the pooling that are set.
        tail: Folder name → config.json of the modules behind the pooling.
        max_seq_length: Longest input in tokens.
        do_lower_case: Whether texts are lowered.
        prompts: The prompts of the model.
    """

    architecture: str
    config: Mapping[str, Any]
    tokenizer: Callable[[], tuple[dict[str, Any], dict[str, Any]]]
    pooling: Sequence[str] = ("mean_tokens",)
    tail: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    max_seq_length: int = 24
    do_lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=lambda: {"query": "query:", "document": ""})


def _word_piece(specials: Sequence[str], *, first: str, last: str, type_ids: bool) -> tuple[Any, Any]:
    """A lower-casing WordPiece tokenizer over WORDS, with a token before and one behind every text."""
    tokens = dict.fromkeys([*specials, *WORDS, *CHARACTERS, *PIECES])
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = {
        "model": {
            "type": "WordPiece",
            "unk_token": specials[_ROLES[tuple(specials)]["unk"]],
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "post_processor": _template(specials, first=first, last=last, type_ids=type_ids),
    }
    return _with_specials(tokenizer, specials), _settings(specials, type_ids=type_ids)


def _byte_pairs(specials: Sequence[str], *, first: str | None, last: str | None, left: bool) -> tuple[Any, Any]:
    """A byte-level BPE tokenizer with a few merges, with or without a token before and behind every text."""
    from tokenizers.pre_tokenizers import ByteLevel

    merges = ["t h", "th e", "Ġ the", "Ġ a", "i n", "in g", "o n", "e r", "Ġ s", "q u", "e n", "t en", "Ġs en"]
    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*specials, *alphabet, *dict.fromkeys(merge.replace(" ", "") for merge in merges)]
    tokenizer = {
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: place for place, token in enumerate(tokens)},
            "merges": merges,
        },
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "post_processor": _template(specials, first=first, last=last, type_ids=False),
    }
    settings = {**_settings(specials, type_ids=False), "padding_side": "left" if left else "right"}
    return _with_specials(tokenizer, specials), settings


def _with_specials(tokenizer: dict[str, Any], specials: Sequence[str]) -> dict[str, Any]:
    marks = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": place, "content": token, **marks} for place, token in enumerate(specials)]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, **tokenizer}


def _template(specials: Sequence[str], *, first: str | None, last: str | None, type_ids: bool) -> dict[str, Any]:
    def mark(token: str | None, type_id: int) -> list[dict[str, Any]]:
        return [] if token is None else [{"SpecialToken": {"id": token, "type_id": type_id}}]

    def text(name: str, type_id: int) -> list[dict[str, Any]]:
        return [{"Sequence": {"id": name, "type_id": type_id}}]

    second = int(type_ids)
    return {
        "type": "TemplateProcessing",
        "single": [*mark(first, 0), *text("A", 0), *mark(last, 0)],
        "pair": [*mark(first, 0), *text("A", 0), *mark(last, 0), *text("B", second), *mark(last, second)],
        "special_tokens": {
            token: {"id": token, "ids": [list(specials).index(token)], "tokens": [token]}
            for token in (first, last)
            if token is not None
        },
    }


def _settings(specials: Sequence[str], *, type_ids: bool) -> dict[str, Any]:
    names = ["input_ids", *(["token_type_ids"] if type_ids else []), "attention_mask"]
    roles = {f"{role}_token": specials[place] for role, place in _ROLES[tuple(specials)].items()}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 48,
        "padding_side": "right",
        "model_input_names": names,
        **roles,
    }


BERT_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
DECODER_SPECIALS = ("<pad>", "<eos>")
_ROLES: Mapping[tuple[str, ...], Mapping[str, int]] = {
    BERT_SPECIALS: {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4},
    ROBERTA_SPECIALS: {"bos": 0, "cls": 0, "pad": 1, "eos": 2, "sep": 2, "unk": 3, "mask": 4},
    DECODER_SPECIALS: {"pad": 0, "eos": 1},
}


def _bert_tokenizer() -> tuple[Any, Any]:
    return _word_piece(BERT_SPECIALS, first="[CLS]", last="[SEP]", type_ids=True)


_BERT = TinyModel(
    "BertModel",
    {"model_type": "bert", "max_position_embeddings": 64, "type_vocab_size": 2, "pad_token_id": 0, **_ENCODER},
    _bert_tokenizer,
)
_DECODER_CONFIG = {
    "model_type": "qwen2",
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
    **_ENCODER,
    "hidden_act": "silu",
}

TINY_MODELS: Mapping[str, TinyModel] = {
    "bert": _BERT,
    "bert-all-modes": TinyModel("BertModel", _BERT.config, _bert_tokenizer, pooling=POOLING_FLAGS),
    "bert-chain": TinyModel(
        "BertModel",
        _BERT.config,
        _bert_tokenizer,
        pooling=("cls_token", "max_tokens"),
        tail={
            "2_Dense": {
                "in_features": 64,
                "out_features": 24,
                "bias": True,
                "activation_function": "torch.nn.modules.activation.GELU",
            },
            "3_LayerNorm": {"dimension": 24},
            "4_Dropout": {"dropout": 0.3},
            "5_Normalize": {},
        },
    ),
    "roberta": TinyModel(
        "RobertaModel",
        {
            "model_type": "roberta",
            "max_position_embeddings": 66,
            "type_vocab_size": 1,
            **_ENCODER,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
        lambda: _byte_pairs(ROBERTA_SPECIALS, first="<s>", last="</s>", left=False),
        do_lower_case=True,
    ),
    "mpnet": TinyModel(
        "MPNetModel",
        {
            "model_type": "mpnet",
            "max_position_embeddings": 66,
            "relative_attention_num_buckets": 32,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
            **_ENCODER,
        },
        lambda: _word_piece(ROBERTA_SPECIALS, first="<s>", last="</s>", type_ids=False),
        pooling=("cls_token",),
    ),
    "distilbert": TinyModel(
        "DistilBertModel",
        {
            "model_type": "distilbert",
            "max_position_embeddings": 64,
            "dim": _HIDDEN,
            "hidden_dim": 64,
            "n_layers": 2,
            "n_heads": 4,
            "activation": "gelu",
            "pad_token_id": 0,
        },
        lambda: _word_piece(BERT_SPECIALS, first="[CLS]", last="[SEP]", type_ids=False),
        pooling=("max_tokens",),
    ),
    "decoder": TinyModel(
        "Qwen2Model",
        _DECODER_CONFIG,
        lambda: _byte_pairs(DECODER_SPECIALS, first=None, last="<eos>", left=True),
        pooling=("lasttoken",),
    ),
    "decoder-all-modes": TinyModel(
        "Qwen2Model",
        _DECODER_CONFIG,
        lambda: _byte_pairs(DECODER_SPECIALS, first=None, last=None, left=True),
        pooling=POOLING_FLAGS,
    ),
}


def write_transformer(folder: Path, model: TinyModel) -> None:
    """Write config.json, weights and tokenizer: a plain checkpoint of transformers."""
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, settings = model.tokenizer()
    config = {**model.config, "vocab_size": len(tokenizer["model"]["vocab"]), "architectures": [model.architecture]}
    _write(folder / "config.json", config)
    _write(folder / "tokenizer.json", tokenizer)
    _write(folder / "tokenizer_config.json", settings)
    auto_model: Any = transformers.AutoModel
    module = auto_model.from_config(transformers.AutoConfig.from_pretrained(folder))
    weights = {name: numbers_of(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()}
    weights = {name: array for name, array in weights.items() if array.ndim}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_model(folder: Path, model: TinyModel) -> None:
    """Write a whole model folder in the form of sentence-transformers 2.7, with pickled weights behind the
    Transformer: the only ones that 2.7 reads there.
    """
    import torch

    write_transformer(folder, model)
    settings = {"max_seq_length": model.max_seq_length, "do_lower_case": model.do_lower_case}
    _write(folder / "sentence_bert_config.json", settings)
    flags = {f"pooling_mode_{flag}": flag in model.pooling for flag in POOLING_FLAGS}
    tail: dict[str, Mapping[str, Any]] = {
        "1_Pooling": {"word_embedding_dimension": _HIDDEN, **flags, "include_prompt": True},
        **model.tail,
    }
    for name, config in tail.items():
        (folder / name).mkdir()
        if config:
            _write(folder / name / "config.json", config)
        shapes = _tail_shapes(name.partition("_")[2], config)
        if shapes:
            weights = {key: torch.from_numpy(numbers_of(f"{name}.{key}", shape)) for key, shape in shapes.items()}
            torch.save(weights, folder / name / "pytorch_model.bin")
    paths = ["", *tail]
    rows = [
        {
            "idx": idx,
            "name": str(idx),
            "path": path,
            "type": f"sentence_transformers.models.{path.partition('_')[2] or 'Transformer'}",
        }
        for idx, path in enumerate(paths)
    ]
    _write(folder / "modules.json", rows)
    versions = {"sentence_transformers": "2.7.0", "transformers": "4.40.2", "pytorch": "2.3.0"}
    prompts = {"prompts": dict(model.prompts), "default_prompt_name": None}
    _write(folder / "config_sentence_transformers.json", {"__version__": versions, **prompts})


def _tail_shapes(module: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    if module == "Dense":
        shape = (config["out_features"], config["in_features"])
        return {"linear.weight": shape, "linear.bias": shape[:1]}
    if module == "LayerNorm":
        return {"norm.weight": (config["dimension"],), "norm.bias": (config["dimension"],)}
    return {}


def numbers_of(name: str, shape: tuple[int, ...]) -> Any:
    """Numbers that depend on the name of a tensor alone, large enough for texts to differ."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    numbers = generator.standard_normal(shape).astype(np.float32)
    is_norm_weight = "norm" in name.lower() and name.endswith("weight")
    return numbers * np.float32(0.1) + np.float32(1) if is_norm_weight else numbers * np.float32(0.25)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
