"""Rounds that alternate between engines, and what comes of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engines import Engine
from benchmarks.session import Session
from benchmarks.worker_process import WorkerError
from benchmarks.workloads import Workload

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Agreement:
    """How near embeddings are to those of the baseline.

    Attributes:
        difference: The largest difference of a value.
        cosine: The smallest cosine between two embeddings of one text.
    """

    difference: float
    cosine: float


@dataclass(frozen=True)
class Ratio:
    """Over the rounds: the median, the smallest and the largest."""

    median: float
    lowest: float
    highest: float


@dataclass
class Results:
    """What was measured, by the keys of engine and workload.

    Attributes:
        baseline: Key of the engine that the others are compared with.
        costs: One cost a round.
        agreements: Of the engines whose embeddings were compared.
        failures: Why an engine did not run.
    """

    baseline: str
    costs: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    agreements: dict[tuple[str, str], Agreement] = field(default_factory=dict)
    failures: dict[tuple[str, str], str] = field(default_factory=dict)

    def cost(self, engine: str, workload: str) -> float | None:
        """The median over the rounds; None if the engine did not run."""
        costs = self.costs.get((engine, workload))
        return median(costs) if costs else None

    def share(self, engine: str, workload: str, *, of: str | None = None) -> Ratio | None:
        """The costs of an engine, each divided by that of another engine in the same round.

        Args:
            engine: The engine.
            workload: The workload.
            of: The other engine; by default the baseline.

        Returns:
            The ratio, below 1 where the engine is the cheaper one; None if one of the two did not run.
        """
        ours = self.costs.get((engine, workload))
        theirs = self.costs.get((of or self.baseline, workload))
        if not ours or not theirs:
            return None
        ratios = [our / their for our, their in zip(ours, theirs, strict=True)]
        return Ratio(median(ratios), min(ratios), max(ratios))

    def speedup(self, engine: str, workload: str, *, over: str | None = None) -> Ratio | None:
        """How many times as fast as another engine, by default the baseline, it is: the inverse of ``share``."""
        if (of := over or self.baseline) == engine:
            return Ratio(1.0, 1.0, 1.0) if self.cost(engine, workload) else None
        return self.share(of, workload, of=engine)


def measure(
    workloads: Iterable[Workload],
    engines: Sequence[Engine],
    session: Session,
    *,
    rounds: int,
    before_round: Callable[[], None],
) -> Results:
    """Measure workloads one after the other, engines by turns.

    Args:
        workloads: The workloads.
        engines: The engines; the first is the baseline.
        session: Where they run.
        rounds: How many rounds count; one more comes before, to warm up.
        before_round: Called before each round that counts.
    """
    results = Results(baseline=engines[0].key)
    for workload in workloads:
        _measure(workload, engines, session, results, rounds=rounds, before_round=before_round)
    return results


def _measure(
    workload: Workload,
    engines: Sequence[Engine],
    session: Session,
    results: Results,
    *,
    rounds: int,
    before_round: Callable[[], None],
) -> None:
    running = [engine for engine in engines if workload.takes(engine)]
    for number in range(0 if workload.is_repeated else 1, rounds + 1 if workload.is_repeated else 2):
        logger.info("%s: %s", workload.key, f"round {number} of {rounds}" if number else "warming up")
        if number:
            before_round()
        for engine in tuple(running):
            place = engine.key, workload.key
            try:
                cost = workload.cost(engine, session)
            except WorkerError as error:
                logger.warning("%s: %s does not run: %s", workload.key, engine.key, error)
                results.failures[place] = str(error)
                results.costs.pop(place, None)
                running.remove(engine)
                continue
            if number:
                results.costs.setdefault(place, []).append(cost)
    _compare(workload, running, session, results)


def _compare(workload: Workload, engines: Sequence[Engine], session: Session, results: Results) -> None:
    """Compare what engines made last with what the baseline made."""
    if not engines or engines[0].key != results.baseline:
        return
    expected = workload.rows(engines[0], session)
    for engine in engines if expected is not None else ():
        rows = workload.rows(engine, session)
        if rows is not None and expected is not None:
            results.agreements[engine.key, workload.key] = agreement(rows, expected)


def agreement(rows: NDArray[Any], expected: NDArray[Any]) -> Agreement:
    """How near rows (texts, dim) are to those that are expected."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = np.einsum("ij,ij->i", rows, expected, dtype=np.float64) / lengths
    return Agreement(difference=float(np.abs(rows - expected).max()), cosine=float(cosines.min()))
