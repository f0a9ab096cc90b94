"""ModernBERT (Warner et al. 2024, https://arxiv.org/abs/2412.13663): rotary positions, norms before each part."""

from __future__ import annotations

from typing import Any

from torch import nn

from sentence_embedder.acceleration.attention import Mask
from sentence_embedder.acceleration.embedding import TableEmbedding
from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.acceleration.families.parts import (
    activation_at,
    check_parameters,
    layer_norm_at,
    layers_at,
    linear_at,
    rotaries_at,
    table_at,
)
from sentence_embedder.acceleration.layers import GatedMLP, Layer, PreNormLayer, SelfAttention
from sentence_embedder.acceleration.linear import Products
from sentence_embedder.acceleration.norms import identity
from sentence_embedder.acceleration.rotary_embedding import RotaryEmbedding


def read_modernbert(model: nn.Module, config: Any, products: Products) -> Encoder:
    """A ModernBERT."""
    rotaries = rotaries_at(model)
    masks = {"full_attention": Mask(), "sliding_attention": Mask(window=config.sliding_window)}
    layers: list[Layer] = []
    for layer in layers_at(model, "layers"):
        kind: Any = layer.attention_type
        layers.append(_layer(layer, config, products, masks[kind], rotaries[kind]))
    words = table_at(model, "embeddings.tok_embeddings")
    return Encoder(
        embedding=TableEmbedding([("input_ids", words)], layer_norm_at(model, "embeddings.norm")),
        layers=layers,
        norm=layer_norm_at(model, "final_norm"),
        dtype=products.dtype,
        device=words.device,
    )


def _layer(layer: nn.Module, config: Any, products: Products, mask: Mask, rotary: RotaryEmbedding) -> Layer:
    is_first = type(layer.get_submodule("attn_norm")) is nn.Identity  # the embeddings have been through a norm
    norms = ("mlp_norm",) if is_first else ("attn_norm", "mlp_norm")
    check_parameters(layer, ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo", *norms))
    head_dim = config.hidden_size // config.num_attention_heads
    return PreNormLayer(
        attention_norm=identity if is_first else layer_norm_at(layer, "attn_norm"),
        attention=SelfAttention(
            qkv=products.linear([linear_at(layer, "attn.Wqkv")]),
            out=products.linear([linear_at(layer, "attn.Wo")]),
            heads=config.num_attention_heads,
            key_heads=config.num_attention_heads,
            head_dim=head_dim,
            scale=head_dim**-0.5,
            mask=mask,
            rotary=rotary,
        ),
        feed_forward_norm=layer_norm_at(layer, "mlp_norm"),
        feed_forward=GatedMLP(
            products.linear([linear_at(layer, "mlp.Wi")]),
            products.linear([linear_at(layer, "mlp.Wo")]),
            activation_at(layer, "mlp.act", config.hidden_activation),
        ),
        dtype=products.dtype,
    )
