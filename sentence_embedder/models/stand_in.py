"""StandIn: a checkpoint as ``encode`` needs it, read without transformers, whose import takes longer than all else.

Only checkpoints are read of which every file is known, to the last key, to mean what is made of it here: those of
BERT with its usual tokenizer, and so most models of sentence embeddings. What transformers refuses is not known.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.files import SAFE_WEIGHTS_NAME, read_tensors

logger = logging.getLogger(__name__)

_CONFIG_NAME = "config.json"
_TOKENIZER_NAME = "tokenizer.json"
_TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
_SPECIAL_TOKENS_NAME = "special_tokens_map.json"

_SETTINGS = (_CONFIG_NAME, _TOKENIZER_NAME, _TOKENIZER_CONFIG_NAME, _SPECIAL_TOKENS_NAME)
_UNKNOWN = (
    *("adapter_config.json", "added_tokens.json", "processor_config.json", "preprocessor_config.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates", f"{SAFE_WEIGHTS_NAME}.index.json"),
)
"""What may lie beside them and make something else of a checkpoint."""

_LARGEST = 64 * 2**20
"""They are kept in memory: at most so many bytes."""

_COUNTED = frozenset({"embeddings.position_ids"})
"""What older versions saved of numbers that are counted."""

_MOST = 10_000_000
"""Rows of a table."""


class _UnknownError(ValueError):
    """Something is not as it is known to be."""


_Fits = Callable[[Any], bool]
"""Says whether a value of a JSON file is one that is known. A whole number is no float, nor is true a number."""


def _exactly(*known: Any) -> _Fits:
    return lambda value: any(type(value) is type(one) and value == one for one in known)


def _whole(least: int = 0, most: int = _MOST) -> _Fits:
    return lambda value: type(value) is int and least <= value <= most


def _share(*kinds: type) -> _Fits:
    return lambda value: type(value) in kinds and 0 <= value <= 1


def _a(kind: type) -> _Fits:
    return lambda value: type(value) is kind


def _none_or(fits: _Fits) -> _Fits:
    return lambda value: value is None or fits(value)


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(type(one) is str for one in value)


def _are_labels(value: Any) -> bool:
    return type(value) is dict and all(key.isdecimal() and type(one) is str for key, one in value.items())


_MODEL: Mapping[str, _Fits] = {
    # What decides the embeddings.
    "model_type": _exactly("bert"),
    "position_embedding_type": _exactly("absolute"),
    "is_decoder": _exactly(False),
    "add_cross_attention": _exactly(False),
    "hidden_act": _exactly("gelu"),
    "layer_norm_eps": _share(float),
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), _whole(1)),
    **dict.fromkeys(("max_position_embeddings", "type_vocab_size"), _whole(1)),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads"), _whole(1, 1_000)),
    # What does not.
    "architectures": _none_or(_are_texts),
    "attention_probs_dropout_prob": _share(float, int),
    "classifier_dropout": _none_or(_share(float, int)),
    "gradient_checkpointing": _exactly(False),
    "hidden_dropout_prob": _share(float, int),
    "id2label": _are_labels,
    "initializer_range": _share(float),
    "label2id": _a(dict),
    **dict.fromkeys(("_name_or_path", "transformers_version", "directionality", "pooler_type"), _a(str)),
    **dict.fromkeys(("dtype", "torch_dtype"), _exactly("float32", "float16", "bfloat16")),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), _none_or(_whole())),
    **dict.fromkeys(("cls_token_id", "sep_token_id"), _whole()),
    **dict.fromkeys(("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"), _whole()),
    "pooler_size_per_head": _whole(),
    **dict.fromkeys(("tie_word_embeddings", "use_cache"), _a(bool)),
}
"""Keys of ``config.json`` → their values."""

_ROLES = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
"""The special tokens."""

_NOT_SPACED = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}

_INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
"""What a BERT reads."""

_TOKENIZER: Mapping[str, _Fits] = {
    # What decides the tokens.
    "tokenizer_class": _exactly(
        "BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"
    ),
    **{role: _exactly(token) for role, token in _ROLES.items()},
    "do_lower_case": _a(bool),
    "tokenize_chinese_chars": _a(bool),
    "strip_accents": _none_or(_a(bool)),
    "do_basic_tokenize": _exactly(True),
    "never_split": _exactly(None),
    "model_max_length": _whole(1, int(1e30)),
    "padding_side": _exactly("right"),
    "truncation_side": _exactly("right"),
    "pad_token_type_id": _exactly(0),
    "model_input_names": _exactly(_INPUTS),
    "added_tokens_decoder": _a(dict),
    "additional_special_tokens": _exactly([]),
    "extra_special_tokens": _exactly([], {}),
    "model_specific_special_tokens": _exactly({}),
    # What does not.
    **dict.fromkeys(("name_or_path", "special_tokens_map_file", "tokenizer_file"), _none_or(_a(str))),
    "truncation_strategy": _exactly("longest_first"),
    **dict.fromkeys(("clean_up_tokenization_spaces", "is_local", "local_files_only"), _a(bool)),
    "max_length": _none_or(_whole(1)),
    "stride": _exactly(0),
    "pad_to_multiple_of": _none_or(_whole(1)),
    "backend": _exactly("tokenizers"),
}
"""Keys of ``tokenizer_config.json`` → their values."""

_TRUNCATION: Mapping[str, _Fits] = {
    "direction": _exactly("Right"),
    "max_length": _whole(1),
    "strategy": _exactly("LongestFirst"),
    "stride": _exactly(0),
}
_PADDING: Mapping[str, _Fits] = {
    "direction": _exactly("Right"),
    "pad_id": _whole(),
    "pad_to_multiple_of": _none_or(_whole(1)),
    "pad_token": _exactly("[PAD]"),
    "pad_type_id": _exactly(0),
    "strategy": lambda value: value == "BatchLongest" or (type(value) is dict and [*value] == ["Fixed"]),
}
"""How a tokenizer was set to fill and to cut when it was saved, of which transformers takes something over."""


@dataclass(frozen=True, kw_only=True)
class BertConfig:
    """``config.json`` of a BERT, as far as it is looked at: names and meaning are those of transformers."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    is_decoder: bool = False
    add_cross_attention: bool = False
    pad_token_id: int | None = 0
    architectures: Sequence[str] | None = None
    model_type: str = "bert"


@dataclass(frozen=True)
class StandInTokenizer:
    """What ``encode`` asks of a tokenizer of transformers, under the same names.

    Args:
        backend_tokenizer: A ``tokenizers.Tokenizer``.
        model_max_length: How many tokens are kept.
        pad_token_id: What fills shorter texts.
    """

    backend_tokenizer: Any
    model_max_length: int
    pad_token_id: int
    pad_token_type_id: int = 0
    padding_side: Literal["right"] = "right"
    truncation_side: Literal["right"] = "right"
    split_special_tokens: bool = False
    model_input_names: Sequence[str] = tuple(_INPUTS)


class StandInModel(nn.Module):
    """A BERT, its weights where and as its class in transformers has them; computes the last hidden state of texts.

    Args:
        config: Its configuration.
    """

    architecture = "BertModel"
    """Its class in transformers."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        width, wider = config.hidden_size, config.intermediate_size

        def table(rows: int) -> nn.Module:
            # Without a weight it would be filled at random, for which torch imports its compiler.
            return nn.Embedding(rows, width, _weight=torch.empty(rows, width))

        def norm() -> nn.Module:
            return nn.LayerNorm(width, eps=config.layer_norm_eps)

        self.config = config
        self.embeddings = _parts(
            word_embeddings=table(config.vocab_size),
            position_embeddings=table(config.max_position_embeddings),
            token_type_embeddings=table(config.type_vocab_size),
            LayerNorm=norm(),
        )
        self.encoder = _parts(layer=nn.ModuleList())
        for _ in range(config.num_hidden_layers):
            heads = _parts(**{name: nn.Linear(width, width) for name in ("query", "key", "value")})
            after_heads = _parts(dense=nn.Linear(width, width), LayerNorm=norm())
            layer = _parts(
                attention=_parts(self=heads, output=after_heads),
                intermediate=_parts(dense=nn.Linear(width, wider)),
                output=_parts(dense=nn.Linear(wider, width), LayerNorm=norm()),
            )
            self.encoder.layer.append(layer)
        self.pooler = _parts(dense=nn.Linear(width, width))

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of tokens."""
        table: nn.Embedding = self.embeddings.word_embeddings
        return table

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> tuple[Tensor]:
        """Token ids and where they are, (texts, tokens) → (texts, tokens, hidden_size)."""
        tables = self.embeddings
        positions = tables.position_embeddings.weight[: input_ids.shape[1]]
        x = tables.LayerNorm(tables.word_embeddings(input_ids) + positions + tables.token_type_embeddings.weight[0])
        mask = attention_mask[:, None, None].bool()
        for layer in self.encoder.layer:
            attention, after = layer.attention.self, layer.attention.output
            query, key, value = (
                part(x).unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)
                for part in (attention.query, attention.key, attention.value)
            )
            by_head = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            attended = by_head.transpose(1, 2).flatten(2)
            x = after.LayerNorm(after.dense(attended) + x)
            wider = functional.gelu(layer.intermediate.dense(x))
            x = layer.output.LayerNorm(layer.output.dense(wider) + x)
        return (x,)


def _parts(**parts: nn.Module) -> Any:
    """A module that is nothing but its parts."""
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


@dataclass(frozen=True)
class StandIn:
    """What stands in for a checkpoint.

    Args:
        model: Has the weights.
        tokenizer: Its tokenizer.
        settings: Name → content, of the files that make the checkpoint itself of the weights.
    """

    model: StandInModel
    tokenizer: StandInTokenizer
    settings: Mapping[str, bytes]


def read_stand_in(folder: Path) -> StandIn | None:
    """What stands in for the checkpoint in a folder; None if something about it is not known, or is broken.

    Args:
        folder: The folder, or what is none.
    """
    settings = settings_in(folder)
    if settings is None or not (folder / SAFE_WEIGHTS_NAME).is_file():
        return None
    try:
        parsed = {name: json.loads(content) for name, content in settings.items()}
        config = _config(parsed[_CONFIG_NAME])
        tokenizer = _tokenizer(parsed, settings[_TOKENIZER_NAME].decode())
        return StandIn(_model(config, read_tensors(folder, "BERT")), tokenizer, settings)
    # A file is missing or broken, or holds something else; tokenizers raises nothing narrower than Exception.
    except Exception as error:  # noqa: BLE001
        logger.debug("%s: transformers is needed: %r", folder, error)
        return None


def settings_in(folder: Path) -> dict[str, bytes] | None:
    """Name → content, of the settings in a folder that are looked at; None if there are others, or none."""
    try:
        paths = [path for path in map(folder.joinpath, _SETTINGS) if path.exists()]
        is_known = not any((folder / name).exists() for name in _UNKNOWN)
        if not paths or not is_known or sum(path.stat().st_size for path in paths) > _LARGEST:
            return None
        return {path.name: path.read_bytes() for path in paths}
    except OSError:
        return None


def _check(fits: bool, what: str) -> None:
    if not fits:
        raise _UnknownError(what)


def _check_keys(data: Any, known: Mapping[str, _Fits], where: str) -> None:
    for key, value in data.items():
        _check(key in known and known[key](value), f"{where}: {key}")


def _config(data: Any) -> BertConfig:
    _check_keys(data, _MODEL, _CONFIG_NAME)
    _check("model_type" in data, "model_type")
    config = BertConfig(**{field.name: data[field.name] for field in fields(BertConfig) if field.name in data})
    _check(config.hidden_size % config.num_attention_heads == 0, "hidden_size")
    _check((config.pad_token_id or 0) < config.vocab_size, "pad_token_id")
    return config


def _model(config: BertConfig, weights: Mapping[str, Tensor]) -> StandInModel:
    with torch.device("meta"):
        model = StandInModel(config)
    kept = {name: tensor for name, tensor in weights.items() if name not in _COUNTED}
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    _check({name: tensor.shape for name, tensor in kept.items()} == expected, SAFE_WEIGHTS_NAME)
    _check(all(map(torch.is_floating_point, kept.values())), SAFE_WEIGHTS_NAME)
    # A copy: what safetensors gives is the file itself, which may be written anew.
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in kept.items()}
    model.load_state_dict(copies, assign=True)
    return model.eval()


def _tokenizer(parsed: Mapping[str, Any], content: str) -> StandInTokenizer:
    from tokenizers import Tokenizer

    config, tokenizer = parsed[_TOKENIZER_CONFIG_NAME], parsed[_TOKENIZER_NAME]
    _check_keys(config, _TOKENIZER, _TOKENIZER_CONFIG_NAME)
    _check("tokenizer_class" in config, "tokenizer_class")
    # By default a tokenizer of no architecture does not tell the texts of a pair apart.
    _check("model_input_names" in config or config["tokenizer_class"].startswith("Bert"), "model_input_names")
    _check_keys(tokenizer.get("truncation") or {}, _TRUNCATION, "truncation")
    _check_keys(tokenizer.get("padding") or {}, _PADDING, "padding")
    vocabulary = tokenizer["model"]["vocab"]
    special = {token: vocabulary[token] for token in _ROLES.values()}
    parts = {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
            "strip_accents": config.get("strip_accents"),
            "lowercase": config.get("do_lower_case", True),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _template(special),
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    for name, part in parts.items():
        _check(tokenizer[name] == part, name)
    added = {str(idx): {"content": token, **_NOT_SPACED, "special": True} for token, idx in special.items()}
    ids = frozenset(special.values())
    _check(sum(idx in ids for idx in vocabulary.values()) == len(ids) == len(_ROLES), "special tokens")
    _check(len(tokenizer["added_tokens"]) == len(added), "added_tokens")
    _check({str(token.pop("id")): token for token in tokenizer["added_tokens"]} == added, "added_tokens")
    for idx, token in config.get("added_tokens_decoder", {}).items():
        _check(added[idx] == token, "added_tokens_decoder")
    for name, token in parsed.get(_SPECIAL_TOKENS_NAME, {}).items():
        _check(token in (_ROLES[name], {"content": _ROLES[name], **_NOT_SPACED}), name)
    limit = config.get("model_max_length", int(1e30))
    return StandInTokenizer(Tokenizer.from_str(content), limit, special["[PAD]"])


def _template(special: Mapping[str, int]) -> dict[str, Any]:
    """What puts a token before texts, and behind each."""

    def token(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [token("[CLS]", 0), text("A", 0), token("[SEP]", 0)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, text("B", 1), token("[SEP]", 1)],
        "special_tokens": {
            name: {"id": name, "ids": [special[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")
        },
    }
