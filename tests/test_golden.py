"""Ours equals theirs: what sentence-transformers 6.2 (2.7 where it was chosen) made of the same models.

``make golden`` records the arrays anew.
"""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from tests.reference.cases import PROMPT, SPACED_PROMPT, SPACED_TEXTS, Case, run
from tests.reference.comparison import CONTAINERS, RECORDED_BATCH_SIZE, TOLERANCE, compare_grid
from tests.reference.golden import GOLDEN, STSB_DEV
from tests.stsb import read_stsb, spearman
from tests.tiny_models import TINY_MODELS


@pytest.mark.parametrize("acceleration", [True, False], ids=["accelerated", "plain"])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_tiny_models_give_the_vectors_of_the_reference(
    name: str, acceleration: bool, tiny_folders: dict[str, Path]
) -> None:
    """Every combination of encode's options gives what sentence-transformers 6.2 gives, to 1e-5; module by module
    each size of batch comes with one container, which is filled in the same way.
    """
    model = SentenceTransformer(str(tiny_folders[name]), device="cpu", acceleration=acceleration)
    combined: Any = product if acceleration else zip

    compared = compare_grid(
        model,
        np.load(GOLDEN / f"{name}.npz"),
        combined((1, 3, RECORDED_BATCH_SIZE), CONTAINERS),
        accelerated=acceleration,
    )

    assert compared > (800 if acceleration else 800 / 3)


def test_minilm_gives_the_vectors_of_the_reference(minilm: SentenceTransformer) -> None:
    """So does the real model."""
    minilm.prompts = {"query": PROMPT}

    compared = compare_grid(
        minilm,
        np.load(GOLDEN / "minilm.npz"),
        [(RECORDED_BATCH_SIZE, CONTAINERS[0]), (3, CONTAINERS[2])],
        accelerated=True,
    )

    minilm.prompts = {}
    assert compared > 100


@pytest.mark.parametrize("name", TINY_MODELS)
def test_spaces_around_a_text_do_not_count(name: str, tiny_folders: dict[str, Path]) -> None:
    """A text is stripped before it is tokenised, as in sentence-transformers 2.7."""
    if name == "decoder-all-modes":
        pytest.skip("2.7 overwrites token embeddings with −1e9 where padding is on the left")
    model = SentenceTransformer(str(tiny_folders[name]), device="cpu")

    (ours,) = run(model, Case(), list(SPACED_TEXTS))

    theirs = np.load(GOLDEN / f"{name}-spaced.npz")["plain"]
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert"])
def test_spaces_behind_a_prompt_are_no_token_of_it(name: str, tiny_folders: dict[str, Path]) -> None:
    """A prompt that is left out of the pooling takes the tokens that it has without spaces around it, as in 2.7."""
    model = SentenceTransformer(str(tiny_folders[name]), device="cpu")

    (ours,) = run(model, Case(SPACED_PROMPT, include_prompt=False), list(SPACED_TEXTS))

    theirs = np.load(GOLDEN / f"{name}-spaced.npz")["prompted"]
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.skipif(not STSB_DEV.exists(), reason="the STS benchmark is not at hand")
def test_stsb_correlation_is_that_of_the_reference(minilm: SentenceTransformer) -> None:
    """Spearman × 100 of cosine similarity on STS-B dev equals the reference's to 0.001."""
    firsts, seconds, scores = read_stsb(STSB_DEV)
    embeddings = minilm.encode([*firsts, *seconds], batch_size=64)

    ours = spearman(embeddings[: len(firsts)], embeddings[len(firsts) :], scores)

    recorded = json.loads((GOLDEN / "stsb.json").read_text())
    assert ours == pytest.approx(recorded["dev_cosine_spearman_x100"], abs=0.001)
