"""Lean forward passes: the same numbers as the forward passes of transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sentence_embedder.acceleration import batch as batch_module
from sentence_embedder.acceleration.architectures import READERS, read_encoder
from sentence_embedder.acceleration.attention import PaddedAttention, attention_over
from sentence_embedder.acceleration.families.parts import UnreadableError
from sentence_embedder.acceleration.linear import Products
from sentence_embedder.acceleration.norms import RMSNorm, _rms_normed, _rms_normed_at_once
from sentence_embedder.features import PackedTexts
from tests.acceleration.tiny_transformers import (
    CONFIGS,
    RAGGED,
    VOCABULARY,
    own_forward,
    ragged_texts,
    tiny_transformer,
)

PACKED = Products(torch.float32, packed=True)
PLAIN = Products(torch.float32, packed=False)


def _assert_same(model: nn.Module, texts: PackedTexts, products: Products = PACKED) -> None:
    """The same to 1e-5 of the largest value."""
    with torch.no_grad():
        ours = read_encoder(model, products)(texts)
    expected = own_forward(model, texts)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_every_reader_has_its_tiny_model() -> None:
    """Each architecture of the table is compared below."""
    assert {CONFIGS[name]().model_type for name in CONFIGS} == set(READERS)


@pytest.mark.parametrize("products", [PACKED, PLAIN], ids=["packed", "plain"])
@pytest.mark.parametrize("name", CONFIGS)
def test_ragged_texts_get_the_embeddings_of_transformers(name: str, products: Products) -> None:
    """On random weights and texts of many lengths the lean forward pass equals that of transformers to 1e-5."""
    _assert_same(tiny_transformer(name), ragged_texts(), products)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_way_of_a_gpu_gives_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention over padded texts, as on an accelerator, gives the same embeddings."""
    monkeypatch.setattr(batch_module, "attention_over", PaddedAttention)

    _assert_same(tiny_transformer(name), ragged_texts())
    _assert_same(tiny_transformer(name), ragged_texts((5, 5, 5)))


@settings(max_examples=15)
@given(name=st.sampled_from(sorted(CONFIGS)), lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9))
def test_any_lengths(name: str, lengths: list[int]) -> None:
    """Whatever the lengths are, in whatever order."""
    _assert_same(tiny_transformer(name), ragged_texts(tuple(lengths)))


@pytest.mark.parametrize("name", ["roberta", "mpnet"])
def test_a_padding_token_in_a_text(name: str) -> None:
    """Where positions are counted by tokens, a padding token that somebody wrote into a text has none."""
    texts = ragged_texts((6, 4))
    texts.columns["input_ids"][[2, 7]] = 1

    _assert_same(tiny_transformer(name), texts)


@pytest.mark.parametrize("name", CONFIGS)
def test_filling_changes_nothing(name: str) -> None:
    """What fills a batch up, and a text without tokens at its end, leave the texts before it as they are."""
    texts = ragged_texts((6, 4))
    texts.columns["input_ids"][2] = 1
    with_empty = PackedTexts(columns=texts.columns, lengths=np.array([6, 4, 0]))
    encoder = read_encoder(tiny_transformer(name), Products(torch.float32, packed=False))

    with torch.no_grad():
        expected, filled = encoder(texts), encoder(with_empty.filled_up(16))

    torch.testing.assert_close(filled[:10], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention", [attention_over, PaddedAttention], ids=["cpu", "gpu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_embeddings_of_some_tokens(
    name: str, dtype: torch.dtype, attention: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of some tokens alone, in any order, are those that they have among the embeddings of all."""
    monkeypatch.setattr(batch_module, "attention_over", attention)
    texts, places = ragged_texts(), np.array([40, 0, 81, 9, 19, 0])
    encoder = read_encoder(tiny_transformer(name), Products(dtype, packed=True))

    with torch.no_grad():
        expected, found = encoder(texts)[places], encoder(texts, places)

    error = (1e-5 if dtype == torch.float32 else 1e-2) * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=error)


@pytest.mark.parametrize("name", CONFIGS)
def test_whether_padding_is_counted(name: str) -> None:
    """Padding on the left changes what a model computes if it is counted among the positions, and only then."""
    model: Any = tiny_transformer(name)
    padding_id = model.config.pad_token_id or 0
    ids = torch.arange(3, 9)[None]
    padded = torch.cat([torch.full((1, 4), padding_id), ids], dim=1)

    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
        found = model(input_ids=padded, attention_mask=(torch.arange(10) >= 4)[None].long())[0][:, 4:]

    is_changed = not torch.allclose(found, expected, atol=1e-4)
    assert read_encoder(model, PLAIN).embedding.counts_padding(padding_id) == is_changed


@pytest.mark.parametrize("name", ["bert", "albert", "electra", "ernie-with-tasks", "nomic"])
def test_token_types(name: str) -> None:
    """The second text of a pair has token type 1."""
    texts = ragged_texts()
    types = np.random.default_rng(0).integers(0, 2, sum(RAGGED))
    typed = PackedTexts(columns={**texts.columns, "token_type_ids": types}, lengths=texts.lengths)

    _assert_same(tiny_transformer(name), typed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", CONFIGS)
def test_products_in_half_precision(name: str, dtype: torch.dtype) -> None:
    """Products in half precision change little; residuals and the result stay float32."""
    texts = ragged_texts((60, 12, 12, 12, 12, 12, 12, 3))
    model = tiny_transformer(name)

    with torch.no_grad():
        ours = read_encoder(model, Products(dtype, packed=dtype == torch.bfloat16))(texts)

    assert ours.dtype == torch.float32
    assert torch.cosine_similarity(ours, own_forward(model, texts), dim=1).min() > 0.99


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_in_half_precision(name: str) -> None:
    """Of weights in half precision comes what comes of the same numbers in float32, but for roundings."""
    texts, model = ragged_texts(), tiny_transformer(name).to(torch.bfloat16)

    with torch.no_grad():
        ours = read_encoder(model, Products(torch.bfloat16, packed=True))(texts)

    assert ours.dtype == torch.bfloat16
    expected = own_forward(model.float(), texts)
    assert torch.cosine_similarity(ours.float(), expected, dim=1).min() > 0.99


@pytest.mark.parametrize("normed", [_rms_normed, _rms_normed_at_once])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_ways_to_a_norm(normed: Any, dtype: torch.dtype) -> None:
    """RMSNorm, on the CPU and elsewhere: of what lies in strides, and of halves as exactly as they can tell."""
    torch.manual_seed(0)
    x, weight = (torch.randn(3, 16, 5) * 10).to(dtype).transpose(1, 2), torch.randn(16).to(dtype)

    wide = x.double()
    expected = wide * (wide.square().mean(-1, keepdim=True) + 0.1).rsqrt() * weight.double()
    tolerance = 1e-6 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(normed(x, weight, 0.1).double(), expected, rtol=tolerance, atol=1e-6)


def test_the_weight_of_a_norm_may_be_counted_from_1() -> None:
    """The offset of a norm is added to its weight."""
    x, weight = torch.randn(5, 16), torch.randn(16)

    assert torch.equal(RMSNorm(weight, 1e-6, offset=1.0)(x), RMSNorm(weight + 1.0, 1e-6)(x))


@pytest.mark.parametrize("name", CONFIGS)
def test_layers_share_their_masks(name: str) -> None:
    """There are as many masks as there are kinds, each of which is made once a batch."""
    layers: Any = read_encoder(tiny_transformer(name), PLAIN).layers
    masks = {id(layer.attention.mask): layer.attention.mask for layer in layers}.values()

    assert len(masks) == len({(mask.causal, mask.window, mask.bias) for mask in masks})


def _with_adapter(model: Any) -> None:
    model.encoder.layer[1].adapter = nn.Linear(32, 32)


def _with_other_linear(model: Any) -> None:
    class Adapted(nn.Linear):
        """A linear layer that somebody has changed."""

    model.encoder.layer[1].output.dense = Adapted(48, 32)


def _with_other_activation(model: Any) -> None:
    model.config.hidden_act = "quick_gelu"


def _with_norm_of_words(model: Any) -> None:
    model.embeddings.word_embeddings.max_norm = 1.0


def _without_norm_weight(model: Any) -> None:
    model.encoder.layer[0].output.LayerNorm = nn.LayerNorm(32, elementwise_affine=False)


def _as_decoder(model: Any) -> None:
    model.config.is_decoder = True


def _with_a_close_activation(model: Any) -> None:
    model.encoder.layer[0].intermediate.intermediate_act_fn = nn.GELU(approximate="tanh")


def _with_positions_backwards(model: Any) -> None:
    model.embeddings.position_ids = model.embeddings.position_ids.flip(1)


@pytest.mark.parametrize(
    "change",
    [
        *(_with_a_close_activation, _with_positions_backwards),
        *(_with_adapter, _with_other_linear, _with_other_activation, _with_norm_of_words),
        *(_without_norm_weight, _as_decoder),
    ],
)
@pytest.mark.parametrize("name", ["bert", "electra", "ernie", "roberta"])
def test_what_is_not_known_is_not_read(name: str, change: Any) -> None:
    """A model with anything that the reader does not know keeps its own forward pass."""
    model = tiny_transformer(name)
    change(model)

    with pytest.raises(UnreadableError):
        read_encoder(model, PACKED)


def test_rotary_embeddings_that_depend_on_the_text() -> None:
    """Rotary embeddings whose frequencies change with the length of the text are left to the model itself."""
    model: Any = tiny_transformer("qwen3")
    model.rotary_emb.rope_type = "dynamic"

    with pytest.raises(UnreadableError, match="dynamic"):
        read_encoder(model, PACKED)


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_windows_that_a_model_does_not_look_at(name: str) -> None:
    """A Llama ignores a window, and a Qwen one that no layer has."""
    model: Any = tiny_transformer(name)
    model.config.sliding_window = 3

    _assert_same(model, ragged_texts((20, 9)))


@pytest.mark.parametrize(
    "name", ["qwen3-window", "mistral-window", "llama", "eurobert", "gemma-embedding", "nomic"]
)
@pytest.mark.parametrize("is_cut", [True, False])
def test_a_model_with_fewer_layers(name: str, is_cut: bool) -> None:
    """Layers that are cut off, or that the configuration leaves out, are not computed."""
    model: Any = tiny_transformer(name)
    if is_cut:
        model.layers = model.layers[:1]
    else:
        model.config.num_hidden_layers = 1

    _assert_same(model, ragged_texts((20, 9)))


def _looking_ahead(model: Any) -> None:
    model.layers[1].self_attn.is_causal = False


def _set_to_look_ahead(model: Any) -> None:
    model.config.is_causal = False


def _looking_back(model: Any) -> None:
    model.layers[1].self_attn.is_causal = True


def _set_to_look_back(model: Any) -> None:
    model.config.use_bidirectional_attention = False


def _with_other_words(model: Any) -> None:
    model.embed_tokens = nn.Embedding(VOCABULARY, 32)


def _with_norm_of_scaled_words(model: Any) -> None:
    model.embed_tokens.max_norm = 1.0


def _with_a_bias_of_its_own(model: Any) -> None:
    attention = model.encoder.block[1].layer[0].SelfAttention
    attention.relative_attention_bias = nn.Embedding(32, 4)


def _with_other_groups(model: Any) -> None:
    model.encoder.albert_layer_groups[1].albert_layers[0].ffn = nn.Bilinear(32, 32, 48)


@pytest.mark.parametrize(
    ("name", "change", "why"),
    [
        ("llama", _looking_ahead, "looks ahead"),
        ("llama", _set_to_look_ahead, "look ahead"),
        ("gemma", _looking_ahead, "does not look where"),
        ("gemma-embedding", _set_to_look_back, "does not look where"),
        ("gemma-embedding", _set_to_look_ahead, "look ahead"),
        ("gemma", _with_other_words, "found Embedding"),
        ("gemma", _with_norm_of_scaled_words, "max_norm"),
        ("nomic", _looking_back, "a decoder"),
        ("eurobert", _looking_back, "looks back"),
        ("t5", _as_decoder, "a decoder"),
        ("t5", nn.Module.half, "float16"),  # its own forward pass keeps numbers from overflowing
        ("mt5", _with_a_bias_of_its_own, "relative_attention_bias"),
        ("albert", _with_other_groups, "found Bilinear"),
    ],
)
def test_what_is_not_known_of_other_families(name: str, change: Any, why: str) -> None:
    """Nor are models of the younger families read that somebody has changed in what their readers rely on."""
    model = tiny_transformer(name)
    change(model)

    with pytest.raises(UnreadableError, match=why):
        read_encoder(model, PACKED)


def test_layers_that_share_their_weights() -> None:
    """Of the layers of an ALBERT that share weights, one copy of these is made."""
    encoder = read_encoder(tiny_transformer("albert"), PACKED)

    assert (len(encoder.layers), len(set(map(id, encoder.layers)))) == (6, 4)


def test_a_layer_that_stands_there_twice() -> None:
    """It is computed twice."""
    model: Any = tiny_transformer("bert")
    layers = [*model.encoder.layer]
    model.encoder.layer = nn.ModuleList([*layers, layers[0]])

    assert len(read_encoder(model, PACKED).layers) == len(layers) + 1
    _assert_same(model, ragged_texts())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["albert", "bert", "distilbert", "roberta"])
def test_the_factor_of_scores_is_read(name: str, dtype: torch.dtype) -> None:
    """A factor that somebody has set counts, in formats too whose roundings would hide it."""
    model: Any = tiny_transformer(name).to(dtype)
    for module in model.modules():
        if hasattr(module, "scaling"):
            module.scaling = 0.02

    encoder: Any = read_encoder(model, Products(dtype, packed=False))

    assert {layer.attention.scale for layer in encoder.layers} == {0.02}


def test_pruned_heads() -> None:
    """Heads that somebody has taken out are not there."""
    model: Any = tiny_transformer("bert")
    for layer in model.encoder.layer:
        attention, kept = layer.attention.self, 3 * layer.attention.self.attention_head_size
        for linear in (attention.query, attention.key, attention.value):
            linear.weight, linear.bias = nn.Parameter(linear.weight[:kept]), nn.Parameter(linear.bias[:kept])
            linear.out_features = kept
        layer.attention.output.dense.weight = nn.Parameter(layer.attention.output.dense.weight[:, :kept])
        attention.num_attention_heads, attention.all_head_size = 3, kept

    _assert_same(model, ragged_texts())


@pytest.mark.parametrize("name", ["gemma", "qwen3"])
def test_norms_are_read_where_they_are(name: str) -> None:
    """The weight of a norm is not copied: what is written to it counts."""
    model, texts = tiny_transformer(name), ragged_texts()
    encoder = read_encoder(model, PACKED)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.mul_(1.1)

        torch.testing.assert_close(encoder(texts), own_forward(model, texts), rtol=1e-5, atol=1e-5)


def test_a_model_without_layers() -> None:
    """There is nothing to be read of it."""
    config = transformers.BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=0, num_attention_heads=1)

    with pytest.raises(UnreadableError, match="without layers"):
        read_encoder(transformers.BertModel(config), PACKED)


def test_an_architecture_that_nobody_knows() -> None:
    """The error names the architecture."""
    config = transformers.MegatronBertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
    )

    with pytest.raises(UnreadableError, match="megatron-bert"):
        read_encoder(transformers.MegatronBertModel(config), PACKED)
