"""The attributes of modules that others read: those that sentence-transformers 2.7 and 6.2 have."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn

from sentence_embedder.models import (
    CNN,
    LSTM,
    BoW,
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    WeightedLayerPooling,
    WordEmbeddings,
    WordWeights,
)
from sentence_embedder.models.module import Module
from sentence_embedder.models.tokenizer import WhitespaceTokenizer

_WEIGHTED = {"vocab": ["a", "b"], "word_weights": {"a": 2.0}, "unknown_word_weight": 1}

ATTRIBUTES: Mapping[str, tuple[Callable[[], Module], Mapping[str, Any]]] = {
    "Dense": (
        lambda: Dense(4, 3),
        {
            "in_features": 4,
            "out_features": 3,
            "bias": True,
            "module_input_name": "sentence_embedding",
            "module_output_name": "sentence_embedding",
            "use_residual": False,
            "config_keys": ["in_features", "out_features", "bias", "activation_function"],
            "get_embedding_dimension": 3,
        },
    ),
    "LayerNorm": (
        lambda: LayerNorm(4),
        {"dimension": 4, "config_keys": ["dimension"], "get_embedding_dimension": 4},
    ),
    "Dropout": (lambda: Dropout(0.5), {"dropout": 0.5, "config_keys": ["dropout"]}),
    "CNN": (
        lambda: CNN(3, 4, [1, 3]),
        {
            "in_word_embedding_dimension": 3,
            "in_embedding_dimension": 3,
            "out_channels": 4,
            "kernel_sizes": [1, 3],
            "stride_sizes": [1, 1],
            "embeddings_dimension": 8,
            "config_keys": ["in_word_embedding_dimension", "out_channels", "kernel_sizes"],
            "get_embedding_dimension": 8,
        },
    ),
    "LSTM": (
        lambda: LSTM(3, 4),
        {
            "word_embedding_dimension": 3,
            "embedding_dimension": 3,
            "hidden_dim": 4,
            "num_layers": 1,
            "dropout": 0,
            "bidirectional": True,
            "embeddings_dimension": 8,
            "config_keys": ["word_embedding_dimension", "hidden_dim", "num_layers", "dropout", "bidirectional"],
            "get_embedding_dimension": 8,
        },
    ),
    "BoW": (
        lambda: BoW(["a", "b", "a"], {"a": 2.0}),
        {
            **_WEIGHTED,
            "cumulative_term_frequency": True,
            "sentence_embedding_dimension": 2,
            "config_keys": [*_WEIGHTED, "cumulative_term_frequency"],
            "get_embedding_dimension": 2,
        },
    ),
    "WordWeights": (
        lambda: WordWeights(["a", "b"], {"a": 2.0}),
        {**_WEIGHTED, "config_keys": [*_WEIGHTED]},
    ),
    "WeightedLayerPooling": (
        lambda: WeightedLayerPooling(3, 4, 1),
        {
            "word_embedding_dimension": 3,
            "embedding_dimension": 3,
            "layer_start": 1,
            "num_hidden_layers": 4,
            "config_keys": ["word_embedding_dimension", "layer_start", "num_hidden_layers"],
            "get_embedding_dimension": 3,
        },
    ),
    "WordEmbeddings": (
        lambda: WordEmbeddings(WhitespaceTokenizer(["a", "b"]), torch.ones(2, 3)),
        {
            "embeddings_dimension": 3,
            "update_embeddings": False,
            "max_seq_length": 1_000_000,
            "config_keys": ["tokenizer_class", "update_embeddings", "max_seq_length"],
            "get_embedding_dimension": 3,
        },
    ),
    "Pooling": (
        lambda: Pooling(3),
        {
            "word_embedding_dimension": 3,
            "embedding_dimension": 3,
            "pooling_mode": "mean",
            "include_prompt": True,
            "pooling_output_dimension": 3,
            "get_embedding_dimension": 3,
        },
    ),
    "Normalize": (
        Normalize,
        {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"},
    ),
}
"""Module → what makes one, and its attributes as both versions have them, or the one that has them."""


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes(name: str) -> None:
    """A module, a copy of it and one that was pickled have the attributes of the references."""
    make, expected = ATTRIBUTES[name]
    module = make()

    for one in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301
        found = {attribute: getattr(one, attribute) for attribute in expected}
        assert {key: value() if callable(value) else value for key, value in found.items()} == expected


@pytest.mark.parametrize("name", ["nothing", "extra", "__deepcopy__"])
def test_what_is_no_attribute(name: str) -> None:
    """What is neither a setting nor of torch is an AttributeError that names the class, also of an empty module."""
    for module in (Dense(4, 3), Dense.__new__(Dense)):
        with pytest.raises(AttributeError, match=f"'Dense' object has no attribute '{name}'"):
            getattr(module, name)


def test_torch_comes_first() -> None:
    """A setting does not hide a module of the same name, nor what a subclass sets."""

    class Own(Dense):
        """One that has an attribute of its own."""

        def __init__(self) -> None:
            super().__init__(4, 3)
            self.in_features = "mine"

    assert isinstance(Dense(4, 3).activation_function, nn.Tanh)
    assert Own().in_features == "mine"


def test_settings_that_change() -> None:
    """An attribute says what holds now."""
    pooling = Pooling(3, ["mean", "cls"])
    pooling.include_prompt = False

    assert pooling.pooling_mode == ("mean", "cls")
    assert not pooling.include_prompt
    assert CNN(3, 4, [1, 3], [2, 2]).stride_sizes == [2, 2]


def test_others_may_have_attributes_of_these_names() -> None:
    """What is worked out here, a class of somebody's own may set, as modules of 2.7 do."""

    class Own(CNN):
        """A CNN that says itself how wide it is."""

        def __init__(self) -> None:
            super().__init__(4, out_channels=2, kernel_sizes=[1])
            self.config_keys = ["own"]
            self.embeddings_dimension = 5

    assert (Own().config_keys, Own().embeddings_dimension) == (["own"], 5)
