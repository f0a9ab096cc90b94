"""Acceleration: which way a model's batches go."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.acceleration.architectures import read_encoder
from sentence_embedder.acceleration.dtypes import candidates
from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.acceleration.families.parts import UnreadableError
from sentence_embedder.acceleration.forward import Forward, PackedForward, PlainForward, ShadowForward
from sentence_embedder.acceleration.linear import Products, can_pack
from sentence_embedder.acceleration.patches import is_patched
from sentence_embedder.acceleration.probe import Probe
from sentence_embedder.acceleration.shadow import Shadow
from sentence_embedder.acceleration.snapshot import Snapshot, is_bare
from sentence_embedder.devices import available_memory
from sentence_embedder.forks import between_forks
from sentence_embedder.models import Dense, Dropout, LayerNorm, Normalize, Pooling, Transformer
from sentence_embedder.models.stand_ins.model import StandInModel
from sentence_embedder.transient import Transient

logger = logging.getLogger(__name__)

_AFTER_POOLING = (Pooling, Normalize, Dense, LayerNorm, Dropout)
"""Modules that read nothing but what a PackedForward makes."""

_FORWARD_PASSES: Mapping[type, Any] = {module: module.forward for module in (Transformer, *_AFTER_POOLING)}
"""Class → its forward pass as this package wrote it: programs put others into classes."""

_PACKED_FREELY = 2 * 2**30
"""Copies of weights up to so many bytes are made without asking how much memory there is."""

_LARGEST_ERROR = {torch.float32: 1e-4, torch.bfloat16: 0.2, torch.float16: 0.2}
"""How far token embeddings may be from those of the model itself, relative to their length, for products in a
format; more is no rounding."""

_LARGEST_ERROR_OF_AUTO = 0.014
"""How far the mean embeddings may be for a format to be chosen: the cosine similarity is then above 0.9999."""

_LARGEST_CHANGE = {torch.float32: 1e-5, torch.bfloat16: 5e-4, torch.float16: 5e-4}
"""How much padding may change of token embeddings, relative to their length, for weights in a format."""

_LIBRARIES = ("transformers.", "torch.nn.")
"""Where the modules are from that keep nothing for others."""

_BY_THE_LONGEST = frozenset(
    {("rope_type", "dynamic"), ("rope_type", "longrope"), ("attention_type", "block_sparse")}
)
"""Settings by which the longest text of a batch, or of those before, decides how all are computed."""

_OVERFLOWS = frozenset({"gemma2", "gemma3_text", "longt5", "mt5", "t5", "umt5"})
"""Architectures known for numbers that float16 does not hold: it is chosen for them by nobody but their owner."""

_WRITES_ITS_WEIGHTS = frozenset({"rwkv"})
"""Architectures whose forward pass writes into the weights, which a shadow, and a twin to compare with, share."""


@dataclass(frozen=True)
class _Reading:
    """What was read of a model.

    Args:
        model: The model.
        dtype: The formats that were asked for.
        pad_token_id: The token that texts are padded with.
        snapshot: What it looked like; None if that cannot be told.
        encoder: What stands for it on packed texts, if it could be read.
        shadow: What stands for it on padded texts otherwise.
        sides_to_pad: The sides on which texts can be padded to any length, in any company, before the shadow.
    """

    model: nn.Module
    dtype: str
    pad_token_id: int
    snapshot: Snapshot | None
    encoder: Encoder | None = None
    shadow: Shadow | None = None
    sides_to_pad: frozenset[str] = frozenset()

    @property
    def faster(self) -> Encoder | Shadow | None:
        """What stands for the model, if anything does."""
        return self.shadow if self.encoder is None else self.encoder

    def is_of(self, model: Any, dtype: str, pad_token_id: int) -> bool:
        """Whether it is what was read of a model when these formats were asked for, and texts padded so."""
        return self.model is model and self.dtype == dtype and self.pad_token_id == pad_token_id

    def is_current(self, *, thoroughly: bool) -> bool:
        """Whether the model still looks like that. A stand-in does: nobody changes it, unless its memory is that of
        other processes, too.

        Args:
            thoroughly: Whether all weights are looked at.
        """
        if self.snapshot is None:
            return True  # it computes in its own way, whatever it looks like
        is_left_alone = isinstance(self.model, StandInModel) and not self.snapshot.is_shared
        return is_left_alone or self.snapshot.is_current(thoroughly=thoroughly)


class Acceleration:
    """Which way a model's batches go, decided anew in each call of ``encode``.

    What is read of a model is kept until the model changes. It is never copied or pickled.

    Args:
        enabled: Whether there is any way but the plain one.
        dtype: The format of the products: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"auto"``. Weights
            that are not float32 keep theirs.
    """

    def __init__(self, *, enabled: bool = True, dtype: str = "float32") -> None:
        self.enabled = enabled
        self.dtype = dtype
        self._readings: dict[str | None, Transient[_Reading]] = {}

    def forget(self) -> None:
        """Drop what was read of a model, and the memory that it takes."""
        self._readings = {}

    def forward(
        self,
        model: nn.Sequential,
        *,
        output_value: str | None,
        device: torch.device,
        extra: Mapping[str, Any],
        route: str | None = None,
        thoroughly: bool = False,
    ) -> Forward:
        """The way through a model in evaluation mode.

        Args:
            model: The modules.
            output_value: What is wanted: ``"sentence_embedding"``, ``"token_embeddings"`` or, if None, all
                features.
            device: Where the model computes.
            extra: Features of the batch as a whole.
            route: Which of several ways through a model the modules are.
            thoroughly: Whether all weights are looked at for changes that torch does not count, and not a few of
                each.
        """
        plain = PlainForward(model, device, extra)
        modules = list(model._modules.values())
        if not self.enabled or not is_bare(model) or not _are_stock(modules) or _is_autocast(device):
            return plain
        transformer: Any
        transformer, *rest = modules
        seen = transformer.model_seen
        if isinstance(seen, StandInModel) and is_patched(seen):
            seen = transformer.auto_model
        pad: int = transformer.tokenizer_seen.pad_token_id or 0  # without one, transformers fills with zeros
        readings = self._readings.get(route) or self._readings.setdefault(route, Transient())
        reading = readings.get(
            make=lambda: _read(seen, self.dtype, pad),
            holds=lambda kept: kept.is_of(seen, self.dtype, pad) and kept.is_current(thoroughly=thoroughly),
        )
        if reading.shadow is not None:
            is_free = _are_known(rest) and _side_to_pad(transformer) in reading.sides_to_pad
            are_shared_out = is_free and device.type == "cpu"
            return ShadowForward(reading.shadow, rest, output_value, device, extra, are_shared_out)
        if reading.encoder is None or output_value is None or pads_matter(transformer, reading.encoder):
            return plain
        if not _is_enough(rest, output_value):
            return plain
        return PackedForward(reading.encoder, rest, output_value, device, extra)


def _are_stock(modules: Sequence[Any]) -> bool:
    """Whether the first module is a Transformer as this package wrote it, and nobody looks in between."""
    first = modules[0] if modules else None
    if type(first) is not Transformer or not _is_as_written(first):
        return False
    everywhere: Any = nn.modules.module
    hooks = everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks
    config = getattr(first.model_seen, "config", None)
    wants_more = getattr(config, "output_hidden_states", False) or getattr(config, "output_attentions", False)
    return not (hooks or wants_more) and all(map(is_bare, modules))


def _is_as_written(module: nn.Module) -> bool:
    """Whether nobody has given the class of a module another forward pass."""
    return type(module).forward is _FORWARD_PASSES[type(module)]


def _is_autocast(device: torch.device) -> bool:
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def _is_readable(model: Any, snapshot: Snapshot) -> bool:
    """Whether nothing but what transformers wrote decides what a model computes."""
    parameters = list(model.parameters())
    return (
        (isinstance(model, StandInModel) or type(model).__module__.startswith("transformers.models."))
        and getattr(model.config, "quantization_config", None) is None
        and model.config.model_type not in _WRITES_ITS_WEIGHTS
        and snapshot.is_bare
        and len(parameters) > 0
        and all(_is_plain_tensor(parameter, parameters[0]) for parameter in parameters)
        and not any(map(_holds_plain_weights, model.modules()))
    )


def _holds_plain_weights(module: nn.Module) -> bool:
    """Whether a linear layer has weights that are no parameters: nobody counts how often they change."""
    return type(module) is nn.Linear and not {"weight", "bias"}.isdisjoint(vars(module))


def _is_plain_tensor(parameter: Tensor, first: Tensor) -> bool:
    is_alike = (parameter.device, parameter.dtype) == (first.device, first.dtype)
    is_known = parameter.dtype in _LARGEST_ERROR and not parameter.is_meta
    return type(parameter) is nn.Parameter and is_alike and is_known


def _is_enough(rest: Sequence[nn.Module], output_value: str) -> bool:
    """Whether the modules after the Transformer need nothing but what a PackedForward makes."""
    is_pooled = len(rest) > 0 and type(rest[0]) is Pooling
    return _are_known(rest) and (is_pooled or (output_value == "token_embeddings" and not rest))


def _are_known(rest: Sequence[nn.Module]) -> bool:
    """Whether the modules after the Transformer are such as this package wrote."""
    return all(type(module) in _AFTER_POOLING and _is_as_written(module) for module in rest)


def _side_to_pad(transformer: Any) -> str:
    side: str = transformer.tokenizer_seen.padding_side
    return side


def pads_matter(transformer: Any, encoder: Encoder) -> bool:
    """Whether a model pads texts on the left, and computes something else for them than what was read of it."""
    tokenizer = transformer.tokenizer_seen
    return _side_to_pad(transformer) == "left" and encoder.embedding.counts_padding(tokenizer.pad_token_id)


@between_forks()
def _read(model: Any, dtype: str, pad_token_id: int) -> _Reading:
    """Read a model, in the first format that keeps its embeddings."""
    own_way = _Reading(model, dtype, pad_token_id, None)
    try:
        own_way = replace(own_way, snapshot=(snapshot := Snapshot(model)))
        if _is_readable(model, snapshot):
            return _first_that_keeps(own_way)
    except Exception as error:  # noqa: BLE001  # people do anything to a model: it then computes in its own way
        logger.warning("%s computes in its own way, as reading it failed: %r", type(model).__name__, error)
    return own_way


def _first_that_keeps(own_way: _Reading) -> _Reading:
    model: Any = own_way.model
    weights = next(model.parameters())
    formats = candidates(own_way.dtype, weights.device) if weights.dtype == torch.float32 else (weights.dtype,)
    if own_way.dtype == "auto" and model.config.model_type in _OVERFLOWS:
        formats = tuple(one for one in formats if one != torch.float16)
    probe = Probe(model, own_way.pad_token_id)
    for product_dtype in formats:
        reading = _read_in(product_dtype, own_way)
        if reading.faster is None or product_dtype == formats[-1]:
            break
        if probe.error_of_texts(reading.faster) <= _LARGEST_ERROR_OF_AUTO:
            break
    if reading.faster is None:
        return reading  # there is nothing to compare
    # "Not at most" and not "more than": an error may be NaN.
    if not probe.error(reading.faster) <= _LARGEST_ERROR[product_dtype]:
        logger.warning("the faster forward pass of %s differs from its own: it is not used", type(model).__name__)
        return own_way
    if reading.shadow is None or not _takes_texts_alone(model):
        return reading
    return replace(reading, sides_to_pad=probe.sides_to_pad(_LARGEST_CHANGE[weights.dtype]))


def _takes_texts_alone(model: Any) -> bool:
    """Whether nothing is known by which a text depends on those beside it, or on those before."""
    are_known = all(type(module).__module__.startswith(_LIBRARIES) for module in model.modules())
    return are_known and not is_patched(model) and not _looks_at_the_longest(model.config.to_dict())


def _looks_at_the_longest(settings: Any) -> bool:
    if isinstance(settings, Mapping):
        is_one = any(isinstance(value, str) and (key, value) in _BY_THE_LONGEST for key, value in settings.items())
        return is_one or any(map(_looks_at_the_longest, settings.values()))
    return False


def _read_in(product_dtype: torch.dtype, own_way: _Reading) -> _Reading:
    model = own_way.model
    packed = _may_pack(model, product_dtype)
    try:
        return replace(own_way, encoder=read_encoder(model, Products(product_dtype, packed=packed)))
    except UnreadableError as error:
        logger.debug("%s: %s", type(model).__name__, error)
    if packed or product_dtype != next(model.parameters()).dtype:
        return replace(own_way, shadow=Shadow(model, product_dtype, packed=packed))
    return own_way


def _may_pack(model: nn.Module, dtype: torch.dtype) -> bool:
    """Whether there is a faster form of the weights, and room for it."""
    linears = [module.weight for module in model.modules() if type(module) is nn.Linear]
    if not linears or linears[0].device.type != "cpu" or not can_pack(dtype):
        return False
    size = sum(weight.numel() for weight in linears) * dtype.itemsize
    return size <= _PACKED_FREELY or (available_memory() or 0) >= 2 * size
