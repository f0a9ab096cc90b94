"""Statistics, by scipy and scikit-learn (extra ``eval``)."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from numpy.typing import NDArray


def pearson(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Pearson's correlation of two series (n,)."""
    return float(_module("scipy.stats").pearsonr(first, second)[0])


def spearman(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Spearman's rank correlation of two series (n,)."""
    return float(_module("scipy.stats").spearmanr(first, second)[0])


def average_precision(labels: NDArray[Any], scores: NDArray[Any]) -> float:
    """The area under the curve of precision over recall, for labels 0 and 1 (n,) and scores (n,)."""
    return float(_module("sklearn.metrics").average_precision_score(labels, scores))


def matthews_correlation(labels: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Matthews' correlation of two series of 0 and 1 (n,); 0 if one of them is all alike."""
    if min(len(set(labels.tolist())), len(set(predicted.tolist()))) < 2:
        return 0.0
    return float(_module("sklearn.metrics").matthews_corrcoef(labels, predicted))


def normalized_gain(labels: NDArray[Any], scores: NDArray[Any], k: int) -> float:
    """The normalised discounted cumulative gain of the first k, for labels (n,) and scores (n,)."""
    return float(_module("sklearn.metrics").ndcg_score([labels], [scores], k=k))


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        package = {"scipy": "scipy", "sklearn": "scikit-learn"}[name.partition(".")[0]]
        raise ImportError(
            f"evaluation: expected the package {package}: pip install 'sentence-embedder[eval]'"
        ) from error
