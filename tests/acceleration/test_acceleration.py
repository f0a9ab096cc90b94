"""Acceleration: when a model goes which way, and that it is never late to notice a change."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sentence_embedder import SentenceTransformer, models
from sentence_embedder.acceleration import acceleration as acceleration_module
from sentence_embedder.acceleration import forward as forward_module
from sentence_embedder.acceleration import linear, snapshot
from sentence_embedder.acceleration.forward import Forward, PackedForward, PlainForward, ShadowForward
from sentence_embedder.acceleration.sizes import rounded_up
from sentence_embedder.features import Features
from sentence_embedder.models.transformer import forward_through
from tests.acceleration.tiny_transformers import tiny_transformer
from tests.tiny_models import TINY_MODELS

TEXTS = ["the cat sat", "a dog", "hello world on the mat", "hello", "is the dog on the cat ?"]
CPU = torch.device("cpu")


def way(model: SentenceTransformer, output_value: Any = "sentence_embedding") -> Forward:
    """The way that ``encode`` takes through a model."""
    return model._acceleration.forward(model, output_value=output_value, device=CPU, extra={})


def is_shadowed(model: SentenceTransformer) -> bool:
    """Whether the model's own forward pass is used, on faster linear layers."""
    return isinstance(way(model), ShadowForward)


def assert_like_the_plain_chain(model: SentenceTransformer) -> None:
    """``encode`` gives what the modules make one after the other, of several texts and of a lone one."""
    for texts in (TEXTS, TEXTS[-1:]):
        found = model.encode(texts)  # in evaluation mode from here on
        with torch.no_grad():
            expected = model(model.tokenize(texts))["sentence_embedding"]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_every_tiny_model_is_packed(name: str, tiny_folders: dict[str, Path]) -> None:
    """The architectures that are known go packed, and give what the modules make; all features go plain."""
    model = SentenceTransformer(str(tiny_folders[name]), device="cpu")

    assert isinstance(way(model), PackedForward)
    assert isinstance(way(model, "token_embeddings"), PackedForward)
    assert way(model, None) == PlainForward(model, CPU, {})
    assert_like_the_plain_chain(model)


_AFTER_THE_TRANSFORMER: dict[str, tuple[bool, Callable[[], list[nn.Module]]]] = {
    # Whether they take texts as they lie, and the modules.
    "several modes": (True, lambda: [models.Pooling(32, ["lasttoken", "mean", "cls"]), models.Normalize()]),
    "every module": (
        True,
        lambda: [
            models.Pooling(32, "cls"),
            models.Dense(32, 8),
            models.LayerNorm(8),
            models.Dropout(),
            models.Normalize(),
        ],
    ),
    "first tokens": (True, lambda: [models.Pooling(32, "cls")]),
    "last tokens": (True, lambda: [models.Pooling(32, "lasttoken")]),
    "a mode that pads": (False, lambda: [models.Pooling(32, ["mean", "max"])]),
    "a pooling again": (False, lambda: [models.Pooling(32, "mean"), models.Pooling(32, "mean")]),
    "token embeddings are read": (
        False,
        lambda: [models.Pooling(32, "mean"), models.Normalize("token_embeddings"), models.Pooling(32, "mean")],
    ),
}


@pytest.mark.parametrize("prompt", [None, "the cat "])
@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("following", _AFTER_THE_TRANSFORMER)
def test_whoever_follows_gets_what_it_reads(
    following: str, include_prompt: bool, prompt: str | None, tiny_folders: dict[str, Path]
) -> None:
    """Texts are padded for those modules that need it, and give the same in any case."""
    transformer = models.Transformer(str(tiny_folders["bert"]))
    takes_packed, modules = _AFTER_THE_TRANSFORMER[following]
    torch.manual_seed(0)
    rest = modules()
    for module in rest:
        if isinstance(module, models.Pooling):
            module.include_prompt = include_prompt
    packed, plain = (
        SentenceTransformer(modules=[transformer, *rest], device="cpu", acceleration=acceleration)
        for acceleration in (True, False)
    )

    extra = {} if prompt is None else {"prompt_length": 3}
    forward = packed.eval()._acceleration.forward(
        packed, output_value="sentence_embedding", device=CPU, extra=extra
    )
    assert isinstance(forward, PackedForward)
    assert (forward._packed_pooling is not None) == (takes_packed and (include_prompt or prompt is None))
    for texts in (TEXTS, TEXTS[:1], ["", *TEXTS]):
        found, expected = (model.encode(texts, prompt=prompt) for model in (packed, plain))
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_tokens_that_nobody_reads(
    mode: str, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooling that reads one token of each text has most of the last layer computed for no others."""
    counts = _recorded_rows(monkeypatch)
    transformer = models.Transformer(str(tiny_folders["bert"]))
    model = SentenceTransformer(modules=[transformer, models.Pooling(32, mode)], device="cpu")
    texts = [*TEXTS, *TEXTS[:1], "the dog", "a", "the mat", "on the mat"]
    model.encode(texts)
    counts.clear()

    model.encode(texts)

    forward: Any = way(model)
    tokens = rounded_up(sum(len(model.tokenizer(text)["input_ids"]) for text in set(texts)))
    last = tokens if mode == "mean" else rounded_up(len(set(texts)))
    assert counts == [tokens] * (2 * len(forward.encoder.layers) - 2) + [last] * 2


@pytest.mark.parametrize("mode", ["mean", "cls", "lasttoken"])
def test_who_takes_packed_texts_on_a_gpu(mode: str, tiny_folders: dict[str, Path]) -> None:
    """There texts are pooled as they lie where one token of each is enough: sums would be made in any order."""
    transformer = models.Transformer(str(tiny_folders["bert"]))
    model = SentenceTransformer(modules=[transformer, models.Pooling(32, mode)], device="cpu").eval()
    forward: Any = way(model)

    on_gpu = replace(forward, device=torch.device("cuda"))

    assert (on_gpu._packed_pooling is None) == (mode == "mean")
    if mode != "mean":
        found = on_gpu(transformer.tokenize_ahead(TEXTS), np.arange(len(TEXTS)))["sentence_embedding"]
        np.testing.assert_allclose(found.numpy(), model.encode(TEXTS), atol=1e-6)


def _recorded_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each product has that is added to a residual, two in a layer, from here on."""
    rows: list[int] = []
    for kind in (linear.PackedLinear, linear.PlainLinear):
        plus = kind.plus

        def recording(self: Any, x: torch.Tensor, residual: torch.Tensor, plus: Any = plus) -> torch.Tensor:
            rows.append(len(x))
            total: torch.Tensor = plus(self, x, residual)
            return total

        monkeypatch.setattr(kind, "plus", recording)
    return rows


@pytest.mark.parametrize("mode", ["mean", "cls"])
@pytest.mark.parametrize("feature", ["sentence_embedding", "token_embeddings"])
def test_who_listens_to_what_follows_may_keep_it(feature: str, mode: str, tiny_folders: dict[str, Path]) -> None:
    """A hook inside a module after the Transformer sees tensors of no mode, of which there can be gradients."""
    dense = models.Dense(32, 32, module_input_name=feature, module_output_name=feature)
    pooling = models.Pooling(32, mode)
    rest = [pooling, dense] if feature == "sentence_embedding" else [pooling, dense, models.Pooling(32)]
    model = SentenceTransformer(modules=[models.Transformer(str(tiny_folders["bert"])), *rest], device="cpu")
    seen: list[torch.Tensor] = []
    dense.linear.register_forward_hook(lambda _, inputs, output: seen.extend([*inputs, output]))

    for texts in ("a dog", ["a dog", "a cat"], TEXTS):
        model.encode(texts)

    assert isinstance(way(model), PackedForward)
    assert len(seen) == 6
    assert not any(tensor.is_inference() for tensor in seen)


@pytest.mark.parametrize("name", ["bert", "decoder", "decoder-all-modes"])
@pytest.mark.parametrize(
    "texts", ["", [""], ["", ""], ["", "the cat", ""], [("a", "b"), "the cat", ("", "")]], ids=str
)
@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings"])
def test_texts_without_tokens(name: str, texts: Any, output_value: Any, tiny_folders: dict[str, Path]) -> None:
    """Empty texts, of which some tokenizers make no token at all, get what the modules make of them."""
    folder = str(tiny_folders[name])
    packed = SentenceTransformer(folder, device="cpu")
    plain = SentenceTransformer(folder, device="cpu", acceleration=False)

    assert isinstance(way(packed, output_value), PackedForward)
    found, expected = (
        packed.encode(texts, output_value=output_value),
        plain.encode(texts, output_value=output_value),
    )
    if isinstance(texts, str):
        found, expected = [found], [expected]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-5, rtol=1e-5)


def test_it_can_be_turned_off(tiny_folders: dict[str, Path]) -> None:
    """``acceleration=False`` leaves the plain chain of modules."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", acceleration=False)

    assert way(model) == PlainForward(model, CPU, {})


class ChangedTransformer(models.Transformer):
    """A Transformer of somebody's own."""

    def forward(self, features: Features) -> Features:
        """Twice what the other one makes."""
        made = super().forward(features)
        return {**made, "token_embeddings": 2 * made["token_embeddings"]}


class ChangedChain(SentenceTransformer):
    """A chain of somebody's own."""

    def forward(self, input: Features, **kwargs: Any) -> Features:  # noqa: A002
        """Three times what the other one makes."""
        made = super().forward(input, **kwargs)
        return {**made, "sentence_embedding": 3 * made["sentence_embedding"]}


class ChangedTokenize(SentenceTransformer):
    """A chain with a tokenize method of its own."""

    def tokenize(self, texts: Any) -> Features:
        """The texts in upper case."""
        return super().tokenize([text.upper() for text in texts])


class Doubling(nn.Module):
    """A module that nobody knows."""

    def forward(self, features: Features) -> Features:
        """Doubles the token embeddings."""
        return {**features, "token_embeddings": 2 * features["token_embeddings"]}


def _double(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return 2 * output


def _hook(model: SentenceTransformer) -> None:
    model[0].auto_model.encoder.layer[0].output.dense.register_forward_hook(_double)


def _replaced_forward(model: SentenceTransformer) -> None:
    dense = model[0].auto_model.encoder.layer[0].output.dense
    original = dense.forward
    dense.forward = lambda x: 2 * original(x)


def _hidden_states(model: SentenceTransformer) -> None:
    model[0].auto_model.config.output_hidden_states = True


@pytest.mark.parametrize("change", [_hook, _replaced_forward, _hidden_states])
def test_it_steps_aside_for_what_others_put_in(
    change: Callable[[SentenceTransformer], None], model: SentenceTransformer
) -> None:
    """Hooks, replaced methods and wanted hidden states mean the plain chain, also after packed calls."""
    model.encode(TEXTS)
    change(model)

    assert way(model) == PlainForward(model, CPU, {})
    assert_like_the_plain_chain(model)


def test_a_hook_is_not_called_with_anything_but_texts(tiny_folders: dict[str, Path]) -> None:
    """A hook sees the user's texts, and nothing that is made up to try things out."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    shapes: list[Any] = []
    embeddings = model[0].auto_model.embeddings.word_embeddings
    handle = embeddings.register_forward_hook(lambda _module, inputs, _output: shapes.append(inputs[0].shape[0]))

    model.encode(TEXTS)
    handle.remove()

    assert shapes == [len(TEXTS)]
    assert isinstance(way(model), PackedForward)


def test_a_hook_of_all_modules(model: SentenceTransformer) -> None:
    """A hook that is registered for all modules means the plain chain while it is there."""
    handle = nn.modules.module.register_module_forward_hook(lambda _module, _inputs, output: output)
    during = way(model)
    handle.remove()

    assert during == PlainForward(model, CPU, {})
    assert isinstance(way(model), PackedForward)


@pytest.mark.parametrize("chain_class", [ChangedChain, ChangedTokenize])
def test_subclasses_have_their_way(chain_class: type[SentenceTransformer], tiny_folders: dict[str, Path]) -> None:
    """A subclass that overrides forward or tokenize is called."""
    assert_like_the_plain_chain(chain_class(str(tiny_folders["bert"]), device="cpu"))


def test_modules_that_are_not_ours_have_their_way(tiny_folders: dict[str, Path]) -> None:
    """A Transformer of somebody's own, or a module between Transformer and Pooling, means the plain chain."""
    folder = str(tiny_folders["bert"])
    changed = SentenceTransformer(modules=[ChangedTransformer(folder), models.Pooling(32)], device="cpu")
    between = SentenceTransformer(
        modules=[models.Transformer(folder), Doubling(), models.Pooling(32)], device="cpu"
    )

    for model in (changed, between):
        assert way(model) == PlainForward(model, CPU, {})
        assert_like_the_plain_chain(model)


def test_modules_that_are_not_ours_see_padded_batches(tiny_folders: dict[str, Path]) -> None:
    """Such modules get batches of at most batch_size rows, however short the texts are."""
    rows: list[int] = []

    class Counting(nn.Module):
        """Remembers how many texts a batch has."""

        def forward(self, features: Features) -> Features:
            """Remembers how many texts a batch has."""
            rows.append(len(features["input_ids"]))
            return features

    folder = str(tiny_folders["bert"])
    model = SentenceTransformer(modules=[models.Transformer(folder), Counting(), models.Pooling(32)], device="cpu")

    model.encode([f"{number} cats" for number in range(10)], batch_size=4)

    assert rows == [4, 4, 2]


def test_autocast_is_obeyed(model: SentenceTransformer) -> None:
    """Within autocast the modules compute as autocast says."""
    with torch.autocast("cpu", torch.bfloat16):
        assert way(model) == PlainForward(model, CPU, {})


@pytest.mark.parametrize("name", ["roberta", "mpnet"])
def test_padding_on_the_left_that_is_counted(name: str, tiny_folders: dict[str, Path]) -> None:
    """A model that leaves one token out when it counts positions counts others that it is padded with."""
    model = SentenceTransformer(str(tiny_folders[name]), device="cpu")
    model.tokenizer.padding_side = "left"
    assert isinstance(way(model), PackedForward)

    model.tokenizer.pad_token = model.tokenizer.unk_token

    assert way(model) == PlainForward(model, CPU, {})


def test_padding_on_the_left_with_absolute_positions(model: SentenceTransformer) -> None:
    """Where padding on the left shifts the positions of a BERT, the plain chain computes what it computes."""
    model.tokenizer.padding_side = "left"

    assert way(model) == PlainForward(model, CPU, {})
    assert_like_the_plain_chain(model)


# ── Weights that change ───────────────────────────────────────────────────────────────────────────────────────


def _in_place(model: SentenceTransformer) -> None:
    with torch.no_grad():
        model[0].auto_model.encoder.layer[0].output.dense.weight.mul_(2)


def _through_data(model: SentenceTransformer) -> None:
    model[0].auto_model.encoder.layer[0].intermediate.dense.weight.data.mul_(3)


def _bias(model: SentenceTransformer) -> None:
    with torch.no_grad():
        model[0].auto_model.encoder.layer[0].attention.self.value.bias.add_(1)


def _bias_through_data(model: SentenceTransformer) -> None:
    model[0].auto_model.encoder.layer[0].attention.self.value.bias.data.add_(1)


def _norm(model: SentenceTransformer) -> None:
    with torch.no_grad():
        model[0].auto_model.encoder.layer[1].output.LayerNorm.weight.add_(1)


def _words(model: SentenceTransformer) -> None:
    model[0].auto_model.embeddings.word_embeddings.weight.data.add_(torch.randn(32))


def _state_dict(model: SentenceTransformer) -> None:
    model.load_state_dict({name: tensor * 1.5 for name, tensor in model.state_dict().items()})


def _parameter(model: SentenceTransformer) -> None:
    dense = model[0].auto_model.encoder.layer[0].output.dense
    dense.weight = nn.Parameter(dense.weight.detach() * 2)


def _layer(model: SentenceTransformer) -> None:
    layers = model[0].auto_model.encoder.layer
    layers[0], layers[1] = layers[1], layers[0]


def _fewer_layers(model: SentenceTransformer) -> None:
    auto_model = model[0].auto_model
    auto_model.encoder.layer = auto_model.encoder.layer[:1]


def _whole_model(model: SentenceTransformer) -> None:
    config = copy.deepcopy(model[0].auto_model.config)
    untrained: Any = transformers.BertModel(config)
    model[0].auto_model = untrained.eval()


def _there_and_back(model: SentenceTransformer) -> None:
    model.double().float()
    _in_place(model)


def _a_step_of_training(model: SentenceTransformer) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model.train()
    model(model.tokenize(TEXTS))["sentence_embedding"].square().sum().backward()
    optimizer.step()
    model.eval()


def _slices(model: SentenceTransformer) -> None:
    layer = model[0].auto_model.encoder.layer[0]
    intermediate, output = layer.intermediate.dense, layer.output.dense
    intermediate.weight.data = intermediate.weight.data[:20]
    intermediate.bias.data = intermediate.bias.data[:20]
    output.weight.data = output.weight.data[:, :20]


def _transposed(model: SentenceTransformer) -> None:
    query = model[0].auto_model.encoder.layer[0].attention.self.query
    query.weight.data = query.weight.data.T


CHANGES = [
    *(_in_place, _through_data, _bias, _bias_through_data, _norm, _words, _state_dict, _parameter),
    *(_layer, _fewer_layers, _whole_model, _there_and_back, _a_step_of_training, _slices, _transposed),
]


def _load(model: Any) -> None:
    """Let the model of transformers be read, not what stands in for it."""
    assert type(model[0].auto_model) is transformers.BertModel


@pytest.mark.parametrize("is_loaded", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_noticed(
    change: Callable[[SentenceTransformer], None], is_loaded: bool, model: SentenceTransformer
) -> None:
    """Whatever way the weights change after they were read, the next vectors are those of the new weights; those of
    transformers' model were read, or those of what stands in for it.
    """
    if is_loaded:
        _load(model)
    before = model.encode(TEXTS)
    change(model)

    assert not np.allclose(model.encode(TEXTS), before, atol=1e-3)
    assert isinstance(way(model), PackedForward)


def _two_rows(weight: torch.Tensor) -> None:
    weight[3:5] = 0


def _signs(weight: torch.Tensor) -> None:
    weight[3:5].neg_()


def _two_columns(weight: torch.Tensor) -> None:
    weight[:, [3, 5]] = weight[:, [5, 3]]


@pytest.mark.parametrize("change", [_two_rows, _signs, _two_columns])
def test_a_part_that_nobody_counts_is_noticed_beside_much_work(
    change: Callable[[torch.Tensor], None], model: SentenceTransformer
) -> None:
    """torch does not know that values were changed, or changed places, through ``.data``: a call with many texts
    looks at all.
    """
    _load(model)
    texts = [f"the cat sat on mat number {number}" for number in range(150)]
    before = model.encode(texts)
    change(model[0].auto_model.encoder.layer[0].output.dense.weight.data)

    found = model.encode(texts)

    assert isinstance(way(model), PackedForward)
    assert not np.allclose(found, before, atol=1e-5)
    model.unload()  # all is read anew
    np.testing.assert_array_equal(found, model.encode(texts))


def _epsilon(model: SentenceTransformer, _: pytest.MonkeyPatch) -> None:
    model[0].auto_model.encoder.layer[0].output.LayerNorm.eps = 0.5


def _scaling(model: SentenceTransformer, _: pytest.MonkeyPatch) -> None:
    model[0].auto_model.encoder.layer[0].attention.self.scaling = 0.01


def _class_of_a_layer(_: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = transformers.models.bert.modeling_bert.BertOutput
    original = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *args: 2 * original(self, *args))


def _adapter(model: SentenceTransformer, _: pytest.MonkeyPatch) -> None:
    model[0].auto_model.disable_adapters()


@pytest.mark.parametrize("change", [_epsilon, _scaling, _class_of_a_layer, _adapter])
def test_changed_settings_are_noticed(
    change: Callable[[SentenceTransformer, pytest.MonkeyPatch], None],
    model: SentenceTransformer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What modules are set to counts as weights do: the next vectors are those of the new settings."""
    if change is _adapter:
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
        model[0].auto_model.add_adapter(config, "one")
    _load(model)
    before = model.encode(TEXTS)
    change(model, monkeypatch)

    assert not np.allclose(model.encode(TEXTS), before, atol=1e-3)
    assert_like_the_plain_chain(model)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (SentenceTransformer, "tokenize"),
        (SentenceTransformer, "forward"),
        (models.Transformer, "tokenize"),
        (models.Transformer, "forward"),
        (models.Pooling, "forward"),
    ],
)
@pytest.mark.parametrize("is_of_class", [True, False])
def test_replaced_methods_are_called(
    owner: Any, name: str, is_of_class: bool, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method that somebody has put into a class, or into an object, is called, also after other calls."""
    model.encode(TEXTS)
    calls: list[Any] = []
    objects = {SentenceTransformer: model, models.Transformer: model[0], models.Pooling: model[1]}
    holder = owner if is_of_class else objects[owner]
    original = getattr(holder, name)

    def replaced(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return original(*args, **kwargs)

    monkeypatch.setattr(holder, name, replaced, raising=True)
    model.encode(TEXTS)

    assert calls


def _sparse_weight(model: Any) -> None:
    dense = model.encoder.layer[0].output.dense
    dense.weight = nn.Parameter(dense.weight.detach().to_sparse_coo())


def _plain_weight(model: Any) -> None:
    dense = model.encoder.layer[0].output.dense
    weight = dense.weight.detach()
    del dense.weight
    dense.weight = weight


@pytest.mark.parametrize("change", [_sparse_weight, _plain_weight])
def test_what_cannot_be_read_computes_in_its_own_way(
    change: Callable[[Any], None], model: SentenceTransformer
) -> None:
    """Whatever was made of a model, ``encode`` gives what its modules make."""
    change(model[0].auto_model)

    assert way(model) == PlainForward(model, CPU, {})
    assert_like_the_plain_chain(model)


@pytest.mark.usefixtures("native_halves")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("can_pack", [True, False])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_weights_are_left_as_they_are(
    name: str, can_pack: bool, dtype: Any, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a lean forward pass adds up in place is its own, never the weights, which it may read where they are."""
    if not can_pack:
        monkeypatch.setattr(linear, "can_pack", lambda _: False)
    model = SentenceTransformer(str(tiny_folders[name]), device="cpu", dtype=dtype)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    for texts in (TEXTS, TEXTS[0], ""):
        model.encode(texts)

    assert isinstance(way(model), PackedForward)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("is_changed_by", ["who sends it", "who gets it"])
def test_weights_that_processes_share(is_changed_by: str, model: SentenceTransformer) -> None:
    """A model that torch sends to another process has its memory there, too, and notices what is changed there."""
    model.encode(TEXTS)
    sent = pickle.loads(ForkingPickler.dumps(model))  # noqa: S301 (our own)
    before = sent.encode(TEXTS)
    one, other = (model, sent) if is_changed_by == "who gets it" else (sent, model)

    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.5)

    np.testing.assert_array_equal(one.encode(TEXTS), copy.deepcopy(one).encode(TEXTS))
    assert not np.allclose(one.encode(TEXTS), before, atol=1e-3)


class _Doubled(nn.Linear):
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return super().forward(*inputs) * 2


def test_a_changed_class_is_noticed(model: SentenceTransformer) -> None:
    """A layer that becomes one of another class computes as that class does, from the next call on."""
    _load(model)
    before = model.encode(TEXTS)
    model[0].auto_model.encoder.layer[0].output.dense.__class__ = _Doubled

    assert not np.allclose(model.encode(TEXTS), before, atol=1e-3)
    assert_like_the_plain_chain(model)
    assert_like_the_plain_chain(model)


def test_other_formats_of_weights(model: SentenceTransformer) -> None:
    """After ``double`` the vectors are float64, after ``half`` float16, after ``float`` float32 again."""
    expected = model.encode(TEXTS)

    for convert, dtype, tolerance in ((model.double, np.float64, 1e-5), (model.half, np.float16, 0.05)):
        convert()
        assert model.encode(TEXTS).dtype == dtype
        np.testing.assert_allclose(model.encode(TEXTS), expected, atol=tolerance)
    assert model.float().encode(TEXTS).dtype == np.float32


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was asked for each time that a model was read."""
    reads: list[object] = []
    read = acceleration_module._read

    def counting_read(*arguments: Any) -> Any:
        reads.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(acceleration_module, "_read", counting_read)
    return reads


def test_unchanged_weights_are_read_once(model: SentenceTransformer, reads: list[object]) -> None:
    """Calls of encode share what was read, also when threads make them."""
    barrier = threading.Barrier(4)

    def encode(_: int) -> Any:
        barrier.wait()
        return [model.encode(TEXTS) for _ in range(3)]

    with ThreadPoolExecutor(4) as threads:
        results = [array for arrays in threads.map(encode, range(4)) for array in arrays]

    assert len(reads) == 1
    assert all(np.array_equal(result, results[0]) for result in results)


def test_what_a_hook_keeps_is_no_change(model: SentenceTransformer, reads: list[object]) -> None:
    """Of a model to which somebody listens nothing is read, however much they keep in it."""
    dense = model[0].auto_model.encoder.layer[0].output.dense
    dense.register_forward_hook(lambda module, _, output: setattr(module, "captured", output))

    for text in TEXTS:
        model.encode(text)

    assert len(reads) == 1
    assert dense.captured is not None


def test_sums_of_weights_are_exact() -> None:
    """They are whole numbers, on the device of the weights: a change of the last bit is noticed."""
    weight = torch.randn(3, 5)
    changed = weight.clone()
    changed[1, 2] = torch.nextafter(changed[1, 2], torch.tensor(9.0))

    sums = snapshot._sums_of_rows([weight, torch.ones(4)])

    assert sums.dtype == torch.int32
    assert not torch.equal(snapshot._sums_of_rows([changed, torch.ones(4)]), sums)
    assert snapshot._sums_of_rows([weight.to("meta")]).device.type == "meta"
    assert snapshot._sums_of_rows([]).numel() == 0


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
@given(data=st.data())
@settings(max_examples=30)
def test_sums_of_weights_tell_places_and_signs(dtype: torch.dtype, data: st.DataObject) -> None:
    """Any two values of a row that differ are told from each other in their places, and any signs that change."""
    width = data.draw(st.integers(2, 40))
    weight = torch.from_numpy(np.random.default_rng(width).normal(size=(3, width)) * 9).to(dtype)
    sums = snapshot._sums_of_rows([weight])
    one, other = data.draw(st.lists(st.integers(0, width - 1), min_size=2, max_size=2, unique=True))
    swapped = weight.clone()
    swapped[1, [one, other]] = swapped[1, [other, one]]

    assert torch.equal(snapshot._sums_of_rows([swapped]), sums) is torch.equal(swapped, weight)
    if dtype.is_floating_point:
        columns = sorted(data.draw(st.sets(st.integers(0, width - 1), min_size=1)))
        negated = weight.clone()
        negated[1, columns] *= -1
        assert not torch.equal(snapshot._sums_of_rows([negated]), sums)


def test_sums_of_weights_leave_random_numbers_alone() -> None:
    """What torch gives at random is the user's."""
    state = torch.get_rng_state()

    snapshot._sums_of_rows([torch.ones(3, 77)])

    assert torch.equal(torch.get_rng_state(), state)


def test_it_is_no_part_of_the_model(model: SentenceTransformer) -> None:
    """What was read is neither in the state dict nor in a copy or a pickle; these read anew."""
    names, size = set(model.state_dict()), len(pickle.dumps(model))
    expected = model.encode(TEXTS)

    copied, pickled = copy.deepcopy(model), pickle.dumps(model)
    loaded = pickle.loads(pickled)  # noqa: S301 (our own)

    assert set(model.state_dict()) == names
    assert len(pickled) < size * 1.01
    for other in (copied, loaded, copy.copy(model)):
        np.testing.assert_array_equal(other.encode(TEXTS), expected)
    with torch.no_grad():
        copied[0].auto_model.encoder.layer[0].output.dense.weight.mul_(2)
    np.testing.assert_array_equal(model.encode(TEXTS), expected)
    assert not np.allclose(copied.encode(TEXTS), expected, atol=1e-3)


# ── Architectures without a lean forward pass ─────────────────────────────────────────────────────────────────


@pytest.fixture
def megatron(tmp_path: Path, tiny_folders: dict[str, Path]) -> SentenceTransformer:
    """A model of an architecture without a reader."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_folders["bert"])
    config = transformers.MegatronBertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.MegatronBertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return SentenceTransformer(str(tmp_path), device="cpu")


def test_another_architecture_keeps_its_forward_pass(megatron: SentenceTransformer) -> None:
    """It computes the same with its linear layers swapped in a shadow; the model itself stays as it is."""
    linears = [module for module in megatron.modules() if isinstance(module, nn.Linear)]

    assert is_shadowed(megatron)
    assert_like_the_plain_chain(megatron)
    assert [module for module in megatron.modules() if isinstance(module, nn.Linear)] == linears
    assert all(type(module) is nn.Linear for module in linears)


class _Threads:
    """Remembers the texts of each batch that goes through a Transformer, and the thread.

    Args:
        count: So many threads are waited for.
    """

    def __init__(self, count: int) -> None:
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self._all_there = threading.Barrier(count)

    def forward_through(self, model: nn.Module, features: Features) -> Features:
        """What a Transformer makes."""
        is_new = threading.get_ident() not in self.threads
        self.batches.append(len(features["input_ids"]))
        self.threads.add(threading.get_ident())
        if is_new:
            self._all_there.wait(60)
        return forward_through(model, features)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("owner", ["nobody", "whose module follows", "whose layer is inside"])
def test_threads_compute_a_shadow(
    owner: str, megatron: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of at most ``batch_size`` texts, in several threads if all modules are known: else in one."""

    class Own(nn.Module):
        """Somebody may count in it, and write into what it gets."""

        def forward(self, given: Any) -> Any:
            """What it got."""
            if isinstance(given, dict):
                given["token_embeddings"].zero_()
            return given

    if owner == "whose module follows":
        megatron.append(Own())
    elif owner == "whose layer is inside":
        megatron[0].auto_model.encoder.layer[0].attention.self.dropout = Own()
    seen = _Threads(2 if owner == "nobody" else 1)
    monkeypatch.setattr(forward_module, "forward_through", seen.forward_through)
    texts = [f"{text} {'on the mat ' * (number % 9)}" for number, text in enumerate(TEXTS * 60)]

    found = megatron.encode(texts, batch_size=24)

    assert is_shadowed(megatron)
    assert max(seen.batches) <= 24
    assert len(seen.threads) == (2 if owner == "nobody" else 1)
    np.testing.assert_allclose(found, megatron.encode(texts, deterministic=True), atol=1e-5)


@pytest.mark.parametrize("output_value", [None, "token_embeddings"])
def test_what_a_shadow_makes_can_be_written_to(output_value: Any, megatron: SentenceTransformer) -> None:
    """No tensor of inference mode gets out."""
    for found in megatron.encode(TEXTS, output_value=output_value):
        for tensor in found.values() if output_value is None else [found]:
            assert not tensor.is_inference()
            tensor.add_(1)


def test_a_shadow_without_pooling(megatron: SentenceTransformer) -> None:
    """What is missing is told."""
    del megatron[1]

    with pytest.raises(ValueError, match=r"expected sentence_embedding .* a Pooling makes one"):
        megatron.encode(TEXTS)


def test_a_model_to_which_padding_matters(tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    """It gets the batches that it would get without a shadow."""
    config = transformers.FNetConfig(
        vocab_size=120, hidden_size=32, num_hidden_layers=2, intermediate_size=64, max_position_embeddings=48
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.FNetModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(tiny_folders["bert"]).save_pretrained(tmp_path)
    model = SentenceTransformer(str(tmp_path), device="cpu")

    assert is_shadowed(model)
    assert way(model).batch_tokens is None
    assert_like_the_plain_chain(model)


@pytest.mark.parametrize("pad_token_id", [0, 1, 400])
def test_padding_on_the_left_of_a_shadow(pad_token_id: int, tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
    """What padding changes depends on the token that texts are padded with, which need not be that of the model; it
    may even lie outside of its table, if nothing is padded.
    """
    settings: Any = {
        "hidden_act": "quick_gelu",
        "max_position_embeddings": 60,
        "pad_token_id": 0,
        "vocab_size": 120,
    }
    config = transformers.XLMRobertaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **settings
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.XLMRobertaModel(config).save_pretrained(tmp_path)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(tiny_folders["bert"], padding_side="left")
    tokenizer.save_pretrained(tmp_path)
    model: Any = SentenceTransformer(str(tmp_path), device="cpu")
    with torch.no_grad():
        for table in model[0].auto_model.embeddings.children():
            if isinstance(table, nn.Embedding):
                table.weight.mul_(20)  # so that positions count
    model.tokenizer.pad_token_id = pad_token_id

    assert is_shadowed(model)
    if pad_token_id == 400:
        model.encode(TEXTS[0])
    else:
        assert_like_the_plain_chain(model)


def test_buffers_that_nobody_counts(megatron: SentenceTransformer) -> None:
    """A shadow has buffers of its own: those of the model that are written to are noticed."""
    before = megatron.encode(TEXTS)
    transformer: Any = megatron[0]
    positions = transformer.auto_model.embeddings.position_ids.data
    positions.copy_(positions.flip(-1))

    assert not np.allclose(megatron.encode(TEXTS), before, atol=1e-4)
    assert is_shadowed(megatron)
    assert_like_the_plain_chain(megatron)


def test_a_shadow_for_each_who_computes(megatron: SentenceTransformer) -> None:
    """What a forward pass keeps in its modules, or writes into its buffers, nobody else finds there meanwhile; what
    somebody had and gave back, the next one gets, unless it failed.
    """
    forward = way(megatron)
    assert isinstance(forward, ShadowForward)
    with forward.shadow.lent() as own, forward.shadow.lent() as other:
        pass
    with forward.shadow.lent() as again:
        assert again is own
    with pytest.raises(OverflowError), forward.shadow.lent():
        raise OverflowError
    with forward.shadow.lent() as following:
        assert following is other

    assert not {*map(id, own.modules())} & {*map(id, other.modules())}
    assert all(one is another for one, another in zip(own.parameters(), other.parameters(), strict=True))
    assert all(
        one.data_ptr() != another.data_ptr() for one, another in zip(own.buffers(), other.buffers(), strict=True)
    )


@pytest.mark.parametrize("change", [_in_place, _through_data, _state_dict, _layer])
def test_a_shadow_follows_its_model(
    change: Callable[[SentenceTransformer], None], megatron: SentenceTransformer
) -> None:
    """Weights that change are noticed there too."""
    before = megatron.encode(TEXTS)
    change(megatron)

    assert not np.allclose(megatron.encode(TEXTS), before, atol=1e-4)
    assert is_shadowed(megatron)
    assert_like_the_plain_chain(megatron)


@pytest.mark.parametrize("bias", [torch.arange(64.0).reshape(32, 2)[:, 0] / 9, torch.ones(1).expand(32)])
def test_a_bias_that_does_not_lie_in_one_piece(bias: torch.Tensor, megatron: SentenceTransformer) -> None:
    """A shadow reads it as it is."""
    megatron[0].auto_model.encoder.layer[0].output.dense.bias = nn.Parameter(bias)

    assert is_shadowed(megatron)
    assert_like_the_plain_chain(megatron)


def test_a_forward_pass_that_writes_into_its_weights() -> None:
    """Nothing is tried on such a model: a twin of it, which shares its weights, would change them."""
    config = transformers.RwkvConfig(
        vocab_size=50,
        hidden_size=16,
        attention_hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        rescale_every=2,
        context_length=16,
    )
    untrained: Any = transformers.RwkvModel(config)
    model = untrained.eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}

    reading = acceleration_module._read(model, "float32", 0)

    assert reading.encoder is None
    assert reading.shadow is None
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_shadow_that_differs_is_not_used(megatron: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shadow is compared with its model, too."""
    for kind in (linear.PackedLinear, linear.PlainLinear):
        monkeypatch.setattr(kind, "__call__", lambda self, x: x.new_zeros(*x.shape[:-1], len(self.bias)))

    assert way(megatron) == PlainForward(megatron, CPU, {})
    assert_like_the_plain_chain(megatron)


def test_a_forward_pass_that_writes_into_its_buffers(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Rotary embeddings that follow the longest text belong to the shadow: the model itself stays as it was."""
    folder = shutil.copytree(tiny_folders["decoder"], tmp_path / "decoder")
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters", None)
    config |= {"max_position_embeddings": 8, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}
    (folder / "config.json").write_text(json.dumps(config))
    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = 200
    own = {name: buffer.clone() for name, buffer in model.named_buffers()}

    model.encode(["hello " * 60])

    assert is_shadowed(model)
    assert way(model).batch_tokens is None  # what is longest, decides for all
    assert all(torch.equal(buffer, own[name]) for name, buffer in model.named_buffers())
    plain = SentenceTransformer(str(folder), device="cpu", acceleration=False)
    np.testing.assert_allclose(model.encode("hello"), plain.encode("hello"), atol=1e-5)


def test_adapters_are_computed(model: SentenceTransformer) -> None:
    """A layer that wraps a linear one is called; the linear ones around it are still swapped."""

    class Adapted(nn.Module):
        """A linear layer and something added to it."""

        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Twice the layer's output."""
            return 2 * torch.as_tensor(self.layer(x))

    before = model.encode(TEXTS)
    output = model[0].auto_model.encoder.layer[0].output
    output.dense = Adapted(output.dense)

    assert not np.allclose(model.encode(TEXTS), before, atol=1e-3)
    assert is_shadowed(model)
    assert_like_the_plain_chain(model)


def test_quantized_layers_are_computed(model: SentenceTransformer) -> None:
    """Layers that torch has quantised keep their own products."""
    before = model.encode(TEXTS)
    quantize: Any = torch.ao.quantization.quantize_dynamic
    with pytest.warns((DeprecationWarning, UserWarning)):
        quantized = quantize(model, {nn.Linear}, dtype=torch.qint8)

    assert not np.array_equal(quantized.encode(TEXTS), before)
    assert_like_the_plain_chain(quantized)


def test_a_lean_forward_pass_that_differs_is_not_used(
    model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    """If a model does not compute what its configuration says, a warning says so, and its own way is taken."""
    model[0].auto_model.encoder.layer[0].output.dropout = nn.Tanh()

    with caplog.at_level(logging.WARNING):
        assert_like_the_plain_chain(model)

    assert "the faster forward pass of BertModel differs from its own" in caplog.text
    assert way(model) == PlainForward(model, CPU, {})


# ── Memory ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("available", "packs"), [(2**40, True), (10, False), (None, False)])
def test_large_copies_are_made_where_memory_allows(
    available: int | None, packs: bool, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above a size weights are copied only if twice as much memory is there; the vectors are the same."""
    monkeypatch.setattr(acceleration_module, "_PACKED_FREELY", 100)
    monkeypatch.setattr(acceleration_module, "available_memory", lambda: available)

    assert acceleration_module._may_pack(model, torch.float32) is packs
    assert isinstance(way(model), PackedForward)
    assert_like_the_plain_chain(model)


# ── Number formats ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("native_halves")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", torch.bfloat16])
def test_half_precision(dtype: Any, tiny_folders: dict[str, Path]) -> None:
    """Products in half precision give float32 vectors that are nearly the same; the weights stay as they are."""
    expected = SentenceTransformer(str(tiny_folders["bert"]), device="cpu").encode(TEXTS)
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", dtype=dtype)

    found = model.encode(TEXTS)

    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    assert torch.cosine_similarity(torch.tensor(found), torch.tensor(expected)).min() > 0.999
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.usefixtures("native_halves")
def test_half_precision_of_another_architecture(megatron: SentenceTransformer) -> None:
    """So does a shadow, whose linear layers alone are in half precision."""
    expected = megatron.encode(TEXTS)
    megatron._acceleration.dtype = "bfloat16"

    found = megatron.encode(TEXTS)

    assert found.dtype == np.float32
    assert not np.array_equal(found, expected)
    assert torch.cosine_similarity(torch.tensor(found), torch.tensor(expected)).min() > 0.999


@pytest.mark.usefixtures("native_halves")
@pytest.mark.parametrize(("largest_error", "expected"), [(1.0, torch.bfloat16), (0.0, torch.float32)])
def test_auto_keeps_the_embeddings(
    largest_error: float, expected: torch.dtype, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``"auto"`` takes half precision only if the embeddings of this model stay what they are."""
    monkeypatch.setattr(acceleration_module, "_LARGEST_ERROR_OF_AUTO", largest_error)
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", dtype="auto")

    forward = way(model)

    assert isinstance(forward, PackedForward)
    assert forward.encoder.dtype == expected


@pytest.mark.parametrize(("name", "expected"), [("nomic", torch.float16), ("t5", torch.float32)])
def test_auto_and_numbers_that_overflow(name: str, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """``"auto"`` takes no float16 for an architecture whose numbers are known to be too large for it."""
    monkeypatch.setattr(acceleration_module, "_LARGEST_ERROR_OF_AUTO", 1.0)
    monkeypatch.setattr(acceleration_module, "candidates", lambda *_: (torch.float16, torch.float32))

    reading = acceleration_module._read(tiny_transformer(name), "auto", 0)

    assert reading.encoder is not None
    assert reading.encoder.dtype == expected


def test_auto_with_the_real_model(minilm: SentenceTransformer) -> None:
    """Whatever format ``"auto"`` takes here, the real model's vectors keep a cosine similarity of 0.9999."""
    texts = [*TEXTS, "How do I bake bread?", "A long text about nothing in particular. " * 30]
    model = copy.deepcopy(minilm)
    model._acceleration.dtype = "auto"

    cosines = (model.encode(texts) * minilm.encode(texts)).sum(axis=1)

    assert cosines.min() >= 0.9999


def test_a_list_that_is_written_to_is_noticed() -> None:
    """So is a list of the configuration into which something else is put."""
    model: Any = tiny_transformer("qwen3-window")
    taken = snapshot.Snapshot(model)
    assert taken.is_current()

    model.config.layer_types[2] = "full_attention"

    assert not taken.is_current()


def test_a_replaced_dictionary_is_noticed(model: SentenceTransformer) -> None:
    """A module whose dictionaries of parts or hooks are others than before is read anew."""
    _load(model)
    before = model.encode(TEXTS)
    layer = model[0].auto_model.encoder.layer[0].attention.self.query
    calls: list[Any] = []

    layer._forward_hooks = OrderedDict()
    layer.register_forward_hook(lambda *_: calls.append(1))
    np.testing.assert_allclose(model.encode(TEXTS), before, rtol=1e-4, atol=1e-5)
    assert calls

    layer._forward_hooks.clear()
    layer._parameters = {name: nn.Parameter(2 * tensor.detach()) for name, tensor in layer._parameters.items()}
    assert np.abs(model.encode(TEXTS) - before).max() > 1e-4
