"""Gemma 3, and EmbeddingGemma (Vera et al. 2025, https://arxiv.org/abs/2509.20354), which looks everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

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
    rotaries_at,
    self_attention_of,
    table_at,
)
from sentence_embedder.acceleration.layers import Layer, SandwichNormLayer
from sentence_embedder.acceleration.linear import Products
from sentence_embedder.acceleration.norms import Norm, RMSNorm
from sentence_embedder.acceleration.rotary_embedding import RotaryEmbedding

_SCALED_EMBEDDING = "transformers.models.gemma3.modeling_gemma3.Gemma3TextScaledWordEmbedding"
_NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
)


@dataclass(frozen=True)
class _Scaling:
    """What Gemma does to its embeddings.

    Args:
        factor: Of all values, shape ().
    """

    factor: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) → the same shape."""
        return x * self.factor.to(x.dtype)


def read_gemma(model: nn.Module, config: Any, products: Products) -> Encoder:
    """A Gemma 3 for texts."""
    check_looks_back(config)
    looks_back = not config.use_bidirectional_attention
    # A window of n tokens reaches to the n-1st from this one.
    masks = {
        "full_attention": Mask(causal=looks_back),
        "sliding_attention": Mask(causal=looks_back, window=config.sliding_window - 1),
    }
    rotaries = rotaries_at(model)
    its_layers = layers_of(model, config)
    kinds = config.layer_types[: len(its_layers)]
    layers = [
        _layer(layer, config, products, masks[kind], rotaries[kind])
        for layer, kind in zip(its_layers, kinds, strict=True)
    ]
    words = table_at(model, "embed_tokens", _SCALED_EMBEDDING)
    factor: Any = model.get_submodule("embed_tokens").embed_scale
    return Encoder(
        embedding=TableEmbedding([("input_ids", words)], _Scaling(factor)),
        layers=layers,
        norm=_norm_at(model, "norm"),
        dtype=products.dtype,
        device=words.device,
    )


def _layer(layer: nn.Module, config: Any, products: Products, mask: Mask, rotary: RotaryEmbedding) -> Layer:
    attention: Any = layer.get_submodule("self_attn")
    if attention.is_causal != mask.causal:
        raise UnreadableError("a Gemma that does not look where its configuration says")
    check_parameters(layer, (*PROJECTIONS, *HEAD_NORMS, *GATED_MLP, *_NORMS))
    head_norms = [_norm_at(layer, name) for name in HEAD_NORMS]
    before_attention, after_attention, before_mlp, after_mlp = (_norm_at(layer, name) for name in _NORMS)
    return SandwichNormLayer(
        attention_norm=before_attention,
        attention=self_attention_of(layer, products, mask=mask, rotary=rotary, head_norms=head_norms),
        attended_norm=after_attention,
        feed_forward_norm=before_mlp,
        feed_forward=gated_mlp_of(layer, products, config.hidden_activation),
        output_norm=after_mlp,
        dtype=products.dtype,
    )


def _norm_at(module: nn.Module, name: str) -> Norm:
    found: Any = module.get_submodule(name)
    return RMSNorm(found.weight.detach(), found.eps, offset=1.0)
