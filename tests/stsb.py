"""The STS benchmark: pairs of sentences and how alike people found them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr


def read_stsb(path: Path) -> tuple[list[str], list[str], list[float]]:
    """First sentences, second sentences, and scores from 0 to 5; the file has no header."""
    with path.open(encoding="utf-8", newline="") as file:
        firsts, seconds, scores = zip(*csv.reader(file), strict=True)
    return list(firsts), list(seconds), [float(score) for score in scores]


def spearman(firsts: np.ndarray[Any, Any], seconds: np.ndarray[Any, Any], scores: Sequence[float]) -> float:
    """Spearman's rank correlation, times 100, between cosine similarity and score."""
    cosines = (firsts * seconds).sum(1) / np.linalg.norm(firsts, axis=1) / np.linalg.norm(seconds, axis=1)
    return float(spearmanr(cosines, scores).statistic * 100)
