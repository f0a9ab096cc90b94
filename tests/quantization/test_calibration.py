"""Calibration: ranges for int8 and uint8 that are found once, and belong to the model."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sentence_embedder import SentenceTransformer
from sentence_embedder.quantization.calibration import Calibration
from sentence_embedder.quantization.precision import quantize_embeddings

_WORDS = (("cat", "dog", "kitten"), ("sat", "sleeps", "runs"), ("london", "paris", "a red text"))
CORPUS = [f"the {animal} {verb} in {place}" for animal, verb, place in product(*_WORDS)]
TEXTS = ["the cat sat", "hello world", "a small dog sleeps in paris"]


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_a_lone_text_is_as_it_is_among_others(model: SentenceTransformer, precision: Any) -> None:
    """One text, some, and all of a corpus have the same bytes, to the last one if products are."""
    with pytest.raises(ValueError, match=r"one embedding has none: calibrate the model"):
        model.encode(TEXTS[0], precision=precision)
    model.calibrate(CORPUS, prompt="")
    settings: dict[str, Any] = {"precision": precision, "prompt": "", "deterministic": True}

    together = model.encode([*CORPUS, *TEXTS], **settings)[-len(TEXTS) :]

    np.testing.assert_array_equal(model.encode(TEXTS, **settings), together)
    np.testing.assert_array_equal(np.stack([model.encode(text, **settings) for text in TEXTS]), together)


def test_the_ranges_are_those_of_the_texts(model: SentenceTransformer) -> None:
    """What ``quantize_embeddings`` makes with the same ranges, ``encode`` makes; with others of another length."""
    calibration = model.calibrate(CORPUS, prompt="")
    rows = model.encode(CORPUS, prompt="")
    np.testing.assert_allclose(calibration.ranges, [rows.min(axis=0), rows.max(axis=0)], atol=1e-6)

    for normalized in (False, True):
        floats = model.encode(TEXTS, prompt="", normalize_embeddings=normalized)
        ranges = calibration.ranges_for(32, normalized=normalized)
        expected = quantize_embeddings(floats, "int8", ranges)
        found = model.encode(TEXTS, prompt="", normalize_embeddings=normalized, precision="int8")
        assert np.abs(found.astype(int) - expected).max() <= 1  # a value between two steps may go either way
        assert np.abs(found.astype(int)).std() > 10


def test_it_is_saved_with_the_model(model: SentenceTransformer, tmp_path: Path) -> None:
    """A model that is loaded again has it, digit for digit; one that has none writes none."""
    model.save(str(tmp_path / "without"))
    model.calibrate(CORPUS)

    model.save(str(tmp_path / "with"))

    name = "config_sentence_transformers.json"
    assert "calibration" not in json.loads((tmp_path / "without" / name).read_text())
    assert SentenceTransformer(str(tmp_path / "without"), device="cpu").calibration is None
    again = SentenceTransformer(str(tmp_path / "with"), device="cpu").calibration
    assert again is not None
    assert model.calibration is not None
    np.testing.assert_array_equal(again.ranges, model.calibration.ranges)
    np.testing.assert_array_equal(again.normalized_ranges, model.calibration.normalized_ranges)


def test_streams_may_be_quantised(model: SentenceTransformer) -> None:
    """In parts they are as they are at once."""
    with pytest.raises(ValueError, match="calibrate the model first"):
        model.encode_iter(CORPUS, precision="int8")
    model.calibrate(CORPUS, prompt="")

    parts = np.concatenate([*model.encode_iter(CORPUS, prompt="", precision="int8", chunk_size=4)])

    whole = model.encode(CORPUS, prompt="", precision="int8")
    assert np.abs(parts.astype(int) - whole).max() <= 1


def test_by_processes(model: SentenceTransformer) -> None:
    """A pool gives the same bytes, of a lone text, too."""
    model.calibrate(CORPUS, prompt="")

    with model.start_multi_process_pool(["cpu"]) as pool:
        lone = model.encode(TEXTS[0], pool=pool, prompt="", precision="uint8")

    assert np.abs(lone.astype(int) - model.encode(TEXTS[0], prompt="", precision="uint8")).max() <= 1


def test_narrower_embeddings(model: SentenceTransformer) -> None:
    """Ranges are known of embeddings that are cut; not of those that are scaled after that, which is said."""
    model.calibrate(CORPUS, prompt="")
    assert model.encode(TEXTS[0], prompt="", precision="int8", truncate_dim=8).shape == (8,)
    with pytest.raises(ValueError, match="calibrate with truncate_dim=8"):
        model.encode(TEXTS[0], precision="int8", truncate_dim=8, normalize_embeddings=True)
    model.calibrate(CORPUS, prompt="", truncate_dim=8)
    assert model.encode(TEXTS[0], precision="int8", truncate_dim=8, normalize_embeddings=True).shape == (8,)
    with pytest.raises(ValueError, match="are of 8 dimensions, expected 32"):
        model.encode(TEXTS[0], precision="int8")


@pytest.mark.parametrize(("texts", "message"), [([], "found 0"), ("a dog", "found 1"), (["a dog"], "found 1")])
def test_one_text_has_no_range(model: SentenceTransformer, texts: Any, message: str) -> None:
    """Fewer than two texts are an error, and what was known before stays."""
    before = model.calibrate(CORPUS)

    with pytest.raises(ValueError, match=f"expected two texts or more, better hundreds, {message}"):
        model.calibrate(texts)

    assert model.calibration is before


def test_rows_that_are_not_finite() -> None:
    """NaN has no place in a range."""
    with pytest.raises(ValueError, match=r"expected finite embeddings, found .* in row 1"):
        Calibration.of(np.array([[1.0, 2.0], [1.0, np.nan]]))


SPOILED: list[dict[str, Any]] = [
    {},
    {"maxima": [1.0]},
    {"minima": ["a", 1.0]},
    {"normalized_minima": None},
    {"minima": [float("nan")] * 2},
    {"normalized_minima": [1.0], "normalized_maxima": [1.0]},
]


@pytest.mark.parametrize("spoiled", SPOILED, ids=str)
def test_what_a_file_must_hold(spoiled: dict[str, Any]) -> None:
    """A file of a stranger that holds anything else is an error that says what is expected."""
    names = ("minima", "maxima", "normalized_minima", "normalized_maxima")
    data = {**{name: [0.0, 1.0] for name in names}, **spoiled} if spoiled else {}

    with pytest.raises(ValueError, match=r"expected (lists of numbers|finite minima)"):
        Calibration.from_dict(data)


@pytest.mark.parametrize(
    "argument", [{"precision": "int8"}, {"normalize_embeddings": True}, {"out": None}], ids=str
)
def test_ranges_are_those_of_plain_embeddings(model: SentenceTransformer, argument: dict[str, Any]) -> None:
    """An argument that says what becomes of embeddings would give ranges of something else."""
    with pytest.raises(TypeError, match=f"calibrate: expected no {next(iter(argument))}"):
        model.calibrate(CORPUS, **argument)


def test_a_width_that_no_module_knows() -> None:
    """Then it is that of the ranges."""

    class Own(nn.Module):
        def tokenize(self, texts: list[str]) -> dict[str, Any]:
            return {
                "sentence_embedding": torch.tensor(
                    [[text.count(letter) / 3 for letter in "aeio"] for text in texts]
                )
            }

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return features

    own = SentenceTransformer(modules=[Own()], device="cpu")
    assert own.get_sentence_embedding_dimension() is None
    own.calibrate(CORPUS)

    together = own.encode(TEXTS, precision="int8")

    np.testing.assert_array_equal(own.encode(TEXTS[0], precision="int8"), together[0])
    assert own.encode(TEXTS[0], precision="int8", truncate_dim=2).shape == (2,)
