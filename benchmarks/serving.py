"""``python -m benchmarks.serving``: many callers of one model, each with a short text at a time.

A thread for each caller, which calls the model; the same through a batcher; and tasks of one event loop. They take
turns in each round; ratios are medians over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.models import ModelFolders
from benchmarks.report import table
from benchmarks.texts import short_sentences
from sentence_embedder import SentenceTransformer
from tests.minilm import minilm_folder

_CALLERS = (1, 8, 64, 256)
_WORDS = 6


@dataclass(frozen=True)
class Served:
    """How callers were served.

    Args:
        seconds: How long it took until all were done.
        latencies: How long each call took, in seconds, ascending.
    """

    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Texts a second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """The latency that so many of the calls keep to, in milliseconds."""
        return 1000 * self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


def by_threads(encode: Callable[[str], Any], callers: int, texts: Sequence[str]) -> Served:
    """Callers in threads, who share the texts."""
    latencies: list[float] = []

    def call(own: Iterable[str]) -> None:
        for text in own:
            start = time.perf_counter()
            encode(text)
            latencies.append(time.perf_counter() - start)

    threads = [threading.Thread(target=call, args=(texts[caller::callers],)) for caller in range(callers)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Served(time.perf_counter() - start, sorted(latencies))


def by_tasks(model: SentenceTransformer, callers: int, texts: Sequence[str]) -> Served:
    """Callers in tasks of one event loop, who share the texts."""
    latencies: list[float] = []

    async def call(own: Iterable[str]) -> None:
        for text in own:
            start = time.perf_counter()
            await model.aencode(text)
            latencies.append(time.perf_counter() - start)

    async def serve() -> float:
        start = time.perf_counter()
        await asyncio.gather(*(call(texts[caller::callers]) for caller in range(callers)))
        return time.perf_counter() - start

    return Served(asyncio.run(serve()), sorted(latencies))


def measure(model: SentenceTransformer, callers: int, texts: Sequence[str], rounds: int) -> dict[str, list[Served]]:
    """Way → what it did in each round."""
    found: dict[str, list[Served]] = {"encode": [], "batcher": [], "aencode": []}
    with model.batcher() as batcher:
        for _ in range(rounds):
            found["encode"].append(by_threads(model.encode, callers, texts))
            found["batcher"].append(by_threads(batcher.encode, callers, texts))
            found["aencode"].append(by_tasks(model, callers, texts))
    return found


def rows_of(callers: int, found: Mapping[str, Sequence[Served]]) -> list[list[str]]:
    """A row of the table for each way."""
    rows = []
    for way, served in found.items():
        ratio = median(ours.rate / direct.rate for ours, direct in zip(served, found["encode"], strict=True))
        rows.append(
            [
                str(callers),
                way,
                f"{median(each.rate for each in served):,.0f}",
                *(f"{median(each.percentile(share) for each in served):,.1f} ms" for share in (0.5, 0.99)),
                f"{ratio:.2f}",
            ]
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--callers", type=int, nargs="+", default=_CALLERS, help="how many at a time")
    parser.add_argument("--calls", type=int, default=1024, help="how many calls in a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how many rounds (default: %(default)s)")
    parser.add_argument("--dtype", default="float32", help="format of the products (default: %(default)s)")
    options = parser.parse_args(arguments)
    folder = ModelFolders(Path(".bench") / "models", minilm=minilm_folder()).folder("minilm")
    model = SentenceTransformer(str(folder), device="cpu", dtype=options.dtype)
    texts = [" ".join(text.split()[:_WORDS]) for text in short_sentences(options.calls)]
    model.encode(texts)
    rows = [
        row
        for callers in options.callers
        for row in rows_of(callers, measure(model, callers, texts, options.rounds))
    ]
    print(table(["callers", "way", "texts/s", "p50", "p99", "ratio"], rows))  # noqa: T201


if __name__ == "__main__":
    main()
