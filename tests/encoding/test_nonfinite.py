"""Embeddings that are not finite: found, computed again, and told."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sentence_embedder import SentenceTransformer
from sentence_embedder.encoding.nonfinite import NonFiniteError, NonFiniteRows
from sentence_embedder.features import Features
from sentence_embedder.models import Dense, Normalize

TEXTS = ["the cat sat", "a red dog", "hello world", "a dog", "the red cat", "a red dog"]
POISONED = [1, 4, 5]


@pytest.fixture
def poisoned(model: SentenceTransformer) -> SentenceTransformer:
    """A model that makes NaN of texts with the word "red"."""
    weights = model[0].auto_model.get_input_embeddings().weight
    with torch.no_grad():
        weights[model.tokenizer.convert_tokens_to_ids("red")] = float("inf")
    return model


class OfCrowds(nn.Module):
    """Makes NaN of a text with many words if others are beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, features: Features) -> Features:
        """What was given, or NaN."""
        rows = features["sentence_embedding"]
        self.batches.append(len(rows))
        is_long = features["attention_mask"].sum(dim=1) > 4
        spoiled = torch.where(is_long[:, None], torch.full_like(rows, float("nan")), rows)
        return {**features, "sentence_embedding": spoiled if len(rows) > 1 else rows}


def test_rows_are_nan_and_named(poisoned: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    """A row of which the model makes no numbers is NaN as a whole, and a warning names it; others are as ever."""
    clean = [row for row in range(len(TEXTS)) if row not in POISONED]

    rows = poisoned.encode(TEXTS)

    assert np.flatnonzero(np.isnan(rows).all(axis=1)).tolist() == POISONED
    np.testing.assert_allclose(rows[clean], poisoned.encode([TEXTS[row] for row in clean]), atol=1e-6)
    assert "rows 1, 4, 5: the model makes no finite numbers" in caplog.text


@pytest.mark.parametrize("container", [{"convert_to_tensor": True}, {"convert_to_numpy": False}], ids=str)
def test_in_every_container(poisoned: SentenceTransformer, container: dict[str, bool]) -> None:
    """Tensors and lists have the same rows."""
    rows = poisoned.encode(TEXTS, **container)

    assert [row for row in range(len(TEXTS)) if torch.isnan(rows[row]).all()] == POISONED


def test_an_error_has_all_that_was_done(poisoned: SentenceTransformer) -> None:
    """With ``on_nonfinite="raise"`` the error names the rows and carries the others; it survives a pickle."""
    with pytest.raises(NonFiniteError, match=r"rows 1, 4, 5: not finite, even computed alone") as caught:
        poisoned.encode(TEXTS, on_nonfinite="raise")

    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # noqa: S301
        assert error.rows.tolist() == POISONED
        assert np.flatnonzero(np.isfinite(error.embeddings).all(axis=1)).tolist() == [0, 2, 3]


def test_a_stream(poisoned: SentenceTransformer) -> None:
    """It counts rows from its beginning; its error has those of an array."""
    chunks = poisoned.encode_iter(TEXTS[2:], chunk_size=2, on_nonfinite="raise")

    assert np.isfinite(next(chunks)).all()
    with pytest.raises(NonFiniteError, match=r"^rows 2, 3: not finite") as caught:
        next(chunks)
    assert caught.value.embeddings.shape == (2, 32)


def test_a_lone_text(poisoned: SentenceTransformer) -> None:
    """It is row 0."""
    with pytest.raises(NonFiniteError, match=r"^row 0: not finite"):
        poisoned.encode("red", on_nonfinite="raise")
    assert np.isnan(poisoned.encode("red")).all()


@pytest.mark.parametrize("precision", ["int8", "ubinary"])
def test_few_bits_have_no_nan(poisoned: SentenceTransformer, precision: Any) -> None:
    """What cannot be marked is an error, which has the embeddings before they lose their digits."""
    texts = [*TEXTS, TEXTS[0]]

    with pytest.raises(NonFiniteError, match=f"precision='float32', unlike {precision}, returns them") as caught:
        poisoned.encode(texts, precision=precision)

    assert caught.value.rows.tolist() == POISONED
    np.testing.assert_array_equal(caught.value.embeddings, poisoned.encode(texts))
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


def test_an_array_of_the_callers(poisoned: SentenceTransformer) -> None:
    """What is done lies in ``out``, whatever is raised."""
    out = np.zeros((len(TEXTS), 32), dtype=np.float32)

    with pytest.raises(NonFiniteError):
        poisoned.encode(TEXTS, out=out, on_nonfinite="raise")

    assert np.flatnonzero(np.isnan(out).any(axis=1)).tolist() == POISONED
    assert (out[[0, 2, 3]] != 0).all()


def test_what_only_a_batch_spoils_is_computed_again(
    model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    """A row that is finite alone comes back as it is alone; no others are computed again; nothing is logged."""
    texts = ["a dog", "the cat sat on the mat", "hello", "where is the small kitten"]
    expected = model.encode(texts, prompt="")
    of_crowds = OfCrowds()
    model.add_module("of_crowds", of_crowds)

    rows = model.encode(texts, on_nonfinite="raise", prompt="")

    np.testing.assert_allclose(rows, expected, atol=1e-6)
    assert of_crowds.batches == [4, 1, 1]
    assert not caplog.records


class OfNothing(OfCrowds):
    """Makes NaN of all texts but some, which it spoils in company only."""

    def forward(self, features: Features) -> Features:
        """NaN, or what was given."""
        rows = features["sentence_embedding"]
        self.batches.append(len(rows))
        is_short = features["attention_mask"].sum(dim=1) < 4
        is_sound = is_short[:, None] & torch.tensor(len(rows) == 1)
        return {**features, "sentence_embedding": torch.where(is_sound, rows, torch.nan)}


@pytest.mark.parametrize(("place", "tried"), [(None, 64), (3, 200), (130, 64)])
def test_a_model_that_makes_nothing_else(
    place: int | None, tried: int, model: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    """If no row is finite, and none of many comes right alone, the others are not computed again; it is said so."""
    texts = [f"the cat sat on mat {number}" for number in range(200)]
    if place is not None:
        texts[place] = "cat"
    of_nothing = OfNothing()
    model.add_module("of_nothing", of_nothing)

    rows = model.encode(texts, prompt="")

    assert of_nothing.batches[of_nothing.batches.index(1) :] == [1] * tried
    assert np.flatnonzero(np.isfinite(rows).all(axis=1)).tolist() == ([place] if place == 3 else [])
    assert ("which was tried with 64" in caplog.text) is (tried == 64)


class OfThreeKinds(OfCrowds):
    """Makes numbers of three tokens, of four if they are alone, and NaN of all else."""

    def forward(self, features: Features) -> Features:
        """NaN, or what was given."""
        rows, tokens = features["sentence_embedding"], features["attention_mask"].sum(dim=1)
        is_sound = (tokens == 3) | ((tokens == 4) & (len(rows) == 1))
        return {**features, "sentence_embedding": torch.where(is_sound[:, None], rows, torch.nan)}


def test_many_that_are_spoiled_beside_one_that_is_not(model: SentenceTransformer) -> None:
    """As long as any row is finite, all others are computed again, however many come to nothing."""
    texts = ["cat", *(f"the cat sat on mat {number}" for number in range(150)), "the dog"]
    model.add_module("of_three_kinds", OfThreeKinds())

    rows = model.encode(texts, prompt="")

    assert np.flatnonzero(np.isfinite(rows).all(axis=1)).tolist() == [0, 151]


@pytest.mark.parametrize("precision", ["float32", "binary"])
def test_rows_of_a_stream(precision: Any, poisoned: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    """A stream counts from its beginning."""
    stream = poisoned.encode_iter(TEXTS, chunk_size=3, precision=precision)
    if precision == "float32":
        assert np.flatnonzero(np.isnan(np.concatenate([*stream])).all(axis=1)).tolist() == POISONED
        assert "row 1: the model makes no finite numbers" in caplog.text
        assert "rows 4, 5: the model makes no finite numbers" in caplog.text
        return
    stream = poisoned.encode_iter(TEXTS[2:], chunk_size=1, precision=precision)
    assert [len(next(stream)) for _ in range(2)] == [1, 1]
    with pytest.raises(NonFiniteError, match="row 2") as raised:
        next(stream)
    assert raised.value.rows.tolist() == [2]


def test_halves_that_overflow_are_computed_in_float32(tiny_folders: dict[str, Path]) -> None:
    """Where float16 overflows, the rows are those of float32; the model's own weights stay as they are."""
    parts = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    dense = Dense(32, 32, bias=False, activation_function=nn.Identity())
    with torch.no_grad():
        dense.linear.weight.mul_(3e5)
    whole = SentenceTransformer(modules=[*parts, dense, Normalize()], device="cpu")
    expected = whole.encode(TEXTS)
    half = whole.half()

    rows = half.encode(TEXTS, on_nonfinite="raise")

    np.testing.assert_allclose(rows, expected, atol=2e-2)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}


def test_token_embeddings(poisoned: SentenceTransformer) -> None:
    """Of a text whose tokens are not finite, all are NaN; the others are as they are alone."""
    matrices = poisoned.encode(TEXTS, output_value="token_embeddings")

    assert [row for row, matrix in enumerate(matrices) if torch.isnan(matrix).all()] == POISONED
    torch.testing.assert_close(matrices[3], poisoned.encode(TEXTS[3], output_value="token_embeddings"))
    with pytest.raises(NonFiniteError, match="rows 1, 4, 5"):
        poisoned.encode(TEXTS, output_value="token_embeddings", on_nonfinite="raise")


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_token_embeddings_in_other_precisions(poisoned: SentenceTransformer, precision: str) -> None:
    """There is no NaN among integers: the error has the embeddings of all tokens in float32."""
    with pytest.raises(NonFiniteError, match=f"precision='float32', unlike {precision}, returns them") as caught:
        poisoned.encode(TEXTS, output_value="token_embeddings", precision=precision)

    assert caught.value.rows.tolist() == POISONED
    torch.testing.assert_close(
        caught.value.embeddings[3], poisoned.encode(TEXTS[3], output_value="token_embeddings")
    )


def test_all_features(poisoned: SentenceTransformer) -> None:
    """Among all features of a text, the sentence embedding is looked at."""
    features = poisoned.encode(TEXTS, output_value=None)

    assert [row for row, each in enumerate(features) if each["sentence_embedding"].isnan().all()] == POISONED
    with pytest.raises(NonFiniteError, match="rows 1, 4, 5"):
        poisoned.encode(TEXTS, output_value=None, on_nonfinite="raise")


def test_by_processes(poisoned: SentenceTransformer) -> None:
    """Rows are those of the call, whichever process has computed them."""
    with poisoned.start_multi_process_pool(["cpu"]) as pool, pytest.raises(NonFiniteError) as caught:
        poisoned.encode(TEXTS, pool=pool, chunk_size=2, on_nonfinite="raise")

    assert caught.value.rows.tolist() == POISONED
    np.testing.assert_allclose(caught.value.embeddings[3], poisoned.encode(TEXTS[3]), atol=1e-6)


def test_there_is_no_other_way(model: SentenceTransformer) -> None:
    """A value that does not exist is an error before any work."""
    with pytest.raises(ValueError, match=r"on_nonfinite: expected one of .*, found 'skip'"):
        model.encode("a", on_nonfinite="skip")


def test_large_numbers_are_finite() -> None:
    """Rows whose sum overflows are no less finite; and what is finite later is taken back."""
    rows = NonFiniteRows()
    large = torch.full((2, 4), 3e38)

    rows.look_at(np.array([5, 6]), large)
    assert rows.places.tolist() == []
    rows.look_at(np.array([5, 6]), torch.tensor([[1.0], [float("nan")]]))
    assert rows.places.tolist() == [6]
    rows.look_at(np.array([6]), torch.tensor([[1.0]]))
    assert rows.places.tolist() == []
