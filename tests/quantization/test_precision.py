"""Quantisation: steps that saturate, bits that are packed row by row, ranges that mean something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from sentence_embedder.quantization import precision as precision_module
from sentence_embedder.quantization.precision import PRECISIONS, Precision, quantize_embeddings, quantize_matrices

matrices = arrays(
    np.float32, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.floats(-9, 9, width=32)
)
tall_matrices = matrices.filter(lambda matrix: len(matrix) > 1)


@settings(max_examples=60)
@given(matrix=matrices)
def test_bits_are_packed_row_by_row(matrix: np.ndarray[Any, Any]) -> None:
    """Each row is packed for itself, its last byte filled with zeros, whatever the number of dimensions."""
    rows = []
    for row in matrix:
        bits = "".join("1" if value > 0 else "0" for value in row)
        padded = bits.ljust(-(-len(bits) // 8) * 8, "0")
        rows.append([int(padded[start : start + 8], 2) for start in range(0, len(padded), 8)])

    unsigned, signed = quantize_embeddings(matrix, "ubinary"), quantize_embeddings(matrix, "binary")

    assert unsigned.dtype == np.uint8
    assert unsigned.tolist() == rows
    assert signed.dtype == np.int8
    assert signed.tolist() == [[byte - 128 for byte in row] for row in rows]


@settings(max_examples=60)
@given(matrix=tall_matrices)
def test_a_value_is_its_step_to_within_one(matrix: np.ndarray[Any, Any]) -> None:
    """A value lies in its step of 1/255 of its dimension's range, and int8 is uint8 less 128."""
    steps = (matrix.max(0) - matrix.min(0)).astype(np.float64) / 255

    unsigned, signed = quantize_embeddings(matrix, "uint8"), quantize_embeddings(matrix, "int8")

    restored = matrix.min(0) + unsigned * steps
    assert (np.abs(restored - matrix) <= steps + 1e-5).all()
    assert (signed.astype(int) == unsigned.astype(int) - 128).all()


@settings(max_examples=60)
@given(matrix=tall_matrices, precision=st.sampled_from(["int8", "uint8", "binary", "ubinary"]))
def test_blocks_make_no_difference(matrix: np.ndarray[Any, Any], precision: Precision) -> None:
    """Embeddings that are quantised block by block are those that are quantised at once; of a number that is not
    finite the row is told, in whichever block it is.
    """
    at_once = quantize_embeddings(matrix, precision)
    matrix_with_nan = np.vstack([matrix, np.full_like(matrix[:1], np.nan)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision_module, "_BLOCK", 30)

        assert np.array_equal(quantize_embeddings(matrix, precision), at_once)
        with pytest.raises(ValueError, match=f"finite numbers, found nan in row {len(matrix)}, dimension 0"):
            quantize_embeddings(matrix_with_nan, precision)


@pytest.mark.parametrize(("precision", "lowest", "highest"), [("uint8", 0, 255), ("int8", -128, 127)])
def test_what_lies_outside_the_ranges_is_at_their_ends(precision: Precision, lowest: int, highest: int) -> None:
    """Values outside the ranges saturate; they do not wrap round."""
    ranges = np.array([[-1.0, 0.0], [1.0, 1.0]])

    quantized = quantize_embeddings(np.array([[-5.0, 9.0], [7.0, -1e9]]), precision, ranges=ranges)

    assert quantized.tolist() == [[lowest, highest], [highest, lowest]]


def test_one_embedding_with_ranges() -> None:
    """A single embedding, also as a vector, can be quantised where the ranges are known."""
    ranges = np.array([[0.0, 0.0], [255.0, 510.0]])

    assert quantize_embeddings(np.array([3.5, 3.5]), "uint8", ranges=ranges).tolist() == [3, 1]


@pytest.mark.parametrize("precision", ["int8", "uint8"])
@pytest.mark.parametrize("single", [np.ones(4), np.ones((1, 4)), torch.ones(4), [np.ones(4)]], ids=str)
def test_one_embedding_without_ranges(precision: Precision, single: Any) -> None:
    """Without ranges it is an error that names the remedy."""
    with pytest.raises(ValueError, match=r"model.calibrate.* ranges="):
        quantize_embeddings(single, precision)


def test_ranges_come_from_the_calibration() -> None:
    """Ranges can be read off other embeddings."""
    calibration = np.array([[0.0, -1.0], [1.0, 1.0]])
    values = np.array([[0.5, 0.5]])

    expected = quantize_embeddings(values, "int8", ranges=np.array([[0.0, -1.0], [1.0, 1.0]]))

    assert (quantize_embeddings(values, "int8", calibration_embeddings=calibration) == expected).all()
    tensor = torch.from_numpy(calibration)
    assert (quantize_embeddings(values, "int8", calibration_embeddings=tensor) == expected).all()


def test_few_embeddings_make_unsteady_ranges(caplog: pytest.LogCaptureFixture) -> None:
    """Ranges of fewer than 100 embeddings are worth a log line, of 100 none."""
    rows = np.random.default_rng(0).standard_normal((100, 3))

    quantize_embeddings(rows, "int8")
    assert not caplog.records
    quantize_embeddings(rows[:99], "int8")

    assert "int8 ranges are read off 99 embeddings only" in caplog.text


def test_a_constant_dimension() -> None:
    """A dimension without a range is the lowest step, and divides by no zero."""
    assert quantize_embeddings(np.array([[2.0, 0.0], [2.0, 1.0]]), "uint8")[:, 0].tolist() == [0, 0]


@pytest.mark.parametrize(
    "rows",
    [
        torch.tensor([[0.5, -1.0], [1.0, 2.0]]),
        torch.tensor([[0.5, -1.0], [1.0, 2.0]], dtype=torch.bfloat16),
        [torch.tensor([0.5, -1.0]), torch.tensor([1.0, 2.0])],
        [np.array([0.5, -1.0]), np.array([1.0, 2.0])],
        [[0.5, -1.0], [1.0, 2.0]],
    ],
    ids=["tensor", "bfloat16", "tensors", "arrays", "lists"],
)
def test_embeddings_in_any_container(rows: Any) -> None:
    """Embeddings come as a tensor, an array, or a list of either; float32 is what they are as float32."""
    array = np.array([[0.5, -1.0], [1.0, 2.0]], dtype=np.float32)

    for precision in PRECISIONS:
        ours = quantize_embeddings(rows, precision, ranges=np.array([[-2.1, -2.1], [3.3, 3.3]]))
        expected = quantize_embeddings(array, precision, ranges=np.array([[-2.1, -2.1], [3.3, 3.3]]))
        assert ours.dtype == expected.dtype
        assert (ours == expected).all()


def test_no_embeddings() -> None:
    """No embeddings are quantised to none, in the format that was asked for."""
    none = np.zeros((0, 12), dtype=np.float32)

    assert quantize_embeddings(none, "int8").shape == (0, 12)
    assert quantize_embeddings(none, "binary").shape == (0, 2)
    assert quantize_matrices([], "int8") == []


@pytest.mark.parametrize(
    ("values", "precision", "arguments", "message"),
    [
        (np.ones((2, 2)), "int4", {}, "precision: expected one of .* found 'int4'"),
        (np.ones((2, 2), np.int8), "binary", {}, "expected floats, found int8"),
        (np.ones((2, 3)), "int8", {"ranges": np.ones((2, 2))}, r"shape \(2, 3\), found \(2, 2\)"),
        (np.array([[1.0, 2.0], [np.nan, 1.0]]), "int8", {}, "found nan in row 1, dimension 0"),
        (np.array([[np.inf, 2.0]]), "binary", {}, "in row 0"),
        (np.ones((2, 2)), "int8", {"ranges": np.array([[0, 0], [1, np.nan]])}, "ranges: .* in dimension=1"),
        (np.ones((2, 2)), "uint8", {"calibration_embeddings": np.full((3, 2), np.inf)}, "in dimension=0"),
    ],
)
def test_errors(values: Any, precision: Any, arguments: Any, message: str) -> None:
    """What cannot be quantised is named."""
    with pytest.raises(ValueError, match=message):
        quantize_embeddings(values, precision, **arguments)


def test_matrices_share_their_ranges() -> None:
    """Matrices of different heights are quantised as if they were one, and stay apart."""
    rows = np.random.default_rng(1).standard_normal((6, 5)).astype(np.float32)
    joint = quantize_embeddings(rows, "uint8")

    parts = quantize_matrices([torch.from_numpy(rows[:1]), rows[1:4], rows[4:]], "uint8")

    assert [len(part) for part in parts] == [1, 3, 2]
    assert (np.concatenate(parts) == joint).all()
