"""The JSON files of a model folder as frozen records: one class a file (or a row of one), no I/O.

Every record reads all the spellings that versions of sentence-transformers ever wrote and writes the one
that all of them read (the 2.7 dialect). Keys that nobody here knows are kept in ``extra`` and written back.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from sentence_embedder.record import Count, Fields, FormatError, Range, Record, Share, Width

MODULES_NAME = "modules.json"
"""The file that names the modules of a model."""

_MODULE_FOLDER = re.compile(r"\d{1,3}_[A-Z]\w*")
"""How the folder of a module is called: a number, and the name of its class."""

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

_TRANSFORMER_DEFAULTS = {
    # Written by 5.4+ for every text encoder. They say what 2.7 takes for granted, and 2.7 fails on them.
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}

_OLDER_DIMENSION = MappingProxyType({"embedding_dimension": "word_embedding_dimension"})


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Record):
    """``config_sentence_transformers.json``: what a model knows beside its modules.

    Args:
        versions: Package → the version that wrote the folder; ``__version__`` in the file.
        prompts: Name → text to put before a sentence.
        default_prompt_name: The prompt that ``encode`` uses when it is given none.
        similarity_fn_name: ``"cosine"``, ``"dot"``, ``"euclidean"`` or ``"manhattan"``.
        truncate_dim: Width to which embeddings are cut.
        model_type: The family of the model; absent in files of 2.7, where there was one.
        calibration: The ranges for int8 and uint8, see ``Calibration``; of this package alone.
    """

    newer_names = MappingProxyType({"__version__": "versions"})
    written_if_set = frozenset(["similarity_fn_name", "truncate_dim", "model_type", "calibration"])

    versions: Mapping[str, str] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None
    truncate_dim: int | None = None
    model_type: str | None = None
    calibration: Mapping[str, Sequence[float]] | None = None

    @classmethod
    def _taken_from(cls, fields: Fields) -> dict[str, Any]:
        fields.fill_nulls("versions", "")
        fields.fill_nulls("prompts", "")
        return super()._taken_from(fields)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        data = super().to_dict()
        return {"__version__": data.pop("versions"), **data}


@dataclass(frozen=True, kw_only=True)
class ModuleEntry(Record):
    """A row of ``modules.json``: one module of the chain.

    Args:
        idx: Its place in the chain.
        name: Its key among the children of the model.
        path: Its folder inside the model folder; ``""`` is the model folder itself.
        type: The dotted name of its class, as sentence-transformers spells it.
        kwargs: Names of keyword arguments of ``encode`` that the module wants to be given.
    """

    written_if_set = frozenset(["kwargs"])

    idx: int
    name: str
    path: str
    type: str
    kwargs: Sequence[str] = ()


def is_of_a_module(path: str) -> bool:
    """Whether a file lies in a folder that is called as those of modules are: a number, and the name of a class.

    Args:
        path: The path of the file inside a model folder.

    Example:
        >>> is_of_a_module("1_Pooling/config.json"), is_of_a_module("2024_results/table.csv")
        (True, False)
    """
    folder, _, inside = path.partition("/")
    return inside != "" and _MODULE_FOLDER.fullmatch(folder) is not None


@dataclass(frozen=True, kw_only=True)
class TransformerConfig(Record):
    """``sentence_bert_config.json``: how a transformer's texts are tokenised and its weights loaded.

    Args:
        max_seq_length: Longest input in tokens, special tokens included; absent since 5.4, which leaves it
            to the tokenizer's own ``model_max_length``.
        do_lower_case: Lower the text before it is tokenised.
        tokenizer_name_or_path: A tokenizer from elsewhere.
        model_args: Keyword arguments for loading the weights.
        tokenizer_args: Keyword arguments for loading the tokenizer.
        config_args: Keyword arguments for loading the configuration.
    """

    newer_names = MappingProxyType(
        {
            "model_kwargs": "model_args",
            "processor_kwargs": "tokenizer_args",
            "tokenizer_kwargs": "tokenizer_args",
            "config_kwargs": "config_args",
        }
    )
    written_if_set = frozenset(["tokenizer_name_or_path", "model_args", "tokenizer_args", "config_args"])

    max_seq_length: Annotated[int, Range(1, 10**40)] | None = None
    do_lower_case: bool = False
    tokenizer_name_or_path: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_args: Mapping[str, Any] = field(default_factory=dict)
    config_args: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def _taken_from(cls, fields: Fields) -> dict[str, Any]:
        fields.drop_defaults(_TRANSFORMER_DEFAULTS)
        return super()._taken_from(fields)

    @property
    def computes_otherwise(self) -> Mapping[str, Any]:
        """Settings of 5.4 and later that ask for something else than the last hidden state of a text."""
        modalities = self.extra.get("modality_config", _TRANSFORMER_DEFAULTS["modality_config"])
        text = modalities.get("text") if isinstance(modalities, Mapping) else None
        output = text.get("method_output_name") if isinstance(text, Mapping) else None
        found = {
            "modality_config": (output, "last_hidden_state"),
            **{
                name: (self.extra.get(name, default), default)
                for name, default in (
                    ("transformer_task", _TRANSFORMER_DEFAULTS["transformer_task"]),
                    ("module_output_name", _TRANSFORMER_DEFAULTS["module_output_name"]),
                    ("processing_kwargs", {}),
                )
            },
        }
        return {name: value for name, (value, usual) in found.items() if value not in (usual, None)}

    @property
    def is_clip(self) -> bool:
        """Whether it belongs to a CLIPModel, as 5.4 and later save one."""
        modalities = self.extra.get("modality_config")
        text = modalities.get("text") if isinstance(modalities, Mapping) else None
        return isinstance(text, Mapping) and text.get("method") == "get_text_features"


@dataclass(frozen=True, kw_only=True)
class PoolingConfig(Record):
    """``config.json`` of a Pooling.

    Args:
        word_embedding_dimension: Width of the token embeddings.
        pooling_modes: The modes, in the order in which their results are concatenated; none only while the flags
            of a Pooling are set one by one.
        include_prompt: Whether the tokens of a prompt count.

    Raises:
        ValueError: A mode does not exist.
    """

    newer_names = _OLDER_DIMENSION

    word_embedding_dimension: Width
    pooling_modes: Sequence[PoolingMode] = ("mean",)
    include_prompt: bool = True

    def __post_init__(self) -> None:
        unknown = [mode for mode in self.pooling_modes if mode not in POOLING_MODES]
        if unknown:
            raise ValueError(f"expected pooling modes among {list(POOLING_MODES)}, found {unknown}")

    @classmethod
    def _taken_from(cls, fields: Fields) -> dict[str, Any]:
        flagged = tuple(mode for mode in POOLING_MODES if fields.take(POOLING_FLAGS[mode], bool, False))
        named = fields.take("pooling_mode", PoolingMode | Sequence[PoolingMode], flagged or ("mean",))
        modes = (named,) if isinstance(named, str) else tuple(named)
        if not modes:
            raise FormatError(f"{fields.where}: pooling_mode", f"modes among {list(POOLING_MODES)}", named)
        return {**super()._taken_from(fields), "pooling_modes": modes}

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
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
class FeatureNames(Record):
    """The features that a module reads and writes, for modules that work on one feature.

    Args:
        module_input_name: The feature that is read.
        module_output_name: The feature that is written; by default the same.
    """

    module_input_name: str = "sentence_embedding"
    module_output_name: str = "sentence_embedding"

    @classmethod
    def _taken_from(cls, fields: Fields) -> dict[str, Any]:
        fields.default_to("module_output_name", "module_input_name")
        return super()._taken_from(fields)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object, without the two names where they are the usual ones: 2.7 fails on the keys."""
        data = super().to_dict()
        if self.module_input_name == self.module_output_name == "sentence_embedding":
            del data["module_input_name"], data["module_output_name"]
        return data


@dataclass(frozen=True, kw_only=True)
class DenseConfig(FeatureNames):
    """``config.json`` of a Dense layer.

    Args:
        in_features: Width of its input.
        out_features: Width of its output.
        bias: Whether it adds a bias.
        activation_function: The dotted name of the activation's class.
        use_residual: Whether the input is added to the output.
    """

    written_if_set = frozenset(["use_residual"])

    in_features: Width
    out_features: Width
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    use_residual: bool = False


@dataclass(frozen=True, kw_only=True)
class NormalizeConfig(FeatureNames):
    """``config.json`` of a Normalize; versions before 6.0 write none."""


@dataclass(frozen=True, kw_only=True)
class LayerNormConfig(Record):
    """``config.json`` of a LayerNorm.

    Args:
        dimension: Width of the embedding that is normalised.
    """

    dimension: Width


@dataclass(frozen=True, kw_only=True)
class DropoutConfig(Record):
    """``config.json`` of a Dropout.

    Args:
        dropout: The share of values that are zeroed in training, 0 to 1.
    """

    dropout: Share = 0.2


@dataclass(frozen=True, kw_only=True)
class CNNConfig(Record):
    """``cnn_config.json``.

    Args:
        in_word_embedding_dimension: Width of the token embeddings.
        out_channels: How many channels each convolution makes.
        kernel_sizes: How many tokens each convolution looks at.
        stride_sizes: By how many tokens each moves on; absent where all move on by one.
    """

    newer_names = MappingProxyType({"in_embedding_dimension": "in_word_embedding_dimension"})
    written_if_set = frozenset(["stride_sizes"])

    in_word_embedding_dimension: Width
    out_channels: Width = 256
    kernel_sizes: Sequence[Count] = (1, 3, 5)
    stride_sizes: Sequence[Count] | None = None


@dataclass(frozen=True, kw_only=True)
class LSTMConfig(Record):
    """``lstm_config.json``.

    Args:
        word_embedding_dimension: Width of the token embeddings.
        hidden_dim: Width of the state, in each direction.
        num_layers: How many layers lie on each other.
        dropout: The share of values that are zeroed between layers in training.
        bidirectional: Whether the tokens are also read from the end.
    """

    newer_names = _OLDER_DIMENSION

    word_embedding_dimension: Width
    hidden_dim: Width
    num_layers: Count = 1
    dropout: Share = 0
    bidirectional: bool = True


@dataclass(frozen=True, kw_only=True)
class WeightedLayerPoolingConfig(Record):
    """``config.json`` of a WeightedLayerPooling.

    Args:
        word_embedding_dimension: Width of the token embeddings.
        layer_start: The lowest layer that counts.
        num_hidden_layers: How many layers the transformer has.
    """

    newer_names = _OLDER_DIMENSION

    word_embedding_dimension: Width
    layer_start: Annotated[int, Range(0, 1_000)] = 4
    num_hidden_layers: Count = 12


@dataclass(frozen=True, kw_only=True)
class WordEmbeddingsConfig(Record):
    """``wordembedding_config.json``.

    Args:
        tokenizer_class: The dotted name of the tokenizer's class.
        update_embeddings: Whether training changes the embeddings.
        max_seq_length: How many words of a text count.
    """

    tokenizer_class: str
    update_embeddings: bool = False
    max_seq_length: Annotated[int, Range(0, 2**62)] = 1_000_000


@dataclass(frozen=True, kw_only=True)
class WordTokenizerConfig(Record):
    """``whitespacetokenizer_config.json``.

    Args:
        vocab: The words, in the order of their ids.
        stop_words: Words that are left out.
        do_lower_case: Whether texts are lowered before anything else.
    """

    vocab: Sequence[str]
    stop_words: Sequence[str] = ()
    do_lower_case: bool = False


@dataclass(frozen=True, kw_only=True)
class PhraseTokenizerConfig(WordTokenizerConfig):
    """``phrasetokenizer_config.json``.

    Args:
        ngram_separator: What stands between the words of a phrase.
        max_ngram_length: How many words a phrase has at most.
    """

    ngram_separator: str = "_"
    max_ngram_length: Count = 5


@dataclass(frozen=True, kw_only=True)
class WordWeightsConfig(Record):
    """``config.json`` of a WordWeights.

    Args:
        vocab: The words, in the order of their ids.
        word_weights: Word → weight.
        unknown_word_weight: The weight of words that have none.
    """

    vocab: Sequence[str]
    word_weights: Mapping[str, float] = field(default_factory=dict)
    unknown_word_weight: float = 1


@dataclass(frozen=True, kw_only=True)
class BoWConfig(WordWeightsConfig):
    """``config.json`` of a BoW.

    Args:
        cumulative_term_frequency: Whether a word counts each time that it occurs, rather than once.
    """

    cumulative_term_frequency: bool = True


_LONGEST_ROUTE = 1_000

Route = tuple[str | None, str | tuple[str, ...] | None]
"""A task, such as ``"query"``, and a kind of input, such as ``"text"``, or several; None stands for any."""


@dataclass(frozen=True, kw_only=True)
class RouterConfig(Record):
    """``router_config.json``, or the ``config.json`` of an Asym, its older form.

    Args:
        types: Name of a sub-module's folder → the dotted name of its class.
        structure: Route → the names of the folders of its modules, in their order.
        default_route: The route of inputs that name none.
        allow_empty_key: Whether inputs that name no route pass unchanged where there is no default route.
        route_mappings: Task and kind of input → route.
    """

    types: Mapping[str, str]
    structure: Mapping[str, Sequence[str]]
    default_route: str | None = None
    allow_empty_key: bool = True
    route_mappings: Mapping[Route, str] = field(default_factory=dict)

    @classmethod
    def _taken_from(cls, fields: Fields) -> dict[str, Any]:
        types = fields.take("types", Mapping[str, str])
        structure = fields.take("structure", Mapping[str, Sequence[str]])
        if not structure:
            raise FormatError(f"{fields.where}: structure", "a route at least", structure)
        unknown = [name for names in structure.values() for name in names if name not in types]
        if unknown:
            raise FormatError(f"{fields.where}: structure", f"names among types ({sorted(types)})", unknown)
        parameters = Fields(fields.take("parameters", Mapping[str, Any], {}), f"{fields.where}: parameters")
        default_route = parameters.take("default_route", str, None)
        mapped = parameters.take("route_mappings", Mapping[str, str], {})
        routes = {*mapped.values(), *([default_route] if default_route is not None else [])}
        if not routes <= structure.keys():
            raise FormatError(f"{parameters.where}: default_route", f"one of {sorted(structure)}", sorted(routes))
        return {
            "types": types,
            "structure": structure,
            "default_route": default_route,
            "allow_empty_key": parameters.take("allow_empty_key", bool, True),
            "route_mappings": {
                _route(key, f"{parameters.where}: route_mappings"): route for key, route in mapped.items()
            },
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON object."""
        parameters: dict[str, Any] = {"allow_empty_key": self.allow_empty_key}
        if self.default_route is not None:
            parameters["default_route"] = self.default_route
        if self.route_mappings:
            parameters["route_mappings"] = {str(key): route for key, route in self.route_mappings.items()}
        return {
            "types": dict(self.types),
            "structure": {route: list(names) for route, names in self.structure.items()},
            "parameters": parameters,
            **self.extra,
        }


def _route(key: str, where: str) -> Route:
    """A task and a kind of input, out of their Python literal: ``"('query', None)"``."""
    expected = "keys like \"('query', None)\""
    if len(key) > _LONGEST_ROUTE:
        raise FormatError(where, expected, key)
    try:
        value = ast.literal_eval(key)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise FormatError(where, expected, key) from error
    if not isinstance(value, tuple) or len(value) != 2:
        raise FormatError(where, expected, key)
    task, kind = value
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not all(part is None or isinstance(part, str) for part in (task, *kinds)):
        raise FormatError(where, expected, key)
    return task, kind


_Size = Annotated[int, Range(0, 10_000_000)] | None
_Layers = Annotated[int, Range(0, 1_000)] | None


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig(Record):
    """``config.json`` of a transformer, as far as it decides how much is built before weights are read.

    Args:
        model_type: The architecture.
        architectures: The classes that the weights belong to.
        hidden_size: Width of a token's embedding; the architectures that call it otherwise are small.
        intermediate_size: Width inside a layer, like the next.
        d_ff: See above.
        vocab_size: How many tokens there are.
        max_position_embeddings: How many places in a text there are; -1 for any number.
        num_hidden_layers: How many layers there are, under this name and the six that follow.
        num_layers: See above.
        num_decoder_layers: See above.
        encoder_layers: See above.
        decoder_layers: See above.
        n_layers: See above.
        n_layer: See above.
    """

    model_type: str | None = None
    architectures: Sequence[str] | None = None
    hidden_size: _Size = None
    intermediate_size: _Size = None
    d_ff: _Size = None
    vocab_size: _Size = None
    max_position_embeddings: Annotated[int, Range(-1, 100_000_000)] | None = None
    num_hidden_layers: _Layers = None
    num_layers: _Layers = None
    num_decoder_layers: _Layers = None
    encoder_layers: _Layers = None
    decoder_layers: _Layers = None
    n_layers: _Layers = None
    n_layer: _Layers = None


@dataclass(frozen=True, kw_only=True)
class AdapterConfig(Record):
    """``adapter_config.json`` of peft.

    Args:
        base_model_name_or_path: The checkpoint that is adapted.
    """

    base_model_name_or_path: str


@dataclass(frozen=True, kw_only=True)
class WeightsIndex(Record):
    """``model.safetensors.index.json``: weights in several files.

    Args:
        weight_map: Name of a tensor → the file that it is in.
    """

    weight_map: Mapping[str, str]
