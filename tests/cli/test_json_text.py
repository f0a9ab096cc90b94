"""JSON as any program reads it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentence_embedder import SentenceTransformer
from sentence_embedder.cli.json_text import json_text
from tests.cli.conftest import Run

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
)


def _strictly(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"no JSON: {constant}")

    return json.loads(text, parse_constant=refuse)


def _with_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_none(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_none(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@given(_VALUES)
def test_what_json_has_comes_back(value: Any) -> None:
    """Everything comes back from a reader that knows JSON alone, and None for a number that is not finite."""
    assert _strictly(json_text(value)) == _with_none(value)


def test_what_has_another_form() -> None:
    """What is made into a number is looked at, too; what has no form at all is an error."""
    halves = [np.float16("nan"), np.float16(0.5)]

    assert json_text({"of": halves}, default=float) == '{"of": [null, 0.5]}'
    with pytest.raises(TypeError):
        json_text([math.nan, object()])


def test_embeddings_that_are_not_finite(run: Run, model: SentenceTransformer, tmp_path: Path) -> None:
    """A model that makes NaN of everything leads to files and answers that programs can read."""
    folder, texts, out = tmp_path / "model", tmp_path / "texts.txt", tmp_path / "out.jsonl"
    with torch.no_grad():
        model[0].auto_model.embeddings.LayerNorm.weight.fill_(math.nan)
    model.save(str(folder))
    texts.write_text("the cat\n", encoding="utf-8")

    similarity = _strictly(run("similarity", "a", "b", "--model", folder, "--json").out)
    done = run("encode", texts, out, "--model", folder)

    assert similarity["matrix"] == [[None, None], [None, None]]
    assert done.code == 0, done.err
    assert set(_strictly(out.read_text(encoding="utf-8"))["embedding"]) == {None}
