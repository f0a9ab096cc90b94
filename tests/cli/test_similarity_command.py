"""The command ``similarity``."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from sentence_embedder import SentenceTransformer
from tests.cli.conftest import Run


def test_the_matrix_is_that_of_the_model(run: Run, bert: Path, model: SentenceTransformer) -> None:
    """Numbers are those of ``similarity``, a line a text; with ``--json`` they have all their digits."""
    texts = ["the cat", "the dog", "two\twords"]
    embeddings = model.encode(texts)
    expected = model.similarity(embeddings, embeddings)

    plain = run("similarity", *texts, "--model", bert)
    found = json.loads(run("similarity", *texts, "--model", bert, "--json").out)

    assert (found["similarity"], found["texts"]) == ("cosine", texts)
    np.testing.assert_allclose(found["matrix"], expected, atol=1e-6)
    lines = [line.split("\t") for line in plain.out.splitlines()]
    assert [line[-1] for line in lines] == ["the cat", "the dog", "two words"]
    np.testing.assert_allclose([[float(value) for value in line[:-1]] for line in lines], expected, atol=1e-4)


def test_one_text_is_like_nothing(run: Run) -> None:
    """A single text is wrong usage."""
    done = run("similarity", "alone")

    assert done.code == 2
    assert "expected two texts or more" in done.err
