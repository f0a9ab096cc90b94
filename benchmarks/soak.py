"""``python -m benchmarks.soak``: many minutes of mixed work, with all that goes wrong in a server.

Threads call the model, and a batcher; tasks are cancelled; streams are left halfway; bad texts, modules that fail,
memory that is short and Ctrl-C come in between. Every answer is compared with the first one. Memory, descriptors
and threads are looked at all the time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.mixed_work import Piece, difference, mixed_work
from benchmarks.models import ModelFolders
from benchmarks.report import table
from benchmarks.texts import short_sentences
from sentence_embedder import SentenceTransformer
from sentence_embedder.features import Features
from tests.minilm import minilm_folder

_TOLERANCE = 1e-5
_FIFTHS = 5


class Unlucky(nn.Module):
    """Fails now and then: for want of memory, or for no reason."""

    def __init__(self) -> None:
        super().__init__()
        self._draw = random.Random(1)  # which brings both errors soon

    def forward(self, features: Features) -> Features:
        """What was given, or an error."""
        luck = self._draw.random()
        if luck < 0.1:
            raise RuntimeError("out of luck")
        if luck < 0.2 and len(features["sentence_embedding"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory: not really")
        return features


@dataclass(frozen=True)
class Sample:
    """What the process takes at a moment.

    Args:
        memory: Megabytes of resident memory.
        descriptors: Open files and the like.
        threads: Threads.
    """

    memory: float
    descriptors: int
    threads: int

    @staticmethod
    def now() -> Sample:
        """Look at this process."""
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        threads, descriptors = (sum(1 for _ in Path(f"/proc/self/{kind}").iterdir()) for kind in ("task", "fd"))
        return Sample(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, descriptors, threads)


@dataclass
class Soak:
    """A model, those who call it, and what they found.

    Args:
        model: The model.
        seconds: How long they do.
        callers: How many threads of each kind.
    """

    model: SentenceTransformer
    seconds: float
    callers: int = 4
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)

    def run(self) -> None:
        """Let all of them work until the time is over."""
        self._texts = short_sentences(60)
        self._work = mixed_work(self._texts)
        self._expected = [piece.call(self.model) for piece in self._work]
        self._single = self.model.encode(self._texts, truncation="ignore")
        self._unlucky = SentenceTransformer(modules=[*self.model, Unlucky()], device="cpu")
        self._end = time.monotonic() + self.seconds
        with self.model.batcher() as batcher:
            kinds: list[Callable[[random.Random], None]] = [
                self._mixed,
                lambda draw: self._batched(batcher.encode, draw),
                self._wrong_input,
                self._failing,
            ]
            threads = [
                threading.Thread(target=self._caller, args=(kind, number), daemon=True)
                for number, kind in enumerate(kinds * self.callers)
            ]
            threads.append(threading.Thread(target=self._guarded, args=(self._tasks,), daemon=True))
            for thread in threads:
                thread.start()
            self._look(threads)
            for thread in threads:
                thread.join(60)
        self.wrong += [f"{thread.name} hangs" for thread in threads if thread.is_alive()]

    @property
    def _is_over(self) -> bool:
        return time.monotonic() > self._end

    def _look(self, threads: Sequence[threading.Thread]) -> None:
        """Take samples, and throw a Ctrl-C into a thread now and then."""
        draw = random.Random(1)
        while True:
            time.sleep(min(1.0, self.seconds / 100))
            self.samples.append(Sample.now())
            if self._is_over:
                return  # threads end now, and their numbers go to others
            victim = draw.choice(threads[:-1])
            error = ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(victim.ident or 0), error)

    def _caller(self, step: Callable[[random.Random], None], seed: int) -> None:
        draw, goes_on = random.Random(seed), True
        while goes_on:
            # With the loop inside, hardly a Ctrl-C finds the thread where it would end it.
            try:
                while not self._is_over:
                    self._guarded(lambda: step(draw))
                goes_on = False
            except KeyboardInterrupt:
                self.done["interrupted"] += 1

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:  # noqa: BLE001  # told at the end
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _compare(self, what: str, found: Any, expected: Any) -> None:
        self.done[what] += 1
        apart = difference(found, expected)
        if not apart <= _TOLERANCE:
            self.wrong.append(f"{what}: {apart} apart")

    def _mixed(self, draw: random.Random) -> None:
        place = draw.randrange(len(self._work))
        piece: Piece = self._work[place]
        self._compare("mixed work", piece.call(self.model), self._expected[place])

    def _batched(self, encode: Callable[..., Any], draw: random.Random) -> None:
        place = draw.randrange(len(self._texts))
        try:
            found = encode(self._texts[place], timeout=draw.choice([0.001, None, None]), truncation="ignore")
        except TimeoutError:
            self.done["given up"] += 1
        else:
            self._compare("by the batcher", found, self._single[place])

    def _wrong_input(self, draw: random.Random) -> None:
        bad: list[Any] = [["a", None], [b"a"], 5, {"a": "b", "c": "d"}, [("a", "b", "c")]]
        try:
            self.model.encode(draw.choice(bad))
        except (TypeError, ValueError):
            self.done["wrong input"] += 1
        stream = self.model.encode_iter(iter(self._texts * 2), chunk_size=7)
        next(stream)
        self.done["left halfway"] += 1

    def _failing(self, draw: random.Random) -> None:
        start = draw.randrange(40)
        try:
            found = self._unlucky.encode(self._texts[start : start + 20], truncation="ignore", batch_size=8)
        except RuntimeError:
            self.done["failed"] += 1
        else:
            self._compare("halved", found, self._single[start : start + 20])

    def _tasks(self) -> None:
        asyncio.run(self._loop())

    async def _loop(self) -> None:
        draw = random.Random(2)
        while not self._is_over:
            places = [draw.randrange(len(self._texts)) for _ in range(16)]
            tasks = [
                asyncio.create_task(self.model.aencode(self._texts[place], truncation="ignore")) for place in places
            ]
            await asyncio.sleep(draw.random() * 0.01)
            for task in tasks[::4]:
                task.cancel()
            for place, task in zip(places, tasks, strict=True):
                with contextlib.suppress(asyncio.CancelledError):
                    self._compare("by tasks", await task, self._single[place])
            self.done["cancelled"] += len(tasks[::4])

    def growth(self) -> dict[str, tuple[float, float]]:
        """Name → median in the second fifth of the time, when all is warm, and in the last one."""
        part = len(self.samples) // _FIFTHS
        early, late = self.samples[part : 2 * part], self.samples[-part:]
        return {
            name: (median(getattr(each, name) for each in early), median(getattr(each, name) for each in late))
            for name in ("memory", "descriptors", "threads")
        }


def growth_over_calls(model: SentenceTransformer, calls: int) -> tuple[float, float]:
    """Megabytes of memory before and after so many calls of ``encode``, of one text and of some.

    Before them there are up to a thousand of the same kind: products are compiled for each size of batch.
    """
    texts = short_sentences(64)

    def call(times: int) -> None:
        for number in range(times):
            model.encode(texts[number % 50 : number % 50 + 1 + number % 8], truncation="ignore")

    call(min(calls, 1000))
    before = Sample.now().memory
    call(calls)
    return before, Sample.now().memory


def main(arguments: Sequence[str] | None = None) -> None:
    """Work, and print tables; an exit code of 1 says that something was wrong."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: %(default)s)")
    parser.add_argument("--callers", type=int, default=4, help="threads of each kind (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=0, help="instead: so many calls of encode, one after another")
    parser.add_argument("--model", type=Path, help="a model folder (default: all-MiniLM-L6-v2)")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    folder = options.model or ModelFolders(Path(".bench") / "models", minilm=minilm_folder()).folder("minilm")
    model = SentenceTransformer(str(folder), device="cpu")
    if options.calls:
        before, after = growth_over_calls(model, options.calls)
        print(f"{options.calls:,} calls: {before:.1f} MB before, {after:.1f} MB after")  # noqa: T201
        return
    soak = Soak(model, options.minutes * 60, options.callers)
    soak.run()
    print(table(["what", "how often"], [[what, f"{count:,}"] for what, count in sorted(soak.done.items())]))  # noqa: T201
    rows = [
        [name, f"{early:,.1f}", f"{late:,.1f}", f"{100 * (late / early - 1):+.2f} %"]
        for name, (early, late) in soak.growth().items()
    ]
    print(table(["", "second fifth", "last fifth", "growth"], rows))  # noqa: T201
    print("\n".join(soak.wrong) or "nothing was wrong")  # noqa: T201
    raise SystemExit(bool(soak.wrong))


if __name__ == "__main__":
    main()
