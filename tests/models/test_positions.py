"""Positions: what a model has no place for is said before it is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

from sentence_embedder import SentenceTransformer
from sentence_embedder.models import Transformer
from sentence_embedder.models.positions import Positions

PLACES = 20
_SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
_OF_ITS_OWN: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 8, "hidden_dim": 8, "n_layers": 1, "n_heads": 2},
    "albert": {**_SMALL, "embedding_size": 8},
    "electra": {**_SMALL, "embedding_size": 8},
    "modernbert": {
        **_SMALL,
        **dict.fromkeys([f"{role}_token_id" for role in ("pad", "bos", "eos", "cls", "sep")], 1),
    },
}


def _model(architecture: str) -> Any:
    settings = _OF_ITS_OWN.get(architecture, _SMALL)
    config = AutoConfig.for_model(architecture, vocab_size=50, max_position_embeddings=PLACES, **settings)
    make: Any = AutoModel.from_config
    return make(config).eval()


def _fails(model: Any, ids: list[int]) -> bool:
    try:
        model(torch.tensor([ids]))
    except (IndexError, RuntimeError):
        return True
    return False


@pytest.mark.parametrize(
    ("architecture", "most"),
    [
        *((name, PLACES) for name in ("albert", "bert", "distilbert", "electra", "ernie")),
        *((name, PLACES - 2) for name in ("camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl")),
    ],
)
@torch.no_grad()
def test_it_is_the_model_that_fails(architecture: str, most: int) -> None:
    """Exactly those texts are refused that the model cannot compute, ids of padding among them or not."""
    model = _model(architecture)
    positions = Positions.of(model)

    assert positions is not None
    assert positions.most == most
    for ids in ([5] * most, [5] * (most + 1), [5] * most + [1]):
        if _fails(model, ids):
            with pytest.raises(
                ValueError, match=f"max_seq_length=64: a text has {len(ids)} .* places for {most}: "
            ):
                positions.check([[5], ids], 64)
        else:
            positions.check([[5], ids], 64)
    assert _fails(model, [5] * (most + 1))


@pytest.mark.parametrize("architecture", ["modernbert", "qwen2", "llama"])
def test_models_without_a_table(architecture: str) -> None:
    """Of models that turn what they compare by its place, as long a text can be computed as there is memory."""
    assert Positions.of(_model(architecture)) is None


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_limit_above_the_places(name: str, tiny_folders: dict[str, Path]) -> None:
    """A limit may be above the places of the model, as long as no text is; the remedy helps."""
    model = SentenceTransformer(str(tiny_folders[name]), device="cpu")
    positions = Positions.of(model[0].auto_model)
    assert positions is not None
    expected = model.encode("a cat")

    model.max_seq_length = 1024

    assert (model.encode("a cat") == expected).all()
    with pytest.raises(ValueError, match=f"max_seq_length=1024: .* set max_seq_length to {positions.most} or less"):
        model.encode(["a cat", "cat " * 900])
    assert model.count_tokens("cat " * 900) > 900
    model.max_seq_length = positions.most
    assert model.encode("cat " * 900).shape == expected.shape


def test_a_decoder(tiny_folders: dict[str, Path]) -> None:
    """A decoder reads beyond what its settings say that it was trained for."""
    transformer = Transformer.load(tiny_folders["decoder"])
    transformer.max_seq_length = 1024

    assert (
        transformer.tokenize(["cat " * 900])["input_ids"].shape[1]
        > transformer.auto_model.config.max_position_embeddings
    )
