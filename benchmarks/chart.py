"""The chart: how fast each engine is, beside the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.engines import Engine
from benchmarks.measurement import Results
from benchmarks.workloads import Workload

_WORKLOADS = ("short", "mixed", "ragged32", "single")
"""What is drawn, where it was measured."""
_OURS, _OTHERS, _BASELINE = "#0b7a75", "#b8c4cc", "#7d8b95"


def draw(
    path: Path, results: Results, engines: Sequence[Engine], workloads: Sequence[Workload], *, note: str
) -> None:
    """Draw a PNG: a panel a workload, a bar an engine, as long as the engine is fast, the baseline at the bottom.

    Args:
        path: The file to write.
        results: What was measured.
        engines: The engines.
        workloads: The workloads; only some are drawn.
        note: A line about machine and versions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [workload for workload in workloads if workload.key in _WORKLOADS]
    ran = [engine for engine in engines if any((engine.key, panel.key) in results.costs for panel in panels)]
    if not ran:
        return
    height = 1.2 + 0.32 * len(ran)
    figure = Figure(figsize=(3.2 + 2.6 * len(panels), height), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.subplots(1, len(panels), sharey=True, squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        _draw_panel(axis, panel, results, ran)
    baseline = next(engine.title for engine in engines if engine.key == results.baseline)
    figure.suptitle(f"Speed, as a multiple of {baseline}", fontsize=11)
    figure.supxlabel(note, fontsize=7, color="#555555")
    figure.savefig(path, dpi=90)


def _draw_panel(axis: Any, workload: Workload, results: Results, engines: Sequence[Engine]) -> None:
    ratios = [results.speedup(engine.key, workload.key) for engine in engines]
    lengths = [ratio.median if ratio else 0.0 for ratio in ratios]
    colours = [_colour(engine, results.baseline) for engine in engines]
    bars = axis.barh([engine.title for engine in engines], lengths, color=colours)
    costs = [results.cost(engine.key, workload.key) for engine in engines]
    labels = [
        f"{length:.2f}×  {workload.shown(cost)}" if cost else "–"
        for length, cost in zip(lengths, costs, strict=True)
    ]
    axis.bar_label(bars, labels, padding=3, fontsize=7)
    axis.set_title(workload.title, fontsize=9)
    axis.set_xlim(0, max(lengths) * 1.75 or 1)
    axis.set_xticks([])
    axis.tick_params(axis="y", labelsize=8, length=0)
    axis.spines[["top", "right", "bottom"]].set_visible(False)


def _colour(engine: Engine, baseline: str) -> str:
    if engine.library.loader == "sentence_embedder":
        return _OURS
    return _BASELINE if engine.key == baseline else _OTHERS
