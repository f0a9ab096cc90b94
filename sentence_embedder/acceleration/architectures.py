"""Which architectures can be read into an Encoder, and where each keeps its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.acceleration.attention import Mask
from sentence_embedder.acceleration.encoder import (
    MLP,
    Encoder,
    GatedMLP,
    Layer,
    LayerNorm,
    Norm,
    PostNormLayer,
    PreNormLayer,
    RMSNorm,
    RotaryEmbedding,
    SelfAttention,
    TableEmbedding,
    identity,
)
from sentence_embedder.acceleration.linear import ACTIVATIONS, Activation, Linear, linear

_STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary embedding whose frequencies do not depend on the length of the text."""


class UnreadableError(Exception):
    """The model is not built as the reader expects: its own forward pass must do."""


@dataclass(frozen=True)
class Products:
    """How the linear layers of an encoder are made.

    Args:
        dtype: The format of the products.
        packed: Whether copies of the weights may be made.
    """

    dtype: torch.dtype
    packed: bool

    def linear(self, modules: Sequence[nn.Linear], activation: Activation | None = None) -> Linear:
        """One linear layer in place of several that have the same input, their outputs side by side."""
        weights: list[Tensor] = [module.weight for module in modules]
        biases: list[Tensor | None] = [module.bias for module in modules]
        weight, bias = weights[0], biases[0]
        if len(modules) > 1:
            weight = torch.cat(weights)
            # Of several, some may lack a bias.
            parts = [w.new_zeros(len(w)) if b is None else b for w, b in zip(weights, biases, strict=True)]
            bias = None if all(b is None for b in biases) else torch.cat(parts)
        return linear(weight, bias, self.dtype, activation=activation, packed=self.packed)


def read_encoder(model: nn.Module, products: Products) -> Encoder:
    """The encoder with the weights of a model of Hugging Face transformers.

    Args:
        model: What ``AutoModel`` loads.
        products: How the linear layers are made.

    Raises:
        UnreadableError: There is no reader for this architecture, or the model has something that the reader does
            not know.
    """
    config: Any = model.config
    reader = READERS.get(config.model_type)
    if reader is None:
        raise UnreadableError(f"there is no lean forward pass for {config.model_type}")
    try:
        with torch.no_grad():
            return reader(model, config, products)
    except (AttributeError, KeyError) as error:
        raise UnreadableError(f"{config.model_type}: expected more than there is: {error}") from error


def counts_padding(model: nn.Module, pad_token_id: int | None) -> bool:
    """Whether a model counts padding among the positions of a text, so that padding on the left shifts the text.

    Args:
        model: A model that can be read.
        pad_token_id: The token that it is padded with.
    """
    config: Any = model.config
    if config.model_type in ("bert", "distilbert"):
        return True
    left_out = getattr(getattr(model, "embeddings", None), "padding_idx", pad_token_id)
    return left_out != pad_token_id


@dataclass(frozen=True)
class _Names:
    """Where a post-norm model keeps its parts: dotted names below the model, and below each layer."""

    layers: str
    query: str
    key: str
    value: str
    out: str
    attention_norm: str
    up: str
    down: str
    output_norm: str
    activation: str
    setting: str  # of the activation, in the configuration
    tables: tuple[tuple[str, str], ...]  # column → table

    @property
    def linears(self) -> tuple[str, ...]:
        return (self.query, self.key, self.value, self.out, self.up, self.down)


_WORDS = ("input_ids", "embeddings.word_embeddings")
_POSITIONS = ("positions", "embeddings.position_embeddings")
_TYPES = ("token_type_ids", "embeddings.token_type_embeddings")

_BERT = _Names(
    layers="encoder.layer",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    out="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    output_norm="output.LayerNorm",
    activation="intermediate.intermediate_act_fn",
    setting="hidden_act",
    tables=(_WORDS, _TYPES, _POSITIONS),
)
_MPNET = replace(
    _BERT,
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    out="attention.attn.o",
    attention_norm="attention.LayerNorm",
    tables=(_WORDS, _POSITIONS),
)
_DISTILBERT = _Names(
    layers="transformer.layer",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    out="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    output_norm="output_layer_norm",
    activation="ffn.activation",
    setting="activation",
    tables=(_WORDS, _POSITIONS),
)


def _read_bert(model: nn.Module, config: Any, products: Products) -> Encoder:
    if config.is_decoder or config.add_cross_attention:
        raise UnreadableError("a BERT that is a decoder")
    return _read_post_norm(model, config, products, _BERT)


def _read_roberta(model: nn.Module, config: Any, products: Products) -> Encoder:
    if config.is_decoder or config.add_cross_attention:
        raise UnreadableError("a RoBERTa that is a decoder")
    padding_id = model.get_submodule("embeddings").padding_idx
    return _read_post_norm(model, config, products, _BERT, padding_id=padding_id)


def _read_distilbert(model: nn.Module, config: Any, products: Products) -> Encoder:
    return _read_post_norm(model, config, products, _DISTILBERT)


def _read_mpnet(model: nn.Module, config: Any, products: Products) -> Encoder:
    encoder: Any = model.get_submodule("encoder")

    def bias(width: int) -> Tensor:
        placeholder = torch.empty(1, width, 0, device=encoder.relative_attention_bias.weight.device)
        biases: Tensor = encoder.compute_position_bias(placeholder)
        return biases[0]

    padding_id = model.get_submodule("embeddings").padding_idx
    return _read_post_norm(model, config, products, _MPNET, padding_id=padding_id, mask=Mask(bias=bias))


def _read_post_norm(
    model: nn.Module,
    config: Any,
    products: Products,
    names: _Names,
    *,
    padding_id: Any = None,
    mask: Mask | None = None,
) -> Encoder:
    mask = mask or Mask()
    _check_positions(model.get_submodule("embeddings"))
    layers = [_post_norm_layer(layer, config, products, names, mask) for layer in _layers(model, names.layers)]
    tables = [(column, _table_at(model, name)) for column, name in names.tables]
    return Encoder(
        embedding=TableEmbedding(tables, _layer_norm_at(model, "embeddings.LayerNorm"), padding_id),
        layers=layers,
        norm=identity,
        dtype=products.dtype,
        device=tables[0][1].device,
    )


def _post_norm_layer(layer: nn.Module, config: Any, products: Products, names: _Names, mask: Mask) -> Layer:
    _check_parameters(layer, (*names.linears, names.attention_norm, names.output_norm))
    query, key, value, out, up, down = (_linear_at(layer, name) for name in names.linears)
    head_dim = query.out_features // config.num_attention_heads
    activation = _activation(getattr(config, names.setting), layer, names.activation)
    return PostNormLayer(
        attention=SelfAttention(
            qkv=products.linear([query, key, value]),
            out=products.linear([out]),
            heads=config.num_attention_heads,
            key_heads=config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            mask=mask,
        ),
        attention_norm=_layer_norm_at(layer, names.attention_norm),
        feed_forward=MLP(products.linear([up], activation), products.linear([down])),
        output_norm=_layer_norm_at(layer, names.output_norm),
        dtype=products.dtype,
    )


def _read_modernbert(model: nn.Module, config: Any, products: Products) -> Encoder:
    rotary: Any = model.get_submodule("rotary_emb")
    rotaries = {kind: _rotary(rotary, f"{kind}_", rotary.rope_type[kind]) for kind in rotary.rope_type}
    masks = {"full_attention": Mask(), "sliding_attention": Mask(window=config.sliding_window)}
    layers: list[Layer] = []
    for layer in _layers(model, "layers"):
        kind: Any = layer.attention_type
        layers.append(_modernbert_layer(layer, config, products, masks[kind], rotaries[kind]))
    words = _table_at(model, "embeddings.tok_embeddings")
    return Encoder(
        embedding=TableEmbedding([("input_ids", words)], _layer_norm_at(model, "embeddings.norm")),
        layers=layers,
        norm=_layer_norm_at(model, "final_norm"),
        dtype=products.dtype,
        device=words.device,
    )


def _modernbert_layer(
    layer: nn.Module, config: Any, products: Products, mask: Mask, rotary: RotaryEmbedding
) -> Layer:
    is_first = type(layer.get_submodule("attn_norm")) is nn.Identity  # the embeddings have been through a norm
    norms = ("mlp_norm",) if is_first else ("attn_norm", "mlp_norm")
    _check_parameters(layer, ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo", *norms))
    head_dim = config.hidden_size // config.num_attention_heads
    return PreNormLayer(
        attention_norm=identity if is_first else _layer_norm_at(layer, "attn_norm"),
        attention=SelfAttention(
            qkv=products.linear([_linear_at(layer, "attn.Wqkv")]),
            out=products.linear([_linear_at(layer, "attn.Wo")]),
            heads=config.num_attention_heads,
            key_heads=config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            mask=mask,
            rotary=rotary,
        ),
        feed_forward_norm=_layer_norm_at(layer, "mlp_norm"),
        feed_forward=GatedMLP(
            products.linear([_linear_at(layer, "mlp.Wi")]),
            products.linear([_linear_at(layer, "mlp.Wo")]),
            _activation(config.hidden_activation, layer, "mlp.act"),
        ),
        dtype=products.dtype,
    )


def _read_llama(model: nn.Module, config: Any, products: Products) -> Encoder:
    rotary: Any = model.get_submodule("rotary_emb")
    rotations = _rotary(rotary, "", rotary.rope_type)
    its_layers = _layers(model, "layers")[: config.num_hidden_layers]
    masks = _decoder_masks(config, len(its_layers))
    layers = [
        _llama_layer(layer, config, products, mask, rotations)
        for layer, mask in zip(its_layers, masks, strict=True)
    ]
    words = _table_at(model, "embed_tokens")
    return Encoder(
        embedding=TableEmbedding([("input_ids", words)], identity),
        layers=layers,
        norm=_rms_norm_at(model, "norm"),
        dtype=products.dtype,
        device=words.device,
    )


def _llama_layer(layer: nn.Module, config: Any, products: Products, mask: Mask, rotary: RotaryEmbedding) -> Layer:
    attention: Any = layer.get_submodule("self_attn")
    if not attention.is_causal:
        raise UnreadableError("a decoder that looks ahead")
    linears = ("q_proj", "k_proj", "v_proj", "o_proj")
    head_norms = ("q_norm", "k_norm") if hasattr(attention, "q_norm") else ()
    _check_parameters(
        layer,
        (
            *(f"self_attn.{name}" for name in (*linears, *head_norms)),
            *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
            *("input_layernorm", "post_attention_layernorm"),
        ),
    )
    query, key, value, out = (_linear_at(attention, name) for name in linears)
    query_norm, key_norm = [_rms_norm_at(attention, name) for name in head_norms] or (None, None)
    return PreNormLayer(
        attention_norm=_rms_norm_at(layer, "input_layernorm"),
        attention=SelfAttention(
            qkv=products.linear([query, key, value]),
            out=products.linear([out]),
            heads=config.num_attention_heads,
            key_heads=config.num_key_value_heads,
            head_dim=attention.head_dim,
            scale=attention.scaling,
            mask=mask,
            query_norm=query_norm,
            key_norm=key_norm,
            rotary=rotary,
        ),
        feed_forward_norm=_rms_norm_at(layer, "post_attention_layernorm"),
        feed_forward=GatedMLP(
            products.linear([_linear_at(layer, f"mlp.{name}_proj") for name in ("gate", "up")]),
            products.linear([_linear_at(layer, "mlp.down_proj")]),
            _activation(config.hidden_act, layer, "mlp.act_fn"),
        ),
        dtype=products.dtype,
    )


Reader = Callable[[nn.Module, Any, Products], Encoder]

READERS: Mapping[str, Reader] = {
    "bert": _read_bert,
    "camembert": _read_roberta,
    "distilbert": _read_distilbert,
    "llama": _read_llama,
    "mistral": _read_llama,
    "modernbert": _read_modernbert,
    "mpnet": _read_mpnet,
    "qwen2": _read_llama,
    "qwen3": _read_llama,
    "roberta": _read_roberta,
    "xlm-roberta": _read_roberta,
}
"""``model_type`` in a configuration → what reads such a model."""


def _decoder_masks(config: Any, count: int) -> list[Mask]:
    """What each of so many layers looks at: what was before, in some of them not far."""
    full = Mask(causal=True)
    # A Llama's configuration may have the setting, which the model does not look at.
    window = None if config.model_type == "llama" else config.sliding_window
    if window is None:
        return [full] * count
    # A window of n tokens reaches back to the n-1st before this one.
    sliding = Mask(causal=True, window=window - 1)
    if config.model_type == "mistral":
        return [sliding] * count
    masks = {"full_attention": full, "sliding_attention": sliding}
    return [masks[kind] for kind in config.layer_types[:count]]


def _activation(setting: Any, layer: nn.Module, name: str) -> Activation:
    """The activation that is set, if it is also the one in a layer; a stand-in has none."""
    if setting not in ACTIVATIONS:
        raise UnreadableError(f"the activation {setting!r}")
    activation = ACTIVATIONS[setting]
    owner: Any = layer.get_submodule(name.rpartition(".")[0])
    found = getattr(owner, name.rpartition(".")[2], None)
    values = torch.linspace(-4, 4, 65)
    if found is not None and not torch.allclose(found(values), activation.function(values), atol=1e-6):
        raise UnreadableError(f"{name}: expected {setting}, found {found}")
    return activation


def _layers(model: nn.Module, name: str) -> list[nn.Module]:
    return list(model.get_submodule(name).children())


def _check_parameters(layer: nn.Module, names: Sequence[str]) -> None:
    """Raise unless a layer has these parts with parameters, and no others."""
    found = {name.rpartition(".")[0] for name, _ in layer.named_parameters()}
    if found != set(names):
        raise UnreadableError(f"expected a layer with {sorted(names)}, found {sorted(found)}")


def _check_positions(embeddings: Any) -> None:
    """Raise unless positions are counted from 0; a stand-in does not say, and does so."""
    found = getattr(embeddings, "position_ids", None)
    if found is not None and not torch.equal(found.flatten().cpu(), torch.arange(found.numel())):
        raise UnreadableError("embeddings.position_ids: expected 0, 1, …")


def _linear_at(module: nn.Module, name: str) -> nn.Linear:
    found = module.get_submodule(name)
    if type(found) is not nn.Linear:
        raise UnreadableError(f"{name}: expected a Linear, found {type(found).__name__}")
    return found


def _layer_norm_at(module: nn.Module, name: str) -> Norm:
    found = module.get_submodule(name)
    if type(found) is not nn.LayerNorm or not found.elementwise_affine:
        raise UnreadableError(f"{name}: expected a LayerNorm with a weight, found {found}")
    bias: Tensor | None = found.bias
    return LayerNorm(found.weight.detach(), None if bias is None else bias.detach(), found.eps)


def _rms_norm_at(module: nn.Module, name: str) -> Norm:
    found: Any = module.get_submodule(name)
    return RMSNorm(found.weight.detach(), found.variance_epsilon)


def _table_at(module: nn.Module, name: str) -> Tensor:
    found = module.get_submodule(name)
    if type(found) is not nn.Embedding or found.max_norm is not None:
        raise UnreadableError(f"{name}: expected a plain Embedding, found {found}")
    return found.weight.detach()


def _rotary(module: Any, prefix: str, kind: str) -> RotaryEmbedding:
    if kind not in _STATIC_ROPE:
        raise UnreadableError(f"the rotary embedding {kind!r}")
    return RotaryEmbedding(getattr(module, f"{prefix}inv_freq"), getattr(module, f"{prefix}attention_scaling"))
