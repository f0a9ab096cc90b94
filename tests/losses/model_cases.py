"""Losses that look into a model, on a tiny BERT, for this package and for sentence-transformers alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.tiny_models import numbers_of

TEXTS = (
    ("the cat sat", "hello world", "a red model", "two vectors", "where is paris", "the dog sleeps"),
    ("a kitten sat on the text", "hello", "the model is red", "a vector and a token", "paris", "a small dog"),
    ("london", "the query runs", "what", "a long sentence about the world", "the cat", "hello dog"),
)
"""Anchors, positives and negatives."""

SIMILARITIES = torch.tensor([0.9, 0.1, 0.5, 0.4, 0.9, 0.7])
LAYERS = 2


@dataclass(frozen=True)
class ModelCase:
    """A loss, and what it is given.

    Args:
        name: Its class.
        columns: How many columns of texts.
        labels: The labels.
        arguments: Of its constructor.
        inner: For a loss over another loss: the name of that, and its arguments.
        has_decoder: Whether it has a decoder, whose weights are made up by their names.
    """

    name: str
    columns: int
    labels: Tensor | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inner: tuple[str, Mapping[str, Any]] | None = None
    has_decoder: bool = False

    def run(self, losses: Any, model: Any) -> dict[str, Tensor]:
        """The value, and its gradients by some weights, with the losses and a model of either library."""
        arguments = dict(self.arguments)
        if self.inner is not None:
            name, of_inner = self.inner
            arguments["loss"] = getattr(losses, name)(model, **of_inner)
        loss = getattr(losses, self.name)(model, **arguments)
        if self.has_decoder:
            _make_up(loss.decoder)
        loss.eval()
        random.seed(7)
        value = loss([model.tokenize(list(texts)) for texts in TEXTS[: self.columns]], self.labels)
        value.backward()
        bert = model[0].auto_model
        return {
            "value": value.detach(),
            "gradient of embeddings": bert.embeddings.LayerNorm.weight.grad,
            "gradient of layer 0": bert.encoder.layer[0].attention.self.query.weight.grad,
        }


def _make_up(module: Any) -> None:
    """Give each parameter numbers that depend on its name alone."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(numbers_of(name, tuple(parameter.shape))))


_RANKING: tuple[str, Mapping[str, Any]] = ("MultipleNegativesRankingLoss", {})
_COSENT: tuple[str, Mapping[str, Any]] = ("CoSENTLoss", {})

MODEL_CASES: Mapping[str, ModelCase] = {
    "adaptive layers": ModelCase("AdaptiveLayerLoss", 2, None, {}, _RANKING),
    "adaptive layers, all": ModelCase(
        "AdaptiveLayerLoss",
        3,
        None,
        {"n_layers_per_step": -1, "layer_weighting": "log", "last_layer_weight": 0.5, "prior_layers_weight": 2.0},
        _RANKING,
    ),
    "adaptive layers, no divergence": ModelCase(
        "AdaptiveLayerLoss", 2, SIMILARITIES, {"kl_temperature": 0, "layer_weighting": "linear"}, _COSENT
    ),
    "adaptive layers, much divergence": ModelCase(
        "AdaptiveLayerLoss", 2, SIMILARITIES, {"kl_temperature": 2.0, "kl_div_weight": 3.0}, _COSENT
    ),
    "two dimensions": ModelCase("Matryoshka2dLoss", 2, None, {"matryoshka_dims": [32, 16, 8]}, _RANKING),
    "two dimensions, all": ModelCase(
        "Matryoshka2dLoss",
        2,
        SIMILARITIES,
        {
            "matryoshka_dims": [32, 8],
            "matryoshka_weights": [1.0, 0.5],
            "n_layers_per_step": -1,
            "n_dims_per_step": -1,
        },
        _COSENT,
    ),
    "denoising": ModelCase("DenoisingAutoEncoderLoss", 2, has_decoder=True),
}
"""Name → loss."""


def run_model_cases(losses: Any, load: Callable[[str], Any], folder: Path) -> dict[str, Tensor]:
    """Name of a case, and of what it gives → that, with a model that is loaded anew for each."""
    return {
        f"{name}#{part}": value
        for name, case in MODEL_CASES.items()
        for part, value in case.run(losses, load(str(folder))).items()
    }
