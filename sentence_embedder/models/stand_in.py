"""StandIn: a checkpoint as ``encode`` needs it, read without transformers, whose import takes longer than all else.

Only checkpoints are read of which every file is known, to the last key, to mean what is made of it here: those of
BERT with its usual tokenizer, and so most models of sentence embeddings.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.files import SAFE_WEIGHTS_NAME, read_tensors
from sentence_embedder.record import Count, Fields, FormatError, Record, Width

logger = logging.getLogger(__name__)

_Record = TypeVar("_Record", bound=Record)

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

_COUNTED = frozenset({"embeddings.position_ids"})
"""What older versions saved of numbers that are counted."""

_WITHOUT_LIMIT = int(1e30)
"""The limit of a tokenizer that has none, as transformers has it."""


@dataclass(frozen=True, kw_only=True)
class BertConfig(Record):
    """``config.json`` of a BERT, as far as it decides what is computed.

    Args:
        model_type: The architecture.
        position_embedding_type: A table of positions.
        is_decoder: Whether tokens look only back.
        add_cross_attention: Whether they look at another text.
        hidden_act: The activation.
        vocab_size: Rows of the table of tokens.
        hidden_size: Width of a token's embedding.
        num_hidden_layers: How many layers there are.
        num_attention_heads: How many heads each has.
        intermediate_size: Width inside a layer.
        max_position_embeddings: Rows of the table of positions.
        type_vocab_size: Rows of the table of types.
        layer_norm_eps: What norms add to the variance.
        architectures: The classes that the weights belong to.
    """

    model_type: Literal["bert"]
    position_embedding_type: Literal["absolute"] = "absolute"
    is_decoder: Literal[False] = False
    add_cross_attention: Literal[False] = False
    hidden_act: Literal["gelu"] = "gelu"
    vocab_size: Width
    hidden_size: Width
    num_hidden_layers: Count
    num_attention_heads: Count
    intermediate_size: Width
    max_position_embeddings: Width
    type_vocab_size: Width
    layer_norm_eps: float = 1e-12
    architectures: Sequence[str] | None = None


_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
"""What a BERT reads."""

_OF_NO_ACCOUNT_TO_MODEL: Mapping[str, Any] = {
    **dict.fromkeys(("_name_or_path", "transformers_version", "torch_dtype", "dtype"), str),
    **dict.fromkeys(("attention_probs_dropout_prob", "hidden_dropout_prob", "classifier_dropout"), float),
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), int),
    **dict.fromkeys(("tie_word_embeddings", "use_cache"), bool),
    **dict.fromkeys(("id2label", "label2id"), Mapping[str, Any]),
    "gradient_checkpointing": Literal[False],
    "initializer_range": float,
}
"""The other keys of ``config.json`` → what their values are."""


@dataclass(frozen=True, kw_only=True)
class BertTokenizerConfig(Record):
    """``tokenizer_config.json`` of a BERT, as far as it decides what tokens a text has.

    Args:
        tokenizer_class: Its class in transformers.
        do_lower_case: Whether texts are lowered.
        tokenize_chinese_chars: Whether each Chinese character is a word.
        strip_accents: Whether accents are dropped; None for as texts are lowered.
        do_basic_tokenize: Whether texts are split at spaces and punctuation first.
        model_max_length: How many tokens are kept.
        padding_side: Where shorter texts are filled.
        truncation_side: Where longer texts are cut.
        pad_token_type_id: The type of what fills them.
        model_input_names: What the model reads.
        added_tokens_decoder: Id → special token.
    """

    tokenizer_class: Literal["BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"]
    do_lower_case: bool = True
    tokenize_chinese_chars: bool = True
    strip_accents: bool | None = None
    do_basic_tokenize: Literal[True] = True
    model_max_length: int = _WITHOUT_LIMIT
    padding_side: Literal["right"] = "right"
    truncation_side: Literal["right"] = "right"
    pad_token_type_id: Literal[0] = 0
    model_input_names: Sequence[str] = _INPUTS
    added_tokens_decoder: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


_OF_NO_ACCOUNT_TO_TOKENIZER: Mapping[str, Any] = {
    **dict.fromkeys(("name_or_path", "special_tokens_map_file", "tokenizer_file", "truncation_strategy"), str),
    **dict.fromkeys(("clean_up_tokenization_spaces", "is_local", "local_files_only"), bool),
    **dict.fromkeys(("max_length", "stride", "pad_to_multiple_of"), int),
    "backend": Literal["tokenizers"],
    "never_split": Literal[None],
}
"""The other keys of ``tokenizer_config.json`` → what their values are."""


_EMPTY = frozenset({"additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"})
"""Keys that say nothing as long as they are empty."""

_ROLES = {f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")}
_NOT_SPACED = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
_SPECIAL = {**_NOT_SPACED, "special": True}
_WORD_PIECE = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
}
_USUAL = {"direction": "Right", "pad_type_id": 0, "pad_token": "[PAD]"}
"""What transformers takes over of the ways to fill and to cut that a tokenizer was saved with."""


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
    model_input_names: Sequence[str] = _INPUTS


class StandInModel(nn.Module):
    """A BERT, its weights where and as its class in transformers has them; computes the last hidden state of texts.

    Args:
        config: Its configuration.
    """

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
class Settings:
    """The settings of a checkpoint as they were when they were read.

    Args:
        folder: Where.
        files: Name → content.
    """

    folder: Path
    files: Mapping[str, bytes]

    @contextmanager
    def in_folder(self) -> Iterator[Path]:
        """A folder with them: their own, as long as nobody has changed it."""
        if _settings_in(self.folder) == self.files:
            yield self.folder
            return
        with TemporaryDirectory(prefix="settings-") as temporary:
            for name, content in self.files.items():
                (Path(temporary) / name).write_bytes(content)
            yield Path(temporary)


@dataclass(frozen=True)
class StandIn:
    """What stands in for a checkpoint.

    Args:
        settings: What makes the checkpoint itself of the weights.
        model: Has the weights.
        tokenizer: Its tokenizer.
    """

    settings: Settings
    model: StandInModel
    tokenizer: StandInTokenizer


def read_stand_in(folder: Path) -> StandIn | None:
    """What stands in for the checkpoint in a folder; None if something about it is not known, or is broken.

    Args:
        folder: The folder, or what is none.
    """
    if any((folder / name).exists() for name in _UNKNOWN) or not (folder / SAFE_WEIGHTS_NAME).is_file():
        return None
    try:
        files = _settings_in(folder)
        parsed = {name: json.loads(content) for name, content in files.items()}
        config = _known(parsed[_CONFIG_NAME], BertConfig, _OF_NO_ACCOUNT_TO_MODEL)
        tokenizer = _tokenizer(parsed, files[_TOKENIZER_NAME].decode())
        return StandIn(Settings(folder, files), _model(config, read_tensors(folder, "BERT")), tokenizer)
    # A file is missing or broken, or holds something else; tokenizers raises nothing narrower than Exception.
    except Exception as error:  # noqa: BLE001
        logger.debug("%s: transformers is needed: %r", folder, error)
        return None


def _settings_in(folder: Path) -> dict[str, bytes]:
    """Name → content, of those that are there."""
    try:
        return {path.name: path.read_bytes() for path in map(folder.joinpath, _SETTINGS) if path.exists()}
    except OSError:
        return {}


def _check(fits: bool, what: str) -> None:
    if not fits:
        raise FormatError(what, "what is known", "something else")


def _known(data: Mapping[str, Any], record_class: type[_Record], of_no_account: Mapping[str, Any]) -> _Record:
    """The record of a JSON object of which every key is known.

    Args:
        data: The object.
        record_class: What decides something.
        of_no_account: The other keys → what their values are.

    Raises:
        FormatError: There are other keys, or other values.
    """
    record = record_class.from_dict(data)
    others = Fields(record.extra, record_class.__name__)
    for key, kind in of_no_account.items():
        others.take(key, kind, None)
    # A null is not to transformers what a key that is absent is.
    nulls = [key for key in data if data[key] is None and getattr(record, key, None) is not None]
    _check(not others.rest() and not nulls, f"{record_class.__name__}: {[*others.rest(), *nulls]}")
    return record


def _model(config: BertConfig, weights: Mapping[str, Tensor]) -> StandInModel:
    _check(config.hidden_size % config.num_attention_heads == 0, "hidden_size")
    with torch.device("meta"):
        model = StandInModel(config)
    kept = {name: tensor for name, tensor in weights.items() if name not in _COUNTED}
    _check(all(map(torch.is_floating_point, kept.values())), SAFE_WEIGHTS_NAME)
    # A copy: what safetensors gives is the file itself, which may be written anew.
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in kept.items()}
    model.load_state_dict(copies, assign=True)
    return model.eval()


def _tokenizer(parsed: Mapping[str, Any], content: str) -> StandInTokenizer:
    from tokenizers import Tokenizer

    config = parsed[_TOKENIZER_CONFIG_NAME]
    roles = parsed.get(_SPECIAL_TOKENS_NAME, {})
    for name, token in _ROLES.items():
        _check(config.get(name, token) == token, name)
        _check(roles.pop(name, token) in (token, {"content": token, **_NOT_SPACED}), name)
    _check(not roles, _SPECIAL_TOKENS_NAME)
    saying = {key: value for key, value in config.items() if key not in _ROLES and (value or key not in _EMPTY)}
    known = _known(saying, BertTokenizerConfig, _OF_NO_ACCOUNT_TO_TOKENIZER)
    _check(list(known.model_input_names) == list(_INPUTS), "model_input_names")
    tokenizer = parsed[_TOKENIZER_NAME]
    vocabulary = tokenizer["model"]["vocab"]
    special = {token: vocabulary[token] for token in _ROLES.values()}
    added = {str(idx): {"content": token, **_SPECIAL} for token, idx in special.items()}
    parts = {
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": known.tokenize_chinese_chars,
            "strip_accents": known.strip_accents,
            "lowercase": known.do_lower_case,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _template(special),
        "model": {**_WORD_PIECE, "vocab": vocabulary},
    }
    for name, part in parts.items():
        _check(tokenizer[name] == part, name)
    _check({str(token.pop("id")): token for token in tokenizer["added_tokens"]} == added, "added_tokens")
    _check(all(added[idx] == token for idx, token in known.added_tokens_decoder.items()), "added_tokens_decoder")
    for name in ("truncation", "padding"):
        present = tokenizer.get(name) or {}
        _check(all(present.get(key, value) == value for key, value in _USUAL.items()), name)
    return StandInTokenizer(Tokenizer.from_str(content), known.model_max_length, special["[PAD]"])


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
