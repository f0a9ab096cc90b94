"""What the owner of a model says of it, and what is found out."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest

from sentence_embedder import SentenceTransformer, SentenceTransformerModelCardData, models
from tests.hub.server import HubServer


@pytest.mark.parametrize(("language", "expected"), [(None, []), ("en", ["en"]), (["en", "de"], ["en", "de"])])
def test_languages(language: Any, expected: list[str]) -> None:
    """One language or several are a list, also when they are set later."""
    data = SentenceTransformerModelCardData(language=language)
    assert data.language == expected

    data.set_language("fr")
    assert data.language == ["fr"]


def test_tags() -> None:
    """Tags are added once each."""
    data = SentenceTransformerModelCardData()
    data.add_tags("mine")
    data.add_tags(["mine", "other"])

    assert (data.tags or [])[-2:] == ["mine", "other"]
    assert "sentence-transformers" in (data.tags or [])


@pytest.mark.parametrize("model_id", ["mine", "a/b/c"])
def test_names_on_the_hub(model_id: str) -> None:
    """A name on the Hub has an owner."""
    with pytest.raises(ValueError, match="model_id: expected owner/name"):
        SentenceTransformerModelCardData(model_id=model_id)


def test_the_base_model_is_the_one_on_the_hub(hub: HubServer, tiny_folders: dict[str, Path]) -> None:
    """What was loaded from the Hub has its name and its commit, by which mteb knows a model."""
    commit = hub.add_repository("sentence-transformers/tiny", tiny_folders["bert"])

    model = SentenceTransformer("tiny", device="cpu")

    assert model.model_card_data.base_model == "sentence-transformers/tiny"
    assert model.model_card_data.base_model_revision == commit
    assert model.model_card_data.model_name is None


def test_a_folder_is_no_base_model(
    tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path says nothing to others, a relative one neither."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    model.save(tmp_path / "owner" / "model")
    monkeypatch.chdir(tmp_path)

    assert model.model_card_data.base_model is None
    assert SentenceTransformer("owner/model", device="cpu").model_card_data.base_model is None


def test_a_model_made_of_a_checkpoint(tiny_folders: dict[str, Path]) -> None:
    """A checkpoint on the Hub is the base of a model that is made of it; what the owner says comes first."""
    transformer = models.Transformer(str(tiny_folders["bert"]))
    transformer.auto_model.config._name_or_path = "bert-base-uncased"
    said = SentenceTransformerModelCardData()
    said.set_base_model("them/theirs")

    made = SentenceTransformer(modules=[transformer, models.Pooling(32)], device="cpu")
    told = SentenceTransformer(modules=[transformer, models.Pooling(32)], device="cpu", model_card_data=said)

    assert made.model_card_data.base_model == "bert-base-uncased"
    assert told.model_card_data.base_model == "them/theirs"


def test_it_goes_with_the_model(model: SentenceTransformer) -> None:
    """A copy of a model has it, and so has one from a pickle."""
    model.model_card_data.set_license("mit")

    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):  # noqa: S301
        assert other.model_card_data.license == "mit"
        assert other.model_card_data is not model.model_card_data
