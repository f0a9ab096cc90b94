"""T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683), of which the encoder makes embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.acceleration.attention import Mask
from sentence_embedder.acceleration.embedding import TableEmbedding
from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.acceleration.families.parts import (
    UnreadableError,
    activation_at,
    check_parameters,
    layers_at,
    linear_at,
    rms_norm_at,
    table_at,
)
from sentence_embedder.acceleration.layers import MLP, FeedForward, GatedMLP, Layer, PreNormLayer, SelfAttention
from sentence_embedder.acceleration.linear import Products
from sentence_embedder.acceleration.norms import identity

_ATTENTION = "layer.0.SelfAttention"
_MLP = "layer.1.DenseReluDense"
_NORMS = ("layer.0.layer_norm", "layer.1.layer_norm")


def read_t5(model: nn.Module, config: Any, products: Products) -> Encoder:
    """The encoder of a T5 or mT5, whose scores depend on how far tokens are apart."""
    if config.is_decoder:
        raise UnreadableError("a T5 that is a decoder")
    words = table_at(model, "encoder.embed_tokens")
    if words.dtype == torch.float16:
        raise UnreadableError("a T5 in float16, in which its own forward pass keeps numbers from overflowing")
    blocks = layers_at(model, "encoder.block")
    first: Any = blocks[0].get_submodule(_ATTENTION)  # which all others take theirs from

    def bias(width: int) -> Tensor:
        biases: Tensor = first.compute_bias(width, width)
        return biases[0]

    mask = Mask(bias=bias)
    return Encoder(
        embedding=TableEmbedding([("input_ids", words)], identity),
        layers=[_layer(block, config, products, mask, is_first=block is blocks[0]) for block in blocks],
        norm=rms_norm_at(model, "encoder.final_layer_norm"),
        dtype=products.dtype,
        device=words.device,
    )


def _layer(block: nn.Module, config: Any, products: Products, mask: Mask, *, is_first: bool) -> Layer:
    projections = [f"{_ATTENTION}.{name}" for name in ("q", "k", "v", "o")]
    narrow = f"{_MLP}.wo"
    wide = [f"{_MLP}.{name}" for name in (("wi_0", "wi_1") if config.is_gated_act else ("wi",))]
    biases = [f"{_ATTENTION}.relative_attention_bias"] if is_first else []
    check_parameters(block, (*projections, *wide, narrow, *biases, *_NORMS))
    query, key, value, out = (linear_at(block, name) for name in projections)
    down = products.linear([linear_at(block, narrow)])
    activation = activation_at(block, f"{_MLP}.act", config.dense_act_fn)
    ups = [linear_at(block, name) for name in wide]
    feed_forward: FeedForward = (
        GatedMLP(products.linear(ups), down, activation)
        if config.is_gated_act
        else MLP(products.linear(ups, activation), down)
    )
    return PreNormLayer(
        attention_norm=rms_norm_at(block, _NORMS[0]),
        attention=SelfAttention(
            qkv=products.linear([query, key, value]),
            out=products.linear([out]),
            heads=config.num_heads,
            key_heads=config.num_heads,
            head_dim=config.d_kv,
            scale=1.0,
            mask=mask,
        ),
        feed_forward_norm=rms_norm_at(block, _NORMS[1]),
        feed_forward=feed_forward,
        dtype=products.dtype,
    )
