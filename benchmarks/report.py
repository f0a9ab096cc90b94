"""What people and programs read of the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.engines import Device, Engine, Precision
from benchmarks.measurement import Ratio, Results
from benchmarks.targets import Outcome, outcomes
from benchmarks.workloads import Encoding, Growth, PoolEncoding, Workload

_NONE = "–"


@dataclass(frozen=True)
class Limit:
    """How near an engine comes to what matrix products alone allow.

    Attributes:
        engine: Key of the engine.
        workload: Key of the workload.
        tokens_per_second: What the engine did.
        allowed: What it would do if it did nothing but the fastest matrix products.
    """

    engine: str
    workload: str
    tokens_per_second: float
    allowed: float

    @property
    def share(self) -> float:
        """1 if nothing but the products takes time."""
        return self.tokens_per_second / self.allowed


@dataclass(frozen=True)
class Report:
    """A run.

    Attributes:
        results: What was measured.
        engines: The engines, the baseline first.
        workloads: The workloads.
        device: Where it was measured.
        product_rates: Way of computing and precision → floating-point operations per second.
        flop_per_token: What the model of the sentences and paragraphs takes.
        settings: Machine, versions and options, for the JSON.
    """

    results: Results
    engines: Sequence[Engine]
    workloads: Sequence[Workload]
    device: Device
    product_rates: dict[tuple[str, Precision], float]
    flop_per_token: int
    settings: dict[str, Any]

    def text(self) -> str:
        """Tables, in Markdown."""
        small = [workload for workload in self.workloads if workload.model == "minilm"]
        others = [workload for workload in self.workloads if workload.model != "minilm"]
        compared = [
            workload for workload in self.workloads if isinstance(workload, Encoding | Growth | PoolEncoding)
        ]
        parts = [
            *(self._speeds(workloads) for workloads in (small, others) if workloads),
            self._agreements(compared) if compared else "",
            self._products(),
            self._limits(),
            self._targets(),
            self._failures(),
        ]
        return "\n\n".join(part for part in parts if part)

    def write_json(self, path: Path) -> None:
        """Write everything that was measured."""
        content = {
            **self.settings,
            "baseline": self.results.baseline,
            "engines": {engine.key: engine.title for engine in self.engines},
            "workloads": {workload.key: workload.facts() for workload in self.workloads},
            "figures": [self._figure(*place) for place in self.results.costs],
            "not_run": [
                {"engine": engine, "workload": workload, "reason": reason}
                for (engine, workload), reason in self.results.failures.items()
            ],
            "products": [
                {"way": way, "precision": precision, "gflop_per_second": rate / 1e9}
                for (way, precision), rate in self.product_rates.items()
            ],
            "flop_per_token": self.flop_per_token,
            "limits": [{**asdict(limit), "share": limit.share} for limit in self.limits()],
            "targets": [
                {
                    "figure": outcome.target.figure,
                    "bound": outcome.target.bound,
                    "is_floor": outcome.target.is_floor,
                    "reached": outcome.figure,
                    "is_met": outcome.is_met,
                }
                for outcome in self._outcomes()
            ],
        }
        path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def limits(self) -> list[Limit]:
        """Of this package's engines, in the workloads in which many texts go through MiniLM."""
        many = [each for each in self.workloads if isinstance(each, Encoding) and each.is_rate]
        found = []
        for engine in self.engines:
            rates = [rate for (_, precision), rate in self.product_rates.items() if precision == engine.precision]
            if engine.library.loader != "sentence_embedder" or not rates:
                continue
            allowed = max(rates) / self.flop_per_token
            for workload in many:
                cost = self.results.cost(engine.key, workload.key)
                if cost and workload.model == "minilm":
                    found.append(Limit(engine.key, workload.key, workload.tokens / cost, allowed))
        return found

    def _figure(self, engine: str, workload: str) -> dict[str, Any]:
        speedup = self.results.speedup(engine, workload)
        near = self.results.agreements.get((engine, workload))
        return {
            "engine": engine,
            "workload": workload,
            "costs": self.results.costs[engine, workload],
            "speedup": asdict(speedup) if speedup else None,
            "agreement": asdict(near) if near else None,
        }

    def _outcomes(self) -> list[Outcome]:
        return outcomes(self.results, self.device)

    # ── Tables ────────────────────────────────────────────────────────────────────────────────────────────

    def _speeds(self, workloads: Sequence[Workload]) -> str:
        rows = [
            [engine.title, *(self._speed(engine, workload) for workload in workloads)]
            for engine in self.engines
            if any((engine.key, workload.key) in self.results.costs for workload in workloads)
        ]
        return table(["engine", *(workload.title for workload in workloads)], rows)

    def _speed(self, engine: Engine, workload: Workload) -> str:
        cost = self.results.cost(engine.key, workload.key)
        if cost is None:
            return _NONE
        return f"{workload.shown(cost)}{_times(self.results.speedup(engine.key, workload.key))}"

    def _agreements(self, workloads: Sequence[Workload]) -> str:
        rows = []
        for engine in self.engines:
            near = [self.results.agreements.get((engine.key, workload.key)) for workload in workloads]
            if engine.key != self.results.baseline and any(near):
                cells = [f"{each.difference:.1e}, {each.cosine:.6f}" if each else _NONE for each in near]
                rows.append([engine.title, *cells])
        heads = ["largest difference, smallest cosine", *(workload.title for workload in workloads)]
        return table(heads, rows) if rows else ""

    def _products(self) -> str:
        rows = [
            [way, precision, f"{rate / 1e9:,.0f} GFLOP/s"] for (way, precision), rate in self.product_rates.items()
        ]
        return table(["matrix products", "format", "all threads"], rows) if rows else ""

    def _limits(self) -> str:
        rows = [
            [
                limit.engine,
                limit.workload,
                f"{limit.tokens_per_second:,.0f}/s",
                f"{limit.allowed:,.0f}/s",
                f"{limit.share:.0%}",
            ]
            for limit in self.limits()
        ]
        return table(["engine", "workload", "tokens", "products alone", "share"], rows) if rows else ""

    def _targets(self) -> str:
        rows = [
            [
                outcome.target.figure,
                f"{'≥' if outcome.target.is_floor else '≤'} {outcome.target.bound:g}",
                f"{outcome.figure:{outcome.target.form}}",
                "met" if outcome.is_met else "missed",
            ]
            for outcome in self._outcomes()
        ]
        return table(["figure", "bound", "reached", ""], rows) if rows else ""

    def _failures(self) -> str:
        workloads_of: dict[tuple[str, str], list[str]] = {}
        for (engine, workload), reason in self.results.failures.items():
            workloads_of.setdefault((engine, reason), []).append(workload)
        return "\n".join(
            f"not run: {engine} ({', '.join(workloads)}): {reason}"
            for (engine, reason), workloads in workloads_of.items()
        )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns are aligned."""
    widths = [max(len(row[place]) for row in [heads, *rows]) for place in range(len(heads))]
    rule = ["-" * width for width in widths]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [heads, rule, *rows]
    ]
    return "\n".join(lines)


def _times(ratio: Ratio | None) -> str:
    return f", {ratio.median:.2f}×" if ratio else ""
