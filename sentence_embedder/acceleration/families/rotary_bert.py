"""BERTs with rotary positions: Nomic BERT, GTE and Jina embeddings v3."""

from __future__ import annotations

from typing import Any

from torch import nn

from sentence_embedder.acceleration.attention import Mask
from sentence_embedder.acceleration.embedding import TableEmbedding
from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.acceleration.families.parts import (
    GATED_MLP,
    PROJECTIONS,
    UnreadableError,
    activation_at,
    check_parameters,
    gated_mlp_of,
    layer_norm_at,
    layers_of,
    linear_at,
    rotary_at,
    self_attention_of,
    table_at,
)
from sentence_embedder.acceleration.layers import MLP, Layer, PostNormLayer
from sentence_embedder.acceleration.linear import Products
from sentence_embedder.acceleration.norms import identity
from sentence_embedder.acceleration.rotary_embedding import RotaryEmbedding

_MLP = ("mlp.fc1", "mlp.fc2")
_NORMS = ("post_attention_layernorm", "post_mlp_layernorm")


def read_rotary_bert(model: nn.Module, config: Any, products: Products) -> Encoder:
    """A BERT with rotary positions."""
    embeddings: Any = model.get_submodule("embeddings")
    tables = [("input_ids", table_at(embeddings, "word_embeddings"))]
    if embeddings.token_type_embeddings is not None:  # as in some GTEs
        tables.append(("token_type_ids", table_at(embeddings, "token_type_embeddings")))
    rotary, mask = rotary_at(model), Mask()
    return Encoder(
        embedding=TableEmbedding(tables, layer_norm_at(embeddings, "LayerNorm")),
        layers=[_layer(layer, config, products, mask, rotary) for layer in layers_of(model, config)],
        norm=identity,
        dtype=products.dtype,
        device=tables[0][1].device,
    )


def _layer(layer: nn.Module, config: Any, products: Products, mask: Mask, rotary: RotaryEmbedding) -> Layer:
    attention: Any = layer.get_submodule("self_attn")
    if attention.is_causal:
        raise UnreadableError("a BERT that is a decoder")
    is_gated = hasattr(layer.get_submodule("mlp"), "gate_proj")
    check_parameters(layer, (*PROJECTIONS, *(GATED_MLP if is_gated else _MLP), *_NORMS))
    after_attention, after_mlp = (layer_norm_at(layer, name) for name in _NORMS)
    return PostNormLayer(
        attention=self_attention_of(layer, products, mask=mask, rotary=rotary),
        attention_norm=after_attention,
        feed_forward=(gated_mlp_of if is_gated else _mlp_of)(layer, products, config.hidden_act),
        output_norm=after_mlp,
        dtype=products.dtype,
    )


def _mlp_of(layer: nn.Module, products: Products, setting: Any) -> MLP:
    up, down = (linear_at(layer, name) for name in _MLP)
    activation = activation_at(layer, "mlp.activation_fn", setting)
    return MLP(products.linear([up], activation), products.linear([down]))
