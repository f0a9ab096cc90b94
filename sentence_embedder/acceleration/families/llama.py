"""Llama and its kin: rotary positions, norms before each part, gated feed-forward parts, keys for several heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from sentence_embedder.acceleration.attention import Mask
from sentence_embedder.acceleration.embedding import TableEmbedding
from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.acceleration.families.parts import (
    GATED_MLP,
    HEAD_NORMS,
    PROJECTIONS,
    UnreadableError,
    check_looks_back,
    check_parameters,
    gated_mlp_of,
    layers_of,
    rms_norm_at,
    rotary_at,
    self_attention_of,
    table_at,
)
from sentence_embedder.acceleration.layers import Layer, PreNormLayer
from sentence_embedder.acceleration.linear import Products
from sentence_embedder.acceleration.norms import identity
from sentence_embedder.acceleration.rotary_embedding import RotaryEmbedding


def read_llama(model: nn.Module, config: Any, products: Products) -> Encoder:
    """A Llama, Mistral, Qwen2 or Qwen3, whose tokens look back."""
    check_looks_back(config)
    layers = layers_of(model, config)
    return _read_decoder(model, config, products, layers, _masks_of_decoder(config, len(layers)))


def read_eurobert(model: nn.Module, config: Any, products: Products) -> Encoder:
    """A EuroBERT, which is a Llama whose tokens look everywhere."""
    layers = layers_of(model, config)
    return _read_decoder(model, config, products, layers, [Mask()] * len(layers))


def _read_decoder(
    model: nn.Module, config: Any, products: Products, layers: Sequence[nn.Module], masks: Sequence[Mask]
) -> Encoder:
    rotary = rotary_at(model)
    words = table_at(model, "embed_tokens")
    return Encoder(
        embedding=TableEmbedding([("input_ids", words)], identity),
        layers=[_layer(layer, config, products, mask, rotary) for layer, mask in zip(layers, masks, strict=True)],
        norm=rms_norm_at(model, "norm"),
        dtype=products.dtype,
        device=words.device,
    )


def _layer(layer: nn.Module, config: Any, products: Products, mask: Mask, rotary: RotaryEmbedding) -> Layer:
    attention: Any = layer.get_submodule("self_attn")
    if attention.is_causal != mask.causal:
        raise UnreadableError("a decoder that looks ahead" if mask.causal else "an encoder that looks back alone")
    head_norms = HEAD_NORMS if hasattr(attention, "q_norm") else ()
    norms = ("input_layernorm", "post_attention_layernorm")
    check_parameters(layer, (*PROJECTIONS, *head_norms, *GATED_MLP, *norms))
    return PreNormLayer(
        attention_norm=rms_norm_at(layer, norms[0]),
        attention=self_attention_of(
            layer,
            products,
            mask=mask,
            rotary=rotary,
            head_norms=[rms_norm_at(layer, name) for name in head_norms],
        ),
        feed_forward_norm=rms_norm_at(layer, norms[1]),
        feed_forward=gated_mlp_of(layer, products, config.hidden_act),
        dtype=products.dtype,
    )


def _masks_of_decoder(config: Any, count: int) -> list[Mask]:
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
