"""Losses that look into a model: values and gradients are those of sentence-transformers, and it stays as it is."""

from __future__ import annotations

import pickle
import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sentence_embedder import SentenceTransformer, losses
from sentence_embedder.losses.denoising_losses import tie
from tests.losses.cases import LinearModel
from tests.losses.model_cases import LAYERS, SIMILARITIES, TEXTS, run_model_cases
from tests.reference.golden import GOLDEN


def test_values_and_gradients_are_those_of_the_reference(tiny_folders: dict[str, Path]) -> None:
    """The loss of a batch, and its gradients by weights of the model, are those of sentence-transformers."""
    golden = np.load(GOLDEN / "losses.npz")

    found = run_model_cases(losses, partial(SentenceTransformer, device="cpu"), tiny_folders["bert"])

    for name, value in found.items():
        np.testing.assert_allclose(value, golden[name], rtol=1e-5, atol=1e-5, err_msg=name)


def _features(model: Any, count: int = 2) -> list[dict[str, Any]]:
    return [model.tokenize(list(texts)) for texts in TEXTS[:count]]


def _gradient(model: Any) -> Tensor:
    gradient: Tensor = model[0].auto_model.encoder.layer[0].attention.self.query.weight.grad
    return gradient.clone()


GENTLE: dict[str, Any] = {"scale": 2.0}
OVER: list[tuple[str, dict[str, Any]]] = [
    ("AdaptiveLayerLoss", {"n_layers_per_step": -1}),
    ("AdaptiveLayerLoss", {}),
    ("Matryoshka2dLoss", {"matryoshka_dims": [32, 8, 4], "n_dims_per_step": 2}),
]


@pytest.mark.parametrize(("name", "arguments"), OVER)
def test_layers_of_cached_losses(name: str, arguments: dict[str, Any], model: SentenceTransformer) -> None:
    """Over a loss with cached gradients, value and gradients are those over the plain one."""
    found = []
    for inner, options in (
        (losses.MultipleNegativesRankingLoss, GENTLE),
        (losses.CachedMultipleNegativesRankingLoss, {**GENTLE, "mini_batch_size": 4}),
    ):
        random.seed(3)
        model.zero_grad()
        loss = getattr(losses, name)(model, inner(model, **options), **arguments)
        value = loss(_features(model), None)
        value.backward()
        found.append((value.detach(), _gradient(model)))

    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)


def test_the_transformer_computes_once(model: SentenceTransformer) -> None:
    """Of each column the transformer computes once, whatever layers count; afterwards the model is as before."""
    passes: list[int] = []
    transformer: Any = model[0]
    hook = transformer.auto_model.encoder.register_forward_hook(lambda *_: passes.append(1))

    losses.AdaptiveLayerLoss(model, losses.CoSENTLoss(model), -1)(_features(model), SIMILARITIES).backward()

    assert len(passes) == 2
    hook.remove()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    pickle.dumps(model)
    assert "all_layer_embeddings" not in model(_features(model)[0])


def test_a_model_is_left_alone_by_a_batch_that_fails(model: SentenceTransformer) -> None:
    """A batch that cannot be computed is an error, and nothing of it stays at the model."""
    loss = losses.AdaptiveLayerLoss(model, losses.CoSENTLoss(model))

    with pytest.raises((IndexError, ValueError)):
        loss([{"input_ids": torch.full((2, 3), 10_000), "attention_mask": torch.ones(2, 3)}], SIMILARITIES)

    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_layers_are_drawn(model: SentenceTransformer) -> None:
    """With ``n_layers_per_step`` each batch has some of the layers, and over many batches all of them."""
    asked: list[int] = []

    def weight(layer: int) -> float:
        asked.append(layer)
        return 1.0

    loss = losses.AdaptiveLayerLoss(model, losses.CoSENTLoss(model), layer_weighting=weight)
    for _ in range(20):
        loss(_features(model), SIMILARITIES)

    assert len(asked) == 20
    assert set(asked) == set(range(LAYERS))
    assert loss.get_config_dict()["layer_weighting"] == "weight"


def test_layers_of_a_model_with_something_around_it(model: SentenceTransformer) -> None:
    """A model that is inside another module, as a distributed one is, is called by way of that."""

    class Around(nn.Module):
        calls = 0

        def __init__(self) -> None:
            super().__init__()
            self.module = model

        def forward(self, features: Any) -> Any:
            self.calls += 1
            return self.module(features)

    around = Around()
    values = []
    for each in (model, around):
        random.seed(1)
        loss = losses.AdaptiveLayerLoss(each, losses.CoSENTLoss(each))
        values.append(loss(_features(model), SIMILARITIES).detach())

    torch.testing.assert_close(*values)
    assert around.calls == 2


class Squared(losses.MultipleNegativesRankingLoss):
    """A loss of ours in which somebody has changed ``forward``."""

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        """The square."""
        return super().forward(sentence_features, labels) ** 2


def test_losses_and_models_without_layers_are_refused(model: SentenceTransformer) -> None:
    """What cannot be given the embeddings of a layer is an error that says what can."""
    others = [nn.MSELoss(), Squared(model), losses.ContrastiveTensionLoss(model)]
    others.append(losses.MatryoshkaLoss(model, Squared(model), [8]))
    others.append(losses.AdaptiveLayerLoss(model, losses.CoSENTLoss(model)))
    for other in others:
        with pytest.raises(ValueError, match="loss: expected a loss of the embeddings of one model"):
            losses.AdaptiveLayerLoss(model, other)
    with pytest.raises(ValueError, match="first module is a Transformer"):
        losses.AdaptiveLayerLoss(LinearModel(), losses.CoSENTLoss(model))
    with pytest.raises(ValueError, match="layer_weighting: expected one of"):
        losses.AdaptiveLayerLoss(model, losses.CoSENTLoss(model), layer_weighting="none")  # type: ignore[arg-type]


def test_settings_of_layers_are_written_down(model: SentenceTransformer) -> None:
    """The settings of both losses can be put into a model card."""
    loss = losses.Matryoshka2dLoss(model, losses.CoSENTLoss(model), [8, 32])

    assert loss.get_config_dict() == {
        "loss": "CoSENTLoss",
        "n_layers_per_step": 1,
        "last_layer_weight": 1.0,
        "prior_layers_weight": 1.0,
        "kl_div_weight": 1.0,
        "kl_temperature": 0.3,
        "layer_weighting": "uniform",
        "matryoshka_dims": (32, 8),
        "matryoshka_weights": (1.0, 1.0),
        "n_dims_per_step": 1,
    }


def test_a_model_learns_to_denoise(model: SentenceTransformer) -> None:
    """The parameters of the model stay its own, are those of a tied decoder, too, and learn."""
    before = dict(model.named_parameters())
    loss = losses.DenoisingAutoEncoderLoss(model)
    embeddings = model[0].auto_model.embeddings.word_embeddings.weight
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.5)

    values = []
    for _ in range(5):
        optimizer.zero_grad()
        value = loss(_features(model), None)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))

    assert values[-1] < values[0]
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    assert loss.decoder.get_input_embeddings().weight is embeddings
    assert loss.decoder.get_output_embeddings().weight is embeddings
    assert {id(parameter) for parameter in before.values()} <= {id(parameter) for parameter in loss.parameters()}


def test_a_decoder_has_the_weights_that_the_model_has_now(model: SentenceTransformer) -> None:
    """Weights that were learnt since the checkpoint was loaded stay, and so do tokens that were added."""
    transformer: Any = model[0]
    transformer.tokenizer.add_tokens(["kingfisher"])
    transformer.auto_model.resize_token_embeddings(len(transformer.tokenizer))
    with torch.no_grad():
        transformer.auto_model.encoder.layer[0].output.dense.bias.fill_(0.5)
    expected = {name: value.clone() for name, value in model.state_dict().items()}

    loss = losses.DenoisingAutoEncoderLoss(model, "not used")

    found = model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert loss.decoder.get_output_embeddings().weight.shape[0] == len(transformer.tokenizer)
    assert torch.isfinite(loss([model.tokenize(["kingfisher", "a cat"]), model.tokenize(["the kingfisher", "a"])]))


def test_a_decoder_of_other_words_gets_the_texts(model: SentenceTransformer, tiny_folders: dict[str, Path]) -> None:
    """A decoder with a tokenizer of its own restores the texts in its own tokens, and shares nothing."""
    loss = losses.DenoisingAutoEncoderLoss(model, str(tiny_folders["roberta"]), tie_encoder_decoder=False)
    own = {id(parameter) for parameter in model.parameters()}

    token_ids = loss.targets(_features(model), None)

    other = SentenceTransformer(str(tiny_folders["roberta"]), device="cpu").tokenizer
    assert other.batch_decode(token_ids, skip_special_tokens=True) == list(TEXTS[1])
    assert not own & {id(parameter) for parameter in loss.decoder.parameters()}
    assert torch.isfinite(loss(_features(model), None))
    assert loss.get_config_dict() == {
        "decoder_name_or_path": str(tiny_folders["roberta"]),
        "tie_encoder_decoder": False,
        "need_retokenization": True,
    }


def test_padding_is_not_to_be_restored(model: SentenceTransformer) -> None:
    """Padding behind the texts changes nothing."""
    loss = losses.DenoisingAutoEncoderLoss(model).eval()
    damaged, whole = _features(model)
    padded = {name: nn.functional.pad(value, (0, 3)) for name, value in whole.items()}

    torch.testing.assert_close(loss([damaged, padded]), loss([damaged, whole]))


def test_models_without_a_decoder_are_refused(model: SentenceTransformer, tiny_folders: dict[str, Path]) -> None:
    """An architecture without a decoder that attends, a width that does not fit, and models of other kinds are
    errors that say what is expected.
    """
    for name in ("mpnet", "distilbert", "decoder"):
        other = SentenceTransformer(str(tiny_folders[name]), device="cpu")
        with pytest.raises(
            ValueError, match="a decoder that attends to an encoder, such as bert or roberta, found"
        ):
            losses.DenoisingAutoEncoderLoss(other)
    chain = SentenceTransformer(str(tiny_folders["bert-chain"]), device="cpu")
    with pytest.raises(ValueError, match="embeddings of its width, 32, found 24"):
        losses.DenoisingAutoEncoderLoss(chain)(_features(chain), None)
    with pytest.raises(ValueError, match="first module is a Transformer"):
        losses.DenoisingAutoEncoderLoss(LinearModel())
    with pytest.raises(ValueError, match="expected 2 columns of texts, found 3"):
        losses.DenoisingAutoEncoderLoss(model)(_features(model, 3), None)
    with pytest.raises(ValueError, match="expected weights of the names of a _Renamed, found none"):
        tie(losses.DenoisingAutoEncoderLoss(model).decoder, _Renamed(model[0].auto_model))


class _Renamed(nn.Module):
    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def get_input_embeddings(self) -> Any:
        """Those of the model inside."""
        return self.inner.get_input_embeddings()
