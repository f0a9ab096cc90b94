"""Ours equals theirs: what sentence-transformers 6.2 (2.7 where it was chosen) made of the same models.

``make golden`` records the arrays anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from tests.reference.cases import PROMPT, SPACED_PROMPT, SPACED_TEXTS, Case, cases, run, texts_for
from tests.reference.golden import GOLDEN, STSB_DEV
from tests.stsb import read_stsb, spearman
from tests.tiny_models import TINY_MODELS

TOLERANCE = 1e-5
CONTAINERS: tuple[dict[str, Any], ...] = ({}, {"convert_to_tensor": True}, {"convert_to_numpy": False})
RECORDED_BATCH_SIZE = 32

Array = np.ndarray[Any, Any]


class Comparison:
    """Compares results with recorded ones: floats to the tolerance, steps and bits one by one.

    Where the batches are not those of the recording, two kinds of steps are decided by the last bit of a
    float, in the reference as here, and are not counted: the top of a dimension's range, which falls on step
    254 or 255, and dimensions that are constant but for rounding.
    """

    def __init__(self, recorded: Mapping[str, Array]) -> None:
        self._recorded = recorded
        self.arrays = self.steps = self.differing = 0

    def compare(self, case: Case, place: int, ours: Array, *, batch_size: int) -> None:
        """Compare the array of a case, or of one of its texts."""
        theirs = self._recorded[f"{case}#{place}"]
        if case.output_value == "token_embeddings":
            theirs = theirs[-len(ours) :]  # theirs keep padding that stands on the left
        assert ours.dtype == theirs.dtype, case
        assert ours.shape == theirs.shape, case
        self.arrays += 1
        if case.precision == "float32":
            np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE, atol=TOLERANCE, err_msg=str(case))
        elif "binary" in case.precision:
            self._count(np.unpackbits((ours ^ theirs).view(np.uint8), axis=-1))
        else:
            apart = np.abs(ours.astype(int) - theirs.astype(int))
            top = np.maximum(ours, theirs) == np.iinfo(ours.dtype).max
            if batch_size != RECORDED_BATCH_SIZE:
                floats = self._recorded[f"{replace(case, precision='float32')}#{place}"]
                apart[:, np.ptp(floats, axis=0) < TOLERANCE] = 0
                assert apart[top].max(initial=0) <= 1, case
                apart[top] = 0
            self._count(apart)

    def _count(self, apart: Array) -> None:
        assert apart.max(initial=0) <= 1
        self.steps += apart.size
        self.differing += int(apart.sum())

    def check(self) -> None:
        """At most one step in 10,000 may differ."""
        assert self.differing <= self.steps / 10_000, f"{self.differing} of {self.steps} steps differ"


def _compare_grid(model: SentenceTransformer, name: str, calls: list[tuple[int, dict[str, Any]]]) -> int:
    recorded = np.load(GOLDEN / f"{name}.npz")
    comparison = Comparison(recorded)
    for case, (batch_size, container) in product(cases(), calls):
        is_recorded = f"{case}#0" in recorded
        # The reference counts padding on the left as tokens when it quantises token embeddings.
        counts_padding = (
            "decoder" in name and case.output_value == "token_embeddings" and case.precision != "float32"
        )
        if not is_recorded or counts_padding:
            continue
        arguments: dict[str, Any] = {"batch_size": batch_size, **container}
        if case.prompt == PROMPT and batch_size == 3:
            arguments |= {"prompt": None, "prompt_name": "query"}
        for place, ours in enumerate(run(model, case, texts_for(case), **arguments)):
            comparison.compare(case, place, ours, batch_size=batch_size)
    comparison.check()
    return comparison.arrays


@pytest.mark.parametrize("name", TINY_MODELS)
def test_tiny_models_give_the_vectors_of_the_reference(name: str, tiny_folders: dict[str, Path]) -> None:
    """Every combination of encode's options gives what sentence-transformers 6.2 gives, to 1e-5."""
    model = SentenceTransformer(str(tiny_folders[name]), device="cpu")

    compared = _compare_grid(model, name, list(product((1, 3, RECORDED_BATCH_SIZE), CONTAINERS)))

    assert compared > 800


def test_minilm_gives_the_vectors_of_the_reference(minilm: SentenceTransformer) -> None:
    """So does the real model."""
    minilm.prompts = {"query": PROMPT}

    compared = _compare_grid(minilm, "minilm", [(RECORDED_BATCH_SIZE, CONTAINERS[0]), (3, CONTAINERS[2])])

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
