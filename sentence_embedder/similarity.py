"""Similarity of embeddings: cosine, dot product, and distances negated so that more is always nearer.

Every function takes tensors, arrays or lists of either. Halves and integers are computed in float32:
a product rounded to half precision makes ties where there are none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum
from itertools import chain
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Embeddings: TypeAlias = "Tensor | np.ndarray[Any, Any] | Sequence[Any]"
"""Embeddings as users hold them: (texts, dim), or (dim,) for one."""

_Array = TypeVar("_Array", Tensor, np.ndarray[Any, Any])

_SHORTEST, _SHORTEST_HALF = 1e-12, 2.0**-24
"""What a length is at least, so that a zero vector is divided by something; in float16 the first would be 0."""


def as_tensor(embeddings: Embeddings) -> Tensor:
    """The embeddings as one tensor, without a copy where memory can be shared; its shape is kept."""
    if isinstance(embeddings, Tensor):
        return embeddings
    if isinstance(embeddings, np.ndarray):
        # torch warns of arrays that may not be written to; nothing here writes, but a view could outlive us.
        return torch.from_numpy(embeddings if embeddings.flags.writeable else embeddings.copy())
    stacked = _stacked(embeddings) if isinstance(embeddings, list) else None
    if stacked is not None:
        return stacked
    if embeddings and all(isinstance(row, (Tensor, np.ndarray)) for row in embeddings):
        return torch.stack([as_tensor(row) for row in embeddings])
    return torch.tensor(embeddings)


def _stacked(rows: list[Any]) -> Tensor | None:
    """Rows as one tensor by way of numpy, in a third of torch's time or less, where it makes the same of them."""
    kinds = set(map(type, rows))
    if kinds == {np.ndarray} and len({(row.dtype, row.shape) for row in rows}) == 1:
        return torch.from_numpy(np.array(rows))
    if kinds and kinds <= {list, tuple} and len(set(map(len, rows))) == 1:
        numbers = set(map(type, chain.from_iterable(rows)))
        if float in numbers and numbers <= {float, int}:
            floats = torch.from_numpy(np.array(rows, dtype=np.float64))
            return floats.to(torch.get_default_device(), torch.get_default_dtype())
    return None


def as_matrix(embeddings: Embeddings) -> Tensor:
    """The embeddings as a float32 or float64 tensor (texts, dim); one embedding is a row, an empty list none."""
    tensor = _as_float(embeddings)
    if tensor.ndim == 1:
        return tensor.unsqueeze(0) if tensor.numel() else tensor.reshape(0, 0)
    return tensor


def _as_float(embeddings: Embeddings) -> Tensor:
    tensor = as_tensor(embeddings)
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _comparable(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"expected embeddings of one width, found shapes {tuple(a.shape)} and {tuple(b.shape)}")
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


def _matrices(a: Embeddings, b: Embeddings) -> tuple[Tensor, Tensor]:
    return _comparable(as_matrix(a), as_matrix(b))


def _rows(a: Embeddings, b: Embeddings) -> tuple[Tensor, Tensor]:
    return _comparable(_as_float(a), _as_float(b))


def normalize_embeddings(embeddings: Tensor) -> Tensor:
    """The embeddings scaled to length 1 along their last dimension; a zero vector stays zero."""
    # Step by step: torch's own ``normalize`` takes as many again to get there, which a lone text waits for.
    lengths: Tensor = torch.linalg.vector_norm(embeddings, dim=-1, keepdim=True)
    return embeddings / lengths.clamp_min(_SHORTEST_HALF if embeddings.dtype == torch.float16 else _SHORTEST)


def truncate_embeddings(embeddings: _Array, truncate_dim: int | None) -> _Array:
    """The first ``truncate_dim`` values of each embedding, not normalised again; all of them for None."""
    return embeddings if truncate_dim is None else embeddings[..., :truncate_dim]


def cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine similarity of every pair.

    Args:
        a: Shape (n, dim) or (dim,).
        b: Shape (m, dim) or (dim,).

    Returns:
        Shape (n, m), −1 to 1.
    """
    first, second = _matrices(a, b)
    return normalize_embeddings(first) @ normalize_embeddings(second).T


def pytorch_cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """The older name of ``cos_sim``."""
    return cos_sim(a, b)


def dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot product of every pair: (n, dim) and (m, dim) → (n, m)."""
    first, second = _matrices(a, b)
    return first @ second.T


def euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Euclidean distance of every pair: (n, dim) and (m, dim) → (n, m)."""
    first, second = _matrices(a, b)
    return -torch.cdist(first, second, p=2.0)


def manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Manhattan distance of every pair: (n, dim) and (m, dim) → (n, m)."""
    first, second = _matrices(a, b)
    return -torch.cdist(first, second, p=1.0)


def pairwise_cos_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Cosine similarity of row i of one with row i of the other: (n, dim) twice → (n,)."""
    first, second = _rows(a, b)
    return (normalize_embeddings(first) * normalize_embeddings(second)).sum(dim=-1)


def pairwise_dot_score(a: Embeddings, b: Embeddings) -> Tensor:
    """Dot product of row i of one with row i of the other: (n, dim) twice → (n,)."""
    first, second = _rows(a, b)
    return (first * second).sum(dim=-1)


def pairwise_euclidean_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Euclidean distance of row i of one to row i of the other: (n, dim) twice → (n,)."""
    first, second = _rows(a, b)
    distance: Tensor = torch.linalg.vector_norm(first - second, ord=2, dim=-1)
    return -distance


def pairwise_manhattan_sim(a: Embeddings, b: Embeddings) -> Tensor:
    """Negative Manhattan distance of row i of one to row i of the other: (n, dim) twice → (n,)."""
    first, second = _rows(a, b)
    return (first - second).abs().sum(dim=-1).neg()


def pairwise_angle_sim(x: Embeddings, y: Embeddings) -> Tensor:
    """Angle similarity in complex space of row i of one with row i of the other: (n, dim) twice → (n,).

    The first half of a vector is the real part, the second the imaginary part; an odd vector is filled up
    with a zero. AnglE: Li and Li (2023), https://arxiv.org/abs/2309.12871.
    """
    first, second = (as_matrix(embeddings) for embeddings in _rows(x, y))
    fill = (0, first.shape[-1] % 2)
    real_x, imag_x = functional.pad(normalize_embeddings(first), fill).chunk(2, dim=-1)
    real_y, imag_y = functional.pad(normalize_embeddings(second), fill).chunk(2, dim=-1)
    real = (real_x * real_y + imag_x * imag_y).sum(dim=-1)
    imag = (imag_x * real_y - real_x * imag_y).sum(dim=-1)
    return (real + imag).abs()


Similarity = Callable[[Embeddings, Embeddings], Tensor]


class SimilarityFunction(Enum):
    """The similarities that a model can be said to be made for."""

    COSINE = "cosine"
    DOT_PRODUCT = "dot"
    DOT = "dot"  # noqa: PIE796 (the older name, an alias of DOT_PRODUCT)
    EUCLIDEAN = "euclidean"
    MANHATTAN = "manhattan"

    @staticmethod
    def possible_values() -> list[str]:
        """The names of all similarities."""
        return [function.value for function in SimilarityFunction]

    @staticmethod
    def to_similarity_fn(similarity_function: str | SimilarityFunction) -> Similarity:
        """The function that compares every pair: (n, dim), (m, dim) → (n, m)."""
        return _SIMILARITIES[SimilarityFunction.parse(similarity_function)][0]

    @staticmethod
    def to_similarity_pairwise_fn(similarity_function: str | SimilarityFunction) -> Similarity:
        """The function that compares row by row: (n, dim) twice → (n,)."""
        return _SIMILARITIES[SimilarityFunction.parse(similarity_function)][1]

    @classmethod
    def parse(cls, name: str | SimilarityFunction) -> SimilarityFunction:
        """The similarity of that name.

        Raises:
            ValueError: There is none.
        """
        try:
            return cls(name)
        except ValueError:
            expected = cls.possible_values()
            raise ValueError(f"similarity_fn_name: expected one of {expected}, found {name!r}") from None


_SIMILARITIES: dict[SimilarityFunction, tuple[Similarity, Similarity]] = {
    SimilarityFunction.COSINE: (cos_sim, pairwise_cos_sim),
    SimilarityFunction.DOT_PRODUCT: (dot_score, pairwise_dot_score),
    SimilarityFunction.EUCLIDEAN: (euclidean_sim, pairwise_euclidean_sim),
    SimilarityFunction.MANHATTAN: (manhattan_sim, pairwise_manhattan_sim),
}
