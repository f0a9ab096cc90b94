"""``deterministic=True``: an embedding is bit for bit the same whatever else is in the call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sentence_embedder import SentenceTransformer
from tests.tiny_models import WORDS

TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), min_size=1, max_size=12)


@pytest.fixture(scope="module", params=["bert", "mpnet", "roberta"])
def shared(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> SentenceTransformer:
    """Tiny models that no test changes."""
    return SentenceTransformer(str(tiny_folders[request.param]), device="cpu")


@pytest.mark.usefixtures("two_threads")
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS)
def test_alone_and_among_others(shared: SentenceTransformer, texts: list[str]) -> None:
    """Each row is that of its text alone, to the last bit."""
    rows = shared.encode(texts, prompt="", deterministic=True)

    alone = np.stack([shared.encode(text, prompt="", deterministic=True) for text in texts])

    assert rows.tobytes() == alone.tobytes()
    np.testing.assert_allclose(rows, shared.encode(texts, prompt=""), atol=1e-5)


@pytest.mark.usefixtures("two_threads")
def test_on_the_real_model(minilm: SentenceTransformer) -> None:
    """So it is on MiniLM: alone, in a small call, in a large one, in another order and another batch size."""
    texts = [f"{'A sentence about cats. ' * (number % 7)}And number {number}." for number in range(150)]
    rows = minilm.encode(texts, deterministic=True)

    backwards = minilm.encode(texts[::-1], deterministic=True, batch_size=7)[::-1]
    some = np.stack([minilm.encode(text, deterministic=True) for text in texts[::10]])

    assert rows.tobytes() == np.ascontiguousarray(backwards).tobytes()
    assert rows[::10].tobytes() == some.tobytes()


@pytest.mark.usefixtures("two_threads")
def test_module_by_module(tiny_folders: dict[str, Path]) -> None:
    """So it is without acceleration."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", acceleration=False)
    texts = ["the cat sat", "a dog", "the cat sat on the mat " * 3]

    rows = model.encode(texts, prompt="", deterministic=True)

    alone = np.stack([model.encode(text, prompt="", deterministic=True) for text in texts])
    assert rows.tobytes() == alone.tobytes()
