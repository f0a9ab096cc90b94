"""Parts of a model of Hugging Face transformers, read by name, and refused if they are not what is expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.acceleration.attention import Mask
from sentence_embedder.acceleration.layers import GatedMLP, SelfAttention
from sentence_embedder.acceleration.linear import ACTIVATIONS, Activation, Products
from sentence_embedder.acceleration.norms import LayerNorm, Norm, RMSNorm
from sentence_embedder.acceleration.rotary_embedding import RotaryEmbedding
from sentence_embedder.dotted_names import qualified_name

_STATIC_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Kinds of rotary embedding whose frequencies do not depend on the length of the text."""

PROJECTIONS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
"""Where most architectures that are younger than BERT keep the linear layers of their attention."""

HEAD_NORMS = ("self_attn.q_norm", "self_attn.k_norm")
"""Likewise, the norms of its heads, where there are such."""

GATED_MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
"""Likewise, the linear layers of their feed-forward part."""


class UnreadableError(Exception):
    """The model is not built as the reader expects: its own forward pass must do."""


def layers_at(model: nn.Module, name: str) -> list[nn.Module]:
    """All layers of a model."""
    # Not its children, among which a layer that stands there twice is once.
    return [layer for layer in model.get_submodule(name)._modules.values() if layer is not None]


def layers_of(model: nn.Module, config: Any) -> list[nn.Module]:
    """The layers that a younger model computes, of those that it has."""
    return layers_at(model, "layers")[: config.num_hidden_layers]


def check_looks_back(config: Any) -> None:
    """Raise if the configuration makes an encoder of a decoder."""
    if not getattr(config, "is_causal", True):
        raise UnreadableError("a decoder whose configuration lets it look ahead")


def check_parameters(layer: nn.Module, names: Sequence[str]) -> None:
    """Raise unless a layer has these parts with parameters, and no others."""
    found = {name.rpartition(".")[0] for name, _ in layer.named_parameters()}
    if found != set(names):
        raise UnreadableError(f"expected a layer with {sorted(names)}, found {sorted(found)}")


def linear_at(module: nn.Module, name: str) -> nn.Linear:
    """A linear layer."""
    found = module.get_submodule(name)
    if type(found) is not nn.Linear:
        raise UnreadableError(f"{name}: expected a Linear, found {type(found).__name__}")
    return found


def layer_norm_at(module: nn.Module, name: str) -> Norm:
    """A LayerNorm."""
    found = module.get_submodule(name)
    if type(found) is not nn.LayerNorm or not found.elementwise_affine:
        raise UnreadableError(f"{name}: expected a LayerNorm with a weight, found {found}")
    bias: Tensor | None = found.bias
    return LayerNorm(found.weight.detach(), None if bias is None else bias.detach(), found.eps)


def rms_norm_at(module: nn.Module, name: str) -> Norm:
    """An RMSNorm as Llama has it."""
    found: Any = module.get_submodule(name)
    return RMSNorm(found.weight.detach(), found.variance_epsilon)


def table_at(module: nn.Module, name: str, class_name: str = "torch.nn.modules.sparse.Embedding") -> Tensor:
    """The table of an embedding, shape (rows, dim).

    Args:
        module: What has it.
        name: Its name there.
        class_name: The dotted name of its class.
    """
    found: Any = module.get_submodule(name)
    if qualified_name(type(found)) != class_name or found.max_norm is not None:
        raise UnreadableError(f"{name}: expected {class_name} without max_norm, found {found}")
    table: Tensor = found.weight.detach()
    return table


def activation_at(layer: nn.Module, name: str, setting: Any) -> Activation:
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


def heads_of(attention: Any, query: nn.Linear, heads: int) -> tuple[int, int, float]:
    """How many heads an attention has, their width, and the factor of the scores: as the module says, if it does.

    Args:
        attention: The module with the heads.
        query: The linear layer of its queries.
        heads: How many heads the configuration says.
    """
    width: int = getattr(attention, "attention_head_size", query.out_features // heads)
    return query.out_features // width, width, float(getattr(attention, "scaling", width**-0.5))


def rotary_at(model: nn.Module) -> RotaryEmbedding:
    """The one rotary embedding of a model."""
    module: Any = model.get_submodule("rotary_emb")
    return _rotary(module, "", module.rope_type)


def rotaries_at(model: nn.Module) -> dict[str, RotaryEmbedding]:
    """Kind of layer → rotary embedding, of a model that has one for each."""
    module: Any = model.get_submodule("rotary_emb")
    return {kind: _rotary(module, f"{kind}_", rope_type) for kind, rope_type in module.rope_type.items()}


def _rotary(module: Any, prefix: str, kind: str) -> RotaryEmbedding:
    if kind not in _STATIC_ROPE:
        raise UnreadableError(f"the rotary embedding {kind!r}")
    return RotaryEmbedding(getattr(module, f"{prefix}inv_freq"), getattr(module, f"{prefix}attention_scaling"))


def self_attention_of(
    layer: nn.Module,
    products: Products,
    *,
    mask: Mask,
    rotary: RotaryEmbedding,
    head_norms: Sequence[Norm] = (),
) -> SelfAttention:
    """The attention of a layer with ``PROJECTIONS``.

    Args:
        layer: The layer.
        products: How its linear layers are made.
        mask: Which tokens look at which.
        rotary: The position embedding of queries and keys.
        head_norms: What happens to each head of the queries, and of the keys, if anything does.
    """
    query_norm, key_norm = head_norms or (None, None)
    attention: Any = layer.get_submodule("self_attn")
    query, key, value, out = (linear_at(layer, name) for name in PROJECTIONS)
    return SelfAttention(
        qkv=products.linear([query, key, value]),
        out=products.linear([out]),
        heads=query.out_features // attention.head_dim,
        key_heads=key.out_features // attention.head_dim,
        head_dim=attention.head_dim,
        scale=attention.scaling,
        mask=mask,
        query_norm=query_norm,
        key_norm=key_norm,
        rotary=rotary,
    )


def gated_mlp_of(layer: nn.Module, products: Products, setting: Any) -> GatedMLP:
    """The feed-forward part of a layer with ``GATED_MLP``.

    Args:
        layer: The layer.
        products: How its linear layers are made.
        setting: The name of its activation.
    """
    gate, up, down = (linear_at(layer, name) for name in GATED_MLP)
    return GatedMLP(
        products.linear([gate, up]), products.linear([down]), activation_at(layer, "mlp.act_fn", setting)
    )
