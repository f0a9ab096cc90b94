"""Statistics, by scipy (extra ``eval``)."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


def pearson(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's correlation of two series (n,)."""
    return float(_stats().pearsonr(first, second)[0])


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's rank correlation of two series (n,)."""
    return float(_stats().spearmanr(first, second)[0])


def _stats() -> Any:
    try:
        from scipy import stats
    except ImportError as error:
        raise ImportError(
            "evaluation: expected the package scipy: pip install 'sentence-embedder[eval]'"
        ) from error
    return stats
