"""Compares what ``encode`` returns here with what a sentence-transformers returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from sentence_embedder import SentenceTransformer
from tests.reference.cases import PROMPT, Case, cases, run, texts_for

TOLERANCE = 1e-5
CONTAINERS: tuple[dict[str, Any], ...] = ({}, {"convert_to_tensor": True}, {"convert_to_numpy": False})
RECORDED_BATCH_SIZE = 32

Array = np.ndarray[Any, Any]


class Comparison:
    """Compares results with recorded ones: floats to the tolerance, steps and bits one by one.

    Where the floats are not bit by bit those of the recording, two kinds of steps are decided by the last bit of a
    float, in the reference as here, and are not counted: the top of a dimension's range, which falls on step
    254 or 255, and dimensions of so small a range that a step of it is less than the tolerance.
    """

    def __init__(self, recorded: Mapping[str, Array]) -> None:
        self._recorded = recorded
        self.arrays = self.steps = self.differing = 0

    def compare(self, case: Case, place: int, ours: Array, *, same_bits: bool) -> None:
        """Compare the array of a case, or of one of its texts.

        Args:
            case: The options.
            place: Which of the texts, or 0.
            ours: The array.
            same_bits: Whether it was computed with the recording's batches, module by module.
        """
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
            if not same_bits:
                floats = self._recorded[f"{replace(case, precision='float32')}#{place}"]
                apart[:, np.ptp(floats, axis=0) < 255 * TOLERANCE] = 0
                assert apart[top].max(initial=0) <= 1, case
                apart[top] = 0
            self._count(apart)

    def _count(self, apart: Array) -> None:
        assert apart.max(initial=0) <= 1
        self.steps += apart.size
        self.differing += int(apart.sum())

    def check(self) -> None:
        """At most one step in 5,000 may differ: processors round floats in their own ways."""
        assert self.differing <= self.steps / 5_000, f"{self.differing} of {self.steps} steps differ"


def compare_grid(
    model: SentenceTransformer,
    recorded: Mapping[str, Array],
    calls: Iterable[tuple[int, dict[str, Any]]],
    *,
    accelerated: bool,
) -> int:
    """Compare every case that was recorded.

    Args:
        model: The model, which has ``PROMPT`` under the name ``query``.
        recorded: Case and place → array, as ``record.py`` writes them.
        calls: Batch sizes, with the arguments that choose a container.
        accelerated: Whether the model computes in its own way, rather than module by module.

    Returns:
        How many arrays were compared.
    """
    counts_padding = model.tokenizer.padding_side == "left"
    is_alike = not accelerated and _has_bits_of(model, recorded)
    comparison = Comparison(recorded)
    for case, (batch_size, container) in product(cases(), list(calls)):
        # The reference counts padding on the left as tokens when it quantises token embeddings.
        is_quantized = case.output_value == "token_embeddings" and case.precision != "float32"
        if f"{case}#0" not in recorded or (is_quantized and counts_padding):
            continue
        arguments: dict[str, Any] = {"batch_size": batch_size, **container}
        if case.prompt == PROMPT and batch_size == 3:
            arguments |= {"prompt": None, "prompt_name": "query"}
        for place, ours in enumerate(run(model, case, texts_for(case), **arguments)):
            same_bits = batch_size == RECORDED_BATCH_SIZE and is_alike
            comparison.compare(case, place, ours, same_bits=same_bits)
    comparison.check()
    return comparison.arrays


def _has_bits_of(model: SentenceTransformer, recorded: Mapping[str, Array]) -> bool:
    """Whether this processor computes what was recorded bit by bit, as those of the same kind do."""
    case = Case()
    (ours,) = run(model, case, texts_for(case), batch_size=RECORDED_BATCH_SIZE)
    return np.array_equal(ours, recorded[f"{case}#0"])
