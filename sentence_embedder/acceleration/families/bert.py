"""BERT and its kin: positions in a table, norms behind each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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
    heads_of,
    layer_norm_at,
    layers_at,
    linear_at,
    table_at,
)
from sentence_embedder.acceleration.layers import MLP, Layer, PostNormLayer, SelfAttention
from sentence_embedder.acceleration.linear import Linear, Products
from sentence_embedder.acceleration.norms import Norm, identity


@dataclass(frozen=True)
class _Names:
    """Where such a model keeps its parts: dotted names below the model, and below each layer."""

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
_TASKS = ("task_type_ids", "embeddings.task_type_embeddings")

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
_ALBERT = replace(
    _BERT,
    layers="encoder.albert_layer_groups",
    query="attention.query",
    key="attention.key",
    value="attention.value",
    out="attention.dense",
    attention_norm="attention.LayerNorm",
    up="ffn",
    down="ffn_output",
    output_norm="full_layer_layer_norm",
    activation="activation",
)


@dataclass(frozen=True)
class _Widened:
    """A norm, and a linear layer behind it.

    Args:
        norm: The norm.
        linear: dim → wider.
    """

    norm: Norm
    linear: Linear

    def __call__(self, x: Tensor) -> Tensor:
        """(…, dim) → (…, wider)."""
        return self.linear(self.norm(x))


def read_bert(model: nn.Module, config: Any, products: Products) -> Encoder:
    """A BERT."""
    _check_encodes(config)
    return _read_post_norm(model, config, products, _BERT)


def read_ernie(model: nn.Module, config: Any, products: Products) -> Encoder:
    """An ERNIE, a BERT that may have a table of tasks, of which every text is of the first."""
    _check_encodes(config)
    has_tasks = model.get_submodule("embeddings").use_task_id
    tables = (*_BERT.tables, _TASKS) if has_tasks else _BERT.tables
    return _read_post_norm(model, config, products, replace(_BERT, tables=tables))


def read_electra(model: nn.Module, config: Any, products: Products) -> Encoder:
    """An ELECTRA, a BERT whose embeddings may be narrower than its layers."""
    _check_encodes(config)
    norm = _norm_of_embeddings(model)
    is_narrower = hasattr(model, "embeddings_project")
    after = _widened(norm, linear_at(model, "embeddings_project"), products) if is_narrower else norm
    return _read_post_norm(model, config, products, _BERT, after=after)


def read_roberta(model: nn.Module, config: Any, products: Products) -> Encoder:
    """A RoBERTa, XLM-RoBERTa or CamemBERT, whose positions are counted from that of padding on."""
    _check_encodes(config)
    padding_id = model.get_submodule("embeddings").padding_idx
    return _read_post_norm(model, config, products, _BERT, padding_id=padding_id)


def read_distilbert(model: nn.Module, config: Any, products: Products) -> Encoder:
    """A DistilBERT."""
    return _read_post_norm(model, config, products, _DISTILBERT)


def read_mpnet(model: nn.Module, config: Any, products: Products) -> Encoder:
    """An MPNet, whose scores depend on how far tokens are apart."""
    encoder: Any = model.get_submodule("encoder")

    def bias(width: int) -> Tensor:
        # Not by its compute_position_bias: what spells out a width cannot share a recording with others.
        biases = encoder.relative_attention_bias
        places = torch.arange(width, device=biases.weight.device)
        buckets = encoder.relative_position_bucket(places - places[:, None])
        return torch.embedding(biases.weight, buckets).permute(2, 0, 1)

    padding_id = model.get_submodule("embeddings").padding_idx
    return _read_post_norm(model, config, products, _MPNET, padding_id=padding_id, mask=Mask(bias=bias))


def read_albert(model: nn.Module, config: Any, products: Products) -> Encoder:
    """An ALBERT, whose embeddings are narrower than its layers, which share their weights."""
    groups = [layers_at(group, "albert_layers") for group in layers_at(model, _ALBERT.layers)]
    mask = Mask()
    made = [[_post_norm_layer(layer, config, products, _ALBERT, mask) for layer in group] for group in groups]
    count = config.num_hidden_layers
    # The same arithmetic as the model's, that of floats.
    layers = [layer for i in range(count) for layer in made[int(i / (count / config.num_hidden_groups))]]
    widening = linear_at(model, "encoder.embedding_hidden_mapping_in")
    after = _widened(_norm_of_embeddings(model), widening, products)
    return _encoder(model, products, _ALBERT, layers, after=after)


def _widened(norm: Norm, widening: nn.Linear, products: Products) -> _Widened:
    # In the format of the weights: the residual begins with it.
    return _Widened(norm, replace(products, dtype=widening.weight.dtype).linear([widening]))


def _check_encodes(config: Any) -> None:
    """Raise if a model is a decoder."""
    if config.is_decoder or config.add_cross_attention:
        raise UnreadableError(f"{config.model_type}: a decoder")


def _read_post_norm(
    model: nn.Module,
    config: Any,
    products: Products,
    names: _Names,
    *,
    after: Callable[[Tensor], Tensor] | None = None,
    padding_id: Any = None,
    mask: Mask | None = None,
) -> Encoder:
    mask = mask or Mask()
    layers = [_post_norm_layer(layer, config, products, names, mask) for layer in layers_at(model, names.layers)]
    after = after or _norm_of_embeddings(model)
    return _encoder(model, products, names, layers, after=after, padding_id=padding_id)


def _encoder(
    model: nn.Module,
    products: Products,
    names: _Names,
    layers: Sequence[Layer],
    *,
    after: Callable[[Tensor], Tensor],
    padding_id: Any = None,
) -> Encoder:
    _check_positions(model.get_submodule("embeddings"))
    tables = [(column, table_at(model, name)) for column, name in names.tables]
    return Encoder(
        embedding=TableEmbedding(tables, after, padding_id),
        layers=layers,
        norm=identity,
        dtype=products.dtype,
        device=tables[0][1].device,
    )


def _post_norm_layer(layer: nn.Module, config: Any, products: Products, names: _Names, mask: Mask) -> Layer:
    check_parameters(layer, (*names.linears, names.attention_norm, names.output_norm))
    query, key, value, out, up, down = (linear_at(layer, name) for name in names.linears)
    attention = layer.get_submodule(names.query.rpartition(".")[0])
    heads, head_dim, scale = heads_of(attention, query, config.num_attention_heads)
    activation = activation_at(layer, names.activation, getattr(config, names.setting))
    return PostNormLayer(
        attention=SelfAttention(
            qkv=products.linear([query, key, value]),
            out=products.linear([out]),
            heads=heads,
            key_heads=heads,
            head_dim=head_dim,
            scale=scale,
            mask=mask,
        ),
        attention_norm=layer_norm_at(layer, names.attention_norm),
        feed_forward=MLP(products.linear([up], activation), products.linear([down])),
        output_norm=layer_norm_at(layer, names.output_norm),
        dtype=products.dtype,
    )


def _norm_of_embeddings(model: nn.Module) -> Norm:
    return layer_norm_at(model, "embeddings.LayerNorm")


def _check_positions(embeddings: Any) -> None:
    """Raise unless positions are counted from 0; a stand-in does not say, and does so."""
    found = getattr(embeddings, "position_ids", None)
    if found is not None and not torch.equal(found.flatten().cpu(), torch.arange(found.numel())):
        raise UnreadableError("embeddings.position_ids: expected 0, 1, …")
