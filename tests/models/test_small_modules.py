"""Dense, Normalize, LayerNorm and Dropout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sentence_embedder import SentenceTransformer
from sentence_embedder.features import Features
from sentence_embedder.files import read_json, write_json
from sentence_embedder.formats import DenseConfig
from sentence_embedder.models import Dense, Dropout, LayerNorm, Normalize, Pooling, StaticEmbedding, WordEmbeddings
from sentence_embedder.models.module import Module
from sentence_embedder.models.tokenizer import WhitespaceTokenizer
from sentence_embedder.record import FormatError

MODULES: dict[str, Callable[[], Module]] = {
    "dense": lambda: Dense(4, 3),
    "dense without bias": lambda: Dense(4, 3, bias=False, activation_function=nn.Identity()),
    "dense of tokens": lambda: Dense(4, 4, module_input_name="token_embeddings", module_output_name="other"),
    "dense with residual": lambda: Dense(4, 3, use_residual=True),
    "dense with plain residual": lambda: Dense(4, 4, use_residual=True, activation_function=nn.ReLU()),
    "normalize": Normalize,
    "normalize of tokens": lambda: Normalize("token_embeddings"),
    "layer norm": lambda: LayerNorm(4),
    "dropout": lambda: Dropout(0.5),
}


@pytest.fixture
def features() -> Features:
    """Embeddings of three texts and of their five tokens."""
    generator = torch.Generator().manual_seed(0)
    return {
        "sentence_embedding": torch.randn(3, 4, generator=generator),
        "token_embeddings": torch.randn(3, 5, 4, generator=generator),
    }


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("safe", [True, False])
def test_save_and_load(name: str, safe: bool, features: Features, tmp_path: Path) -> None:
    """A module that was saved and loaded does the same, and unknown settings are written back."""
    module = MODULES[name]().eval()
    module.save(tmp_path, safe_serialization=safe)
    settings = {**module.get_config_dict(), "future": [1]}
    write_json(tmp_path / "config.json", settings)

    again = type(module).load(tmp_path).eval()
    again.save(tmp_path / "again")

    expected, output = module(features), again(features)
    assert output.keys() == expected.keys()
    assert all(torch.equal(output[key], expected[key]) for key in expected)
    assert read_json(tmp_path / "again" / "config.json") == settings


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_changed(name: str, features: Features) -> None:
    """The features that are handed in stay as they are."""
    before = {key: value.clone() for key, value in features.items()}

    MODULES[name]()(features)

    assert features.keys() == before.keys()
    assert all(torch.equal(features[key], before[key]) for key in before)


def test_normalize_has_no_settings_on_disk(tmp_path: Path) -> None:
    """Normalize writes an empty folder, as 2.7 does, and is loaded from a folder that is not there."""
    Normalize().save(tmp_path / "2_Normalize")

    assert list((tmp_path / "2_Normalize").iterdir()) == []
    assert isinstance(Normalize.load(tmp_path / "nothing"), Normalize)


def test_lengths_are_one(features: Features) -> None:
    """Normalize makes vectors of length 1, of texts or of tokens."""
    texts = Normalize()(features)["sentence_embedding"]
    tokens = Normalize("token_embeddings", "unit")(features)["unit"]

    assert torch.allclose(texts.norm(dim=-1), torch.ones(3))
    assert torch.allclose(tokens.norm(dim=-1), torch.ones(3, 5))


def test_dense(features: Features) -> None:
    """Dense is a linear layer and tanh, from the weights that it is given."""
    weight, bias = torch.arange(8.0).reshape(2, 4) / 10, torch.tensor([0.5, -0.5])
    dense = Dense(4, 2, init_weight=weight, init_bias=bias)

    output = dense(features)["sentence_embedding"]

    assert torch.allclose(output, torch.tanh(features["sentence_embedding"] @ weight.T + bias))
    assert dense.get_sentence_embedding_dimension() == 2


def test_residual(features: Features) -> None:
    """The residual adds the input, through weights of its own where widths differ."""
    given = features["sentence_embedding"]
    plain, mapped = Dense(4, 4, use_residual=True), Dense(4, 2, use_residual=True)

    assert torch.allclose(plain(features)["sentence_embedding"], torch.tanh(plain.linear(given)) + given)
    assert mapped.residual is not None
    expected = torch.tanh(mapped.linear(given)) + mapped.residual(given)
    assert torch.allclose(mapped(features)["sentence_embedding"], expected)


@pytest.mark.parametrize("name", ["subprocess.Popen", "torch.nn.modules.linear.Linear", "os.system", "Tanh"])
def test_activations_are_those_of_the_table(name: str, tmp_path: Path) -> None:
    """An activation that is not in the table is refused by name, and nothing is imported."""
    Dense(4, 3).save(tmp_path)
    write_json(tmp_path / "config.json", {"in_features": 4, "out_features": 3, "activation_function": name})

    expected = rf"activation functions of torch.nn.modules; .*trust_remote_code=True\).*, found '{name}'"
    with pytest.raises(FormatError, match=expected):
        Dense.load(tmp_path)


def test_arguments_of_an_activation_would_be_lost(tmp_path: Path) -> None:
    """An activation with arguments is not saved without them."""
    with pytest.raises(ValueError, match=r"found LeakyReLU\(negative_slope=0.5\) with .*slope.*would be lost"):
        Dense(4, 3, activation_function=nn.LeakyReLU(0.5)).save(tmp_path)


def test_the_activation_of_now_is_saved(features: Features, tmp_path: Path) -> None:
    """What counts is the activation that the module has, whether it works in place or not."""
    dense = Dense(4, 3)
    for activation in (nn.Identity(), nn.ReLU(inplace=True)):
        dense.activation_function = activation

        dense.save(tmp_path)

        again = Dense.load(tmp_path)
        assert type(again.activation_function) is type(activation)
        assert torch.equal(again(features)["sentence_embedding"], dense(features)["sentence_embedding"])


class Steep(nn.Module):
    """An activation of somebody's own.

    Args:
        slope: What its input is multiplied by.
    """

    def __init__(self, slope: float = 2.0) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Tanh of a multiple."""
        return torch.tanh(self.slope * given)


class Wide(Steep):
    """One that is not made without arguments."""

    def __init__(self, slope: float) -> None:
        super().__init__(slope)


def _local() -> nn.Module:
    class Local(nn.Module):
        """A class that nobody else finds."""

    return Local()


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (Steep(3.0), "its arguments would be lost"),
        (nn.Sequential(nn.Tanh()), "its arguments would be lost"),
        (nn.PReLU(3), "would be lost"),
        (Wide(2.0), "missing 1 required positional argument"),
        (_local(), "_local.<locals>.Local could not be loaded again"),
        (torch.tanh, "builtins.builtin_function_or_method could not be loaded again"),
        (lambda given: given, "builtins.function could not be loaded again"),
    ],
)
def test_what_cannot_be_loaded_again_is_not_saved(activation: Any, message: str, tmp_path: Path) -> None:
    """A Dense says that its activation would not come back, before it writes anything."""
    with pytest.raises(ValueError, match=rf"(?s)activation_function of a Dense: expected .*{message}.* Write "):
        Dense(4, 3, activation_function=activation).save(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_saving_draws_no_random_numbers(tmp_path: Path) -> None:
    """An activation with random weights is compared with a new one, and random numbers stay as they are."""
    state = torch.get_rng_state()
    dense = Dense(4, 3, activation_function=Bilinear())
    torch.set_rng_state(state)

    dense.save(tmp_path)

    assert torch.equal(torch.get_rng_state(), state)


class Bilinear(nn.Module):
    """An activation with weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """A multiple of each dimension."""
        return self.weight * given


def test_layer_norm(features: Features) -> None:
    """LayerNorm makes mean 0 and variance 1."""
    output = LayerNorm(4)(features)["sentence_embedding"]

    assert torch.allclose(output.mean(-1), torch.zeros(3), atol=1e-6)
    assert torch.allclose(output.var(-1, unbiased=False), torch.ones(3), atol=1e-3)


def test_dropout(features: Features) -> None:
    """Dropout zeroes values in training, and does nothing otherwise."""
    dropout = Dropout(0.9)
    many = {"sentence_embedding": torch.ones(100, 100)}

    share = dropout.train()(many)["sentence_embedding"].eq(0).float().mean()

    assert share == pytest.approx(0.9, abs=0.05)
    assert dropout.eval()(features)["sentence_embedding"] is features["sentence_embedding"]


def test_a_prelu_is_its_weights(tmp_path: Path) -> None:
    """What a PReLU began with is among the weights, and need not be said."""
    dense = Dense(2, 2, activation_function=nn.PReLU(init=0.1))
    dense.save(tmp_path)

    again = Dense.load(tmp_path)

    assert torch.equal(again.state_dict()["activation_function.weight"], torch.tensor([0.1]))


def test_a_dense_of_a_class_of_ones_own(tmp_path: Path) -> None:
    """A subclass makes itself from settings alone, as every module does."""

    class Own(Dense):
        """A Dense with another way to be made."""

        @classmethod
        def from_config(cls, config: DenseConfig) -> Own:  # type: ignore[override]
            """The module with these settings."""
            return cls(config.in_features, config.out_features)

    Dense(2, 3).save(tmp_path)

    assert type(Own.load(tmp_path)) is Own


def test_words_beyond_the_limit_are_told() -> None:
    """Which texts had more words than are kept is known, so that ``encode`` can tell."""
    words = WordEmbeddings(WhitespaceTokenizer(["cat", "dog"], stop_words=[]), torch.ones(2, 3), max_seq_length=2)

    assert words.tokenize_ahead(["cat dog", "cat dog cat", "", "dog dog dog dog"]).cut.tolist() == [1, 3]
    model = SentenceTransformer(modules=[words, Pooling(3)], device="cpu")
    with pytest.raises(ValueError, match="1"):
        model.encode(["cat dog", "cat dog cat"], truncation="error")


def test_static_embeddings_of_halves(minilm: SentenceTransformer, tmp_path: Path) -> None:
    """Saved in halves, they are read in float32, as the weights of all modules are."""
    table = torch.randn(len(minilm.tokenizer), 6)
    StaticEmbedding(minilm.tokenizer, table.half()).save(tmp_path)

    found = StaticEmbedding.load(tmp_path).embedding.weight

    assert found.dtype == torch.float32
    torch.testing.assert_close(found.detach(), table.half().float(), atol=0, rtol=0)
