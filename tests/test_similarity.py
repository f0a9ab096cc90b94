"""Similarities, each against a loop over pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.nn import functional

from sentence_embedder import similarity
from sentence_embedder.similarity import (
    SimilarityFunction,
    cos_sim,
    dot_score,
    normalize_embeddings,
    pairwise_angle_sim,
    pairwise_cos_sim,
    pairwise_euclidean_sim,
    truncate_embeddings,
)

Array = np.ndarray[Any, Any]


def _unit(vector: Array) -> Array:
    return np.asarray(vector / max(np.linalg.norm(vector), 1e-12))


DEFINITIONS: dict[str, Callable[[Array, Array], float]] = {
    "cos_sim": lambda a, b: float(_unit(a) @ _unit(b)),
    "dot_score": lambda a, b: float(a @ b),
    "euclidean_sim": lambda a, b: -float(np.sqrt(((a - b) ** 2).sum())),
    "manhattan_sim": lambda a, b: -float(np.abs(a - b).sum()),
}


def matrices(rows: int) -> st.SearchStrategy[Array]:
    """Matrices of so many rows and four columns."""
    return arrays(np.float64, (rows, 4), elements=st.floats(-5, 5, width=32))


@pytest.mark.parametrize("name", DEFINITIONS)
@settings(max_examples=40)
@given(a=matrices(3), b=matrices(2))
def test_every_pair(name: str, a: Array, b: Array) -> None:
    """Entry i, j compares row i of one with row j of the other."""
    expected = [[DEFINITIONS[name](first, second) for second in b] for first in a]

    np.testing.assert_allclose(getattr(similarity, name)(a, b), expected, atol=1e-5)


@pytest.mark.parametrize("name", DEFINITIONS)
@settings(max_examples=40)
@given(a=matrices(3), b=matrices(3))
def test_row_by_row(name: str, a: Array, b: Array) -> None:
    """The pairwise form compares row i of one with row i of the other, also for lone vectors."""
    expected = [DEFINITIONS[name](first, second) for first, second in zip(a, b, strict=True)]
    pairwise = getattr(similarity, f"pairwise_{name}")

    np.testing.assert_allclose(pairwise(a, b), expected, atol=1e-5)
    np.testing.assert_allclose(pairwise(a[0], b[0]), expected[0], atol=1e-5)


@settings(max_examples=40)
@given(width=st.integers(1, 7), seed=st.integers(0, 999))
def test_angles(width: int, seed: int) -> None:
    """The angle similarity is that of complex vectors, whose halves are real and imaginary parts."""
    rows = np.random.default_rng(seed).standard_normal((2, 3, width + width % 2))
    rows[:, :, width:] = 0  # an odd width is filled with a zero
    expected = []
    for x, y in zip(*rows, strict=True):
        z, w = (half[: len(half) // 2] + 1j * half[len(half) // 2 :] for half in (x, y))
        product = (z * w.conj()).sum() / (np.linalg.norm(z) * np.linalg.norm(w))
        expected.append(abs(product.real + product.imag))

    ours = pairwise_angle_sim(rows[0][:, :width], rows[1][:, :width])

    np.testing.assert_allclose(ours, expected, atol=1e-6)


@pytest.mark.parametrize(
    "given_as",
    [
        lambda rows: rows,
        lambda rows: rows.tolist(),
        lambda rows: list(rows),
        lambda rows: torch.from_numpy(rows),
        lambda rows: list(torch.from_numpy(rows)),
        lambda rows: np.asfortranarray(rows),
        lambda rows: np.broadcast_to(rows, rows.shape),
    ],
    ids=["array", "lists", "arrays", "tensor", "tensors", "by columns", "read-only"],
)
def test_containers(given_as: Any) -> None:
    """Embeddings come as a tensor, an array, or a list of either."""
    rows = np.array([[1.0, 2.0], [3.0, -4.0]], dtype=np.float32)

    np.testing.assert_allclose(dot_score(given_as(rows), rows), rows @ rows.T)


@pytest.mark.parametrize(
    "rows",
    [
        [[1.5, 2], [3, 4]],
        [[1, 2.5]],
        [(0, 2.5), [3, 4.5]],
        [[1.5, np.float32(2)]],
        [[1.5, torch.tensor(2.0, dtype=torch.bfloat16)]],
        [[[1.5, 2.0]]],
        [[1, 2]],
        [[np.float64(1.5)]],
        [np.ones(2, dtype=np.float16), np.ones(2, dtype=np.float16)],
        [[True, False]],
        [[]],
        [1.5, torch.tensor(2.0)],
    ],
    ids=str,
)
def test_lists_are_read_as_torch_reads_them(rows: list[Any]) -> None:
    """A list becomes what ``torch.tensor`` makes of it, by a shorter way where there is one."""
    expected = torch.tensor(np.array(rows) if isinstance(rows[0], np.ndarray) else rows)

    found = similarity.as_tensor(rows)

    assert (found.dtype, found.shape, found.tolist()) == (expected.dtype, expected.shape, expected.tolist())


def test_lists_of_numbers_lie_where_torch_puts_them() -> None:
    """Lists of floats are read onto the device that is set, as those of others are, and in its format."""
    with torch.device("meta"):
        assert similarity.as_tensor([[1.5, 2.0]]).device == torch.tensor([[1.5, 2.0]]).device
    assert similarity.as_tensor([[1.5, 2.0]]).device == torch.device("cpu")


def test_arrays_of_two_formats() -> None:
    """A list of arrays of two formats has the one that torch has for both."""
    rows = [np.ones(2, dtype=np.int64), np.ones(2, dtype=np.float32)]

    assert cos_sim(rows, rows).dtype == torch.float32


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, "2"]],
        [[1.0, None]],
        [[1.0, 2.0], [3.0]],
        [np.ones(2), np.ones(3)],
        pd.DataFrame([[1.0, 2.0], [3.0, 4.0]]),
        {0: [1.0, 2.0], 1: [3.0, 4.0]},
    ],
    ids=lambda rows: type(rows).__name__,
)
def test_what_is_no_matrix_is_refused(rows: Any) -> None:
    """Strings are not read as numbers, nor tables as their columns, and rows must be of one length."""
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        similarity.as_tensor(rows)


def test_one_embedding_is_a_row() -> None:
    """A vector is a matrix of one row, and an empty list one of none."""
    assert cos_sim([1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]]).tolist() == [[1.0, 0.0]]
    assert similarity.as_matrix([]).shape == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int64])
def test_narrow_formats_are_computed_in_float32(dtype: torch.dtype) -> None:
    """Halves and integers give float32, with the digits of float32."""
    a, b = torch.tensor([[100, 3]], dtype=dtype), torch.tensor([[100, 5]], dtype=dtype)

    score = dot_score(a, b)

    assert score.dtype == torch.float32
    assert score.tolist() == [[10015.0]]


@pytest.mark.parametrize("function", [cos_sim, dot_score, pairwise_cos_sim, pairwise_angle_sim])
def test_embeddings_of_different_widths(function: Any) -> None:
    """Embeddings of different widths cannot be compared: the error shows their shapes."""
    with pytest.raises(ValueError, match=r"one width, found shapes \(2, 3\) and \(2, 4\)"):
        function(np.ones((2, 3)), np.ones((2, 4)))


def test_mixed_formats() -> None:
    """Single and double precision are compared in double precision."""
    assert dot_score(np.ones((1, 2)), np.ones((1, 2), np.float32)).dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_scaled_as_torch_does(dtype: torch.dtype) -> None:
    """Embeddings of length 1 are those of torch, bit for bit, with their gradients."""
    rows = torch.randn(7, 33, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()

    found, expected = normalize_embeddings(rows), functional.normalize(rows, dim=-1)

    assert torch.equal(found, expected)
    ours, theirs = (torch.autograd.grad(scaled[:, 0].sum(), rows)[0] for scaled in (found, expected))
    assert torch.equal(ours, theirs)


def test_zero_vectors_are_like_nothing() -> None:
    """The cosine with a zero vector is 0, not NaN."""
    assert cos_sim([[0.0, 0.0]], [[1.0, 1.0]]).tolist() == [[0.0]]
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        assert normalize_embeddings(torch.zeros(2, 3, dtype=dtype)).eq(0).all()
    half = torch.tensor([[2.0**-24, 0], [0, 0]], dtype=torch.float16)  # the shortest that is not zero
    assert normalize_embeddings(half).tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("pairwise", [pairwise_euclidean_sim, pairwise_cos_sim])
def test_gradients_at_equal_vectors(pairwise: Any) -> None:
    """The gradient is finite where two vectors are equal."""
    a = torch.ones(1, 3, requires_grad=True)

    pairwise(a, torch.ones(1, 3)).sum().backward()

    assert a.grad is not None
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("rows", [np.ones((2, 3)), torch.ones(2, 3), np.ones(3)], ids=["array", "tensor", "vector"])
def test_truncation(rows: Any) -> None:
    """The first values are kept, of a matrix or a vector; None keeps all."""
    assert truncate_embeddings(rows, 2).shape == (*rows.shape[:-1], 2)
    assert truncate_embeddings(rows, None) is rows


def test_names_of_similarities() -> None:
    """Each name has its two functions, and an older one is an alias."""
    assert SimilarityFunction.possible_values() == ["cosine", "dot", "euclidean", "manhattan"]
    assert SimilarityFunction.to_similarity_fn("cosine") is cos_sim
    assert SimilarityFunction.to_similarity_pairwise_fn(SimilarityFunction.EUCLIDEAN) is pairwise_euclidean_sim
    assert SimilarityFunction["DOT"] is SimilarityFunction["DOT_PRODUCT"]
    with pytest.raises(ValueError, match="found 'jaccard'"):
        SimilarityFunction.to_similarity_fn("jaccard")
