"""The figures that this package must reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.engines import ENGINES, Device
from benchmarks.measurement import Results

Reached = Callable[[Results], float | None]


@dataclass(frozen=True)
class Target:
    """A figure, and the bound that it must keep.

    Attributes:
        figure: What it is.
        bound: At least this, or at most.
        is_floor: Whether more is better.
        reached: The figure out of what was measured; None if that was not measured.
        devices: Where it holds.
        form: How figures are written.
    """

    figure: str
    bound: float
    is_floor: bool
    reached: Reached
    devices: tuple[Device, ...] = ("cpu",)
    form: str = ".2f"

    def is_met(self, figure: float) -> bool:
        """Whether a figure keeps the bound."""
        return figure >= self.bound if self.is_floor else figure <= self.bound


def _speedup(engine: str, workload: str, *, over: str | None = None) -> Reached:
    def reached(results: Results) -> float | None:
        ratio = results.speedup(engine, workload, over=over)
        return ratio.median if ratio else None

    return reached


def _share(engine: str, workload: str) -> Reached:
    def reached(results: Results) -> float | None:
        ratio = results.share(engine, workload)
        return ratio.median if ratio else None

    return reached


def _speedup_over_best(workload: str) -> Reached:
    """Ours over whichever fp32 engine comes nearest to it."""
    rivals = [engine.key for engine in ENGINES if engine.precision == "fp32" and engine.key != "ours-fp32"]

    def reached(results: Results) -> float | None:
        ratios = [results.speedup("ours-fp32", workload, over=rival) for rival in rivals]
        return min((ratio.median for ratio in ratios if ratio), default=None)

    return reached


def _cost(engine: str, workload: str) -> Reached:
    return lambda results: results.cost(engine, workload)


def _lowest_cosine(engine: str) -> Reached:
    def reached(results: Results) -> float | None:
        return min((near.cosine for (key, _), near in results.agreements.items() if key == engine), default=None)

    return reached


def _largest_difference(engine: str) -> Reached:
    def reached(results: Results) -> float | None:
        return max(
            (near.difference for (key, _), near in results.agreements.items() if key == engine), default=None
        )

    return reached


_BASE_SIZE = ("base-bert", "base-mpnet", "base-xlm-r", "base-modernbert")
_EVERYWHERE: tuple[Device, ...] = ("cpu", "cuda")

TARGETS: Sequence[Target] = (
    Target("fp32, short sentences, speed", 2.8, True, _speedup("ours-fp32", "short")),
    Target("fp32, mixed paragraphs, speed", 3.2, True, _speedup("ours-fp32", "mixed")),
    Target("fp32 over the best other fp32 engine, short", 1.4, True, _speedup_over_best("short")),
    Target("fp32 over the best other fp32 engine, mixed", 1.4, True, _speedup_over_best("mixed")),
    Target("bf16, short sentences, speed", 4.3, True, _speedup("ours-bf16", "short")),
    Target("bf16, mixed paragraphs, speed", 4.7, True, _speedup("ours-bf16", "mixed")),
    Target("bf16, smallest cosine", 0.9999, True, _lowest_cosine("ours-bf16"), form=".6f"),
    Target("bf16 over OpenVINO bf16, short", 1.4, True, _speedup("ours-bf16", "short", over="openvino-bf16")),
    Target("bf16 over OpenVINO bf16, mixed", 1.4, True, _speedup("ours-bf16", "mixed", over="openvino-bf16")),
    Target("one short query, fp32, time", 0.25, False, _share("ours-fp32", "single")),
    Target("one short query, bf16, time", 0.19, False, _share("ours-bf16", "single")),
    Target("ragged batch of 32, fp32, time", 0.35, False, _share("ours-fp32", "ragged32")),
    *(Target(f"{name}, fp32, speed", 1.8, True, _speedup("ours-fp32", name)) for name in _BASE_SIZE),
    Target("import, time", 0.30, False, _share("ours-fp32", "import")),
    Target("cold start to the first vector, time", 0.50, False, _share("ours-fp32", "cold-start")),
    Target("a pool of two, its start included, speed", 2.5, True, _speedup("ours-fp32", "pool")),
    Target("peak memory growth, in sizes of the result", 1.3, False, _cost("ours-fp32", "memory")),
    Target(
        "fp32, largest difference of a value",
        1e-5,
        False,
        _largest_difference("ours-fp32"),
        devices=_EVERYWHERE,
        form=".1e",
    ),
    Target("GPU, short sentences, speed", 3.0, True, _speedup("ours-fp32", "short"), devices=("cuda",)),
)


@dataclass(frozen=True)
class Outcome:
    """A target and the figure reached."""

    target: Target
    figure: float

    @property
    def is_met(self) -> bool:
        """Whether it is enough."""
        return self.target.is_met(self.figure)


def outcomes(results: Results, device: Device, targets: Iterable[Target] = TARGETS) -> list[Outcome]:
    """What was reached of the targets for a device, of those for which there are figures."""
    reached = [(target, target.reached(results)) for target in targets if device in target.devices]
    return [Outcome(target, figure) for target, figure in reached if figure is not None]
