"""The JSON files of a model folder as frozen records: one class a file (or a row of one), no I/O.

Every record reads all the spellings that versions of sentence-transformers ever wrote and writes the one
that all of them read (the 2.7 dialect). Keys that nobody here knows are kept in ``extra`` and written back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeVar, cast, get_args

PoolingMode = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)
"""All pooling modes, in the order in which a pooling of several concatenates them."""

POOLING_FLAGS: Mapping[PoolingMode, str] = MappingProxyType(
    {
        "cls": "pooling_mode_cls_token",
        "mean": "pooling_mode_mean_tokens",
        "max": "pooling_mode_max_tokens",
        "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
        "weightedmean": "pooling_mode_weightedmean_tokens",
        "lasttoken": "pooling_mode_lasttoken",
    }
)
"""Pooling mode → its flag in the 2.7 dialect, in the order in which the file lists them."""

TRANSFORMER_CONFIG_NAMES: tuple[str, ...] = tuple(
    f"sentence_{architecture}_config.json"
    for architecture in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""The names that the Transformer's settings have had; the first is the one that is written."""

_TRANSFORMER_KEYS = {
    # 5.4+ spelling → the spelling of 2.7
    "model_kwargs": "model_args",
    "processor_kwargs": "tokenizer_args",
    "tokenizer_kwargs": "tokenizer_args",
    "config_kwargs": "config_args",
}
_TRANSFORMER_DEFAULTS = {
    # Written by 5.4+ for every text encoder. They say what 2.7 takes for granted, and 2.7 fails on them.
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}

_Kind = TypeVar("_Kind")
_REQUIRED: Any = object()


class FormatError(ValueError):
    """A file of a model folder does not hold what its format says.

    Args:
        where: The file, and the key in it.
        expected: What belongs there.
        found: What is there.
    """

    def __init__(self, where: str, expected: str, found: object) -> None:
        shown = repr(found)
        super().__init__(f"{where}: expected {expected}, found {shown[:80]}{'…' if len(shown) > 80 else ''}")


class _Fields:
    """A JSON object whose keys are taken out one by one; what is left at the end is unknown, and kept."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            raise FormatError(where, "a JSON object", data)
        self._left = dict(data)
        self._where = where

    def take(self, key: str, kind: type[_Kind], default: Any = _REQUIRED) -> _Kind:
        """The value of a key, checked; the default where the key is absent or null."""
        value = self._left.pop(key, None)
        if value is None:
            if default is _REQUIRED:
                raise FormatError(self._where, f"a key {key!r}", sorted(self._left))
            return cast("_Kind", default)
        is_number_for_float = kind is float and isinstance(value, int)
        is_flag_for_number = kind in (int, float) and isinstance(value, bool)
        if is_flag_for_number or not (isinstance(value, kind) or is_number_for_float):
            raise FormatError(f"{self._where}: {key}", f"a value of type {kind.__name__}", value)
        return cast("_Kind", value)

    def take_texts(self, key: str) -> dict[str, str]:
        """A mapping of names to texts; null is an empty text, an absent key an empty mapping."""
        texts = self.take(key, dict, {})
        for name, text in texts.items():
            if text is not None and not isinstance(text, str):
                raise FormatError(f"{self._where}: {key}[{name!r}]", "a text", text)
        return {name: text or "" for name, text in texts.items()}

    def rename(self, names: Mapping[str, str]) -> None:
        """Give keys their older names, where those are not taken."""
        for new, old in names.items():
            if new in self._left:
                self._left.setdefault(old, self._left.pop(new))

    def drop_defaults(self, defaults: Mapping[str, Any]) -> None:
        """Forget keys that say what is meant without them."""
        for key, default in defaults.items():
            if key in self._left and self._left[key] == default:
                del self._left[key]

    def rest(self) -> dict[str, Any]:
        return self._left


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """``config_sentence_transformers.json``: what a model knows beside its modules.

    Args:
        prompts: Name → text to put before a sentence.
        default_prompt_name: The prompt that ``encode`` uses when it is given none.
        similarity_fn_name: ``"cosine"``, ``"dot"``, ``"euclidean"`` or ``"manhattan"``.
        truncate_dim: Width to which embeddings are cut.
        model_type: The family of the model; absent in files of 2.7, where there was one.
        versions: Package → the version that wrote the folder.
        extra: Keys of other versions.
    """

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    model_type: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: object, where: str = "config_sentence_transformers.json") -> ModelConfig:
        fields = _Fields(data, where)
        return cls(
            prompts=fields.take_texts("prompts"),
            default_prompt_name=fields.take("default_prompt_name", str, None),
            similarity_fn_name=fields.take("similarity_fn_name", str, None),
            truncate_dim=fields.take("truncate_dim", int, None),
            model_type=fields.take("model_type", str, None),
            versions=fields.take_texts("__version__"),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, Any]:
        only_if_set = {
            "similarity_fn_name": self.similarity_fn_name,
            "truncate_dim": self.truncate_dim,
            "model_type": self.model_type,
        }
        return {
            "__version__": dict(self.versions),
            "prompts": dict(self.prompts),
            "default_prompt_name": self.default_prompt_name,
            **{key: value for key, value in only_if_set.items() if value is not None},
            **self.extra,
        }


@dataclass(frozen=True, kw_only=True)
class ModuleEntry:
    """A row of ``modules.json``: one module of the chain.

    Args:
        idx: Its place in the chain.
        name: Its key among the children of the model.
        path: Its folder inside the model folder; ``""`` is the model folder itself.
        type: The dotted name of its class, as sentence-transformers spells it.
        kwargs: Names of keyword arguments of ``encode`` that the module wants to be given.
        extra: Keys of other versions.
    """

    idx: int
    name: str
    path: str
    type: str
    kwargs: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: object, where: str = "modules.json") -> ModuleEntry:
        fields = _Fields(data, where)
        return cls(
            idx=fields.take("idx", int),
            name=fields.take("name", str),
            path=fields.take("path", str),
            type=fields.take("type", str),
            kwargs=tuple(fields.take("kwargs", list, [])),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, Any]:
        row: dict[str, Any] = {"idx": self.idx, "name": self.name, "path": self.path, "type": self.type}
        if self.kwargs:
            row["kwargs"] = list(self.kwargs)
        return {**row, **self.extra}


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """``sentence_bert_config.json``: how a transformer's texts are tokenised and its weights loaded.

    Args:
        max_seq_length: Longest input in tokens, special tokens included; absent since 5.4, which leaves it
            to the tokenizer's own ``model_max_length``.
        do_lower_case: Lower the text before it is tokenised.
        tokenizer_name_or_path: A tokenizer from elsewhere.
        model_args: Keyword arguments for loading the weights.
        tokenizer_args: Keyword arguments for loading the tokenizer.
        config_args: Keyword arguments for loading the configuration.
        extra: Keys of other versions.
    """

    max_seq_length: int | None = None
    do_lower_case: bool = False
    tokenizer_name_or_path: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_args: Mapping[str, Any] = field(default_factory=dict)
    config_args: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: object, where: str = TRANSFORMER_CONFIG_NAMES[0]) -> TransformerConfig:
        fields = _Fields(data, where)
        fields.rename(_TRANSFORMER_KEYS)
        fields.drop_defaults(_TRANSFORMER_DEFAULTS)
        return cls(
            max_seq_length=fields.take("max_seq_length", int, None),
            do_lower_case=fields.take("do_lower_case", bool, False),
            tokenizer_name_or_path=fields.take("tokenizer_name_or_path", str, None),
            model_args=fields.take("model_args", dict, {}),
            tokenizer_args=fields.take("tokenizer_args", dict, {}),
            config_args=fields.take("config_args", dict, {}),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, Any]:
        only_if_set = {
            "tokenizer_name_or_path": self.tokenizer_name_or_path,
            "model_args": dict(self.model_args),
            "tokenizer_args": dict(self.tokenizer_args),
            "config_args": dict(self.config_args),
        }
        return {
            "max_seq_length": self.max_seq_length,
            "do_lower_case": self.do_lower_case,
            **{key: value for key, value in only_if_set.items() if value not in (None, {})},
            **self.extra,
        }


@dataclass(frozen=True, kw_only=True)
class PoolingConfig:
    """``config.json`` of a Pooling.

    Args:
        word_embedding_dimension: Width of the token embeddings.
        pooling_modes: The modes, in the order in which their results are concatenated.
        include_prompt: Whether the tokens of a prompt count.
        extra: Keys of other versions.

    Raises:
        ValueError: No mode, or one that does not exist.
    """

    word_embedding_dimension: int
    pooling_modes: Sequence[PoolingMode] = ("mean",)
    include_prompt: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.pooling_modes if mode not in POOLING_MODES]
        if unknown or not self.pooling_modes:
            raise ValueError(f"expected pooling modes among {list(POOLING_MODES)}, found {unknown}")

    @classmethod
    def from_dict(cls, data: object, where: str = "config.json") -> PoolingConfig:
        fields = _Fields(data, where)
        fields.rename({"embedding_dimension": "word_embedding_dimension"})
        flagged = tuple(mode for mode in POOLING_MODES if fields.take(POOLING_FLAGS[mode], bool, False))
        named = fields.take("pooling_mode", object, flagged or ("mean",))
        modes = (named,) if isinstance(named, str) else named
        if not isinstance(modes, Sequence) or not modes or any(mode not in POOLING_MODES for mode in modes):
            raise FormatError(f"{where}: pooling_mode", f"modes among {list(POOLING_MODES)}", named)
        return cls(
            word_embedding_dimension=fields.take("word_embedding_dimension", int),
            pooling_modes=tuple(cast("Sequence[PoolingMode]", modes)),
            include_prompt=fields.take("include_prompt", bool, True),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, Any]:
        flags = {flag: mode in self.pooling_modes for mode, flag in POOLING_FLAGS.items()}
        # Flags have no order of their own: only an order that they cannot say needs the newer key.
        ordered = sorted(set(self.pooling_modes), key=POOLING_MODES.index)
        newer = {} if list(self.pooling_modes) == ordered else {"pooling_mode": list(self.pooling_modes)}
        return {
            "word_embedding_dimension": self.word_embedding_dimension,
            **flags,
            "include_prompt": self.include_prompt,
            **newer,
            **self.extra,
        }


@dataclass(frozen=True, kw_only=True)
class FeatureNames:
    """The features that a module reads and writes, for modules that work on one feature.

    Args:
        module_input_name: The feature that is read.
        module_output_name: The feature that is written; by default the same.
    """

    module_input_name: str = "sentence_embedding"
    module_output_name: str = "sentence_embedding"

    @classmethod
    def _taken_from(cls, fields: _Fields) -> dict[str, str]:
        read = fields.take("module_input_name", str, "sentence_embedding")
        return {
            "module_input_name": read,
            "module_output_name": fields.take("module_output_name", str, read),
        }

    def _names_if_unusual(self) -> dict[str, str]:
        """The two names, or nothing where they are the usual ones: 2.7 fails on the keys."""
        usual = self.module_input_name == self.module_output_name == "sentence_embedding"
        names = {
            "module_input_name": self.module_input_name,
            "module_output_name": self.module_output_name,
        }
        return {} if usual else names


@dataclass(frozen=True, kw_only=True)
class DenseConfig(FeatureNames):
    """``config.json`` of a Dense layer.

    Args:
        in_features: Width of its input.
        out_features: Width of its output.
        bias: Whether it adds a bias.
        activation_function: The dotted name of the activation's class.
        use_residual: Whether the input is added to the output.
        extra: Keys of other versions.
    """

    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: object, where: str = "config.json") -> DenseConfig:
        fields = _Fields(data, where)
        return cls(
            in_features=fields.take("in_features", int),
            out_features=fields.take("out_features", int),
            bias=fields.take("bias", bool, True),
            activation_function=fields.take("activation_function", str, "torch.nn.modules.activation.Tanh"),
            use_residual=fields.take("use_residual", bool, False),
            **cls._taken_from(fields),
            extra=fields.rest(),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias,
            "activation_function": self.activation_function,
            **self._names_if_unusual(),
            **({"use_residual": True} if self.use_residual else {}),
            **self.extra,
        }


@dataclass(frozen=True, kw_only=True)
class NormalizeConfig(FeatureNames):
    """``config.json`` of a Normalize; versions before 6.0 write none.

    Args:
        extra: Keys of other versions.
    """

    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: object, where: str = "config.json") -> NormalizeConfig:
        fields = _Fields(data, where)
        return cls(**cls._taken_from(fields), extra=fields.rest())

    def to_dict(self) -> dict[str, Any]:
        return {**self._names_if_unusual(), **self.extra}


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig:
    """``config.json`` of a LayerNorm.

    Args:
        dimension: Width of the embedding that is normalised.
        extra: Keys of other versions.
    """

    dimension: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: object, where: str = "config.json") -> LayerNormConfig:
        fields = _Fields(data, where)
        return cls(dimension=fields.take("dimension", int), extra=fields.rest())

    def to_dict(self) -> dict[str, Any]:
        return {"dimension": self.dimension, **self.extra}


@dataclass(frozen=True, kw_only=True)
class DropoutConfig:
    """``config.json`` of a Dropout.

    Args:
        dropout: The share of values that are zeroed in training, 0 to 1.
        extra: Keys of other versions.
    """

    dropout: float = 0.2
    extra: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: object, where: str = "config.json") -> DropoutConfig:
        fields = _Fields(data, where)
        return cls(dropout=fields.take("dropout", float, 0.2), extra=fields.rest())

    def to_dict(self) -> dict[str, Any]:
        return {"dropout": self.dropout, **self.extra}
