"""``python -m benchmarks``: measure, print tables, write JSON and draw a chart."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import chart
from benchmarks.engines import ENGINES, ROOT, Device, Engine, engines_for
from benchmarks.machine import cpu_model, describe_machine, quantization
from benchmarks.measurement import measure
from benchmarks.models import ModelFolders
from benchmarks.products import Products, flop_per_token
from benchmarks.report import Report
from benchmarks.session import Session
from benchmarks.workloads import WORKLOADS, sizes_for

logger = logging.getLogger(__name__)

_CACHE = ROOT / ".bench"
_DEFAULT_THREADS: Mapping[Device, int] = {"cpu": 2, "cuda": os.cpu_count() or 1}


@dataclass(frozen=True)
class Plan:
    """What is to be measured, and how.

    Attributes:
        engines: The engines; the first is the baseline.
        workloads: Keys of the workloads.
        device: Where to compute.
        rounds: How many rounds count.
        threads: How many threads every engine may use.
        is_quick: Whether everything is small: it shows that the benchmark works, and no more.
        cache: Folder in which models are kept.
        minilm: A model folder to take for ``minilm``.
    """

    engines: Sequence[Engine]
    workloads: Sequence[str] = tuple(WORKLOADS)
    device: Device = "cpu"
    rounds: int = 5
    threads: int = 2
    is_quick: bool = False
    cache: Path = _CACHE
    minilm: Path | None = None


def run(plan: Plan) -> Report:
    """Measure what is planned."""
    folders = ModelFolders(plan.cache, minilm=plan.minilm)
    tokenizer = folders.tokenizer()
    sizes = sizes_for(plan.device, is_quick=plan.is_quick)
    workloads = [WORKLOADS[key](sizes, tokenizer) for key in WORKLOADS if key in plan.workloads]
    products = Products(plan.device, plan.threads)
    with Session(folders, device=plan.device, threads=plan.threads, quantization=quantization()) as session:
        results = measure(workloads, plan.engines, session, rounds=plan.rounds, before_round=products.sample)
        versions = session.versions
    return Report(
        results=results,
        engines=plan.engines,
        workloads=workloads,
        device=plan.device,
        product_rates=products.rates(),
        flop_per_token=flop_per_token(folders.folder("minilm")),
        settings={
            "machine": describe_machine(plan.device),
            "versions": versions,
            "device": plan.device,
            "threads": plan.threads,
            "rounds": plan.rounds,
            "is_quick": plan.is_quick,
            "has_real_weights": folders.has_real_minilm,
        },
    )


def write(report: Report, out: Path) -> None:
    """Write ``performance.json`` and ``performance.png`` into a folder, or ``performance-cuda`` of a GPU."""
    out.mkdir(parents=True, exist_ok=True)
    stem = "performance" if report.device == "cpu" else f"performance-{report.device}"
    report.write_json(out / f"{stem}.json")
    machine = report.settings["machine"]
    where = machine.get("gpu") or f"{machine['processor']}, {report.settings['threads']} threads"
    note = f"{where}, {machine['date'][:10]}, {report.settings['rounds']} rounds"
    try:
        chart.draw(out / f"{stem}.png", report.results, report.engines, report.workloads, note=note)
    except ImportError as error:
        logger.warning("no chart is drawn: %s", error)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    plan = Plan(
        engines=engines_for(options.device, options.engines),
        workloads=options.workloads,
        device=options.device,
        rounds=options.rounds or (1 if options.quick else 5),
        threads=options.threads or _DEFAULT_THREADS[options.device],
        is_quick=options.quick,
        minilm=options.model,
    )
    logger.info("%s, %s", cpu_model(), plan.device)
    report = run(plan)
    print(report.text())
    write(report, options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    keys = [engine.key for engine in ENGINES]
    parser.add_argument("--engines", nargs="+", choices=keys, default=[], help="these only (the default: all)")
    parser.add_argument(
        "--workloads", nargs="+", choices=list(WORKLOADS), default=list(WORKLOADS), help="these only"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to compute")
    parser.add_argument("--rounds", type=int, help="how many rounds count (5)")
    parser.add_argument("--threads", type=int, help="threads of every engine (2; with a GPU all there are)")
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument("--model", type=Path, help="a model folder in place of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, default=_CACHE, help="folder for JSON and chart (.bench)")
    return parser


if __name__ == "__main__":
    main()
