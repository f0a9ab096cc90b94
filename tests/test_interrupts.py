"""Ctrl-C in the middle of anything leaves a model that works as before."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.programs import ROOT

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="timers that interrupt")

BEGINNING = """
import contextlib, faulthandler, logging, random, signal, sys, time
import numpy as np
import torch
from torch.utils.data import DataLoader
from sentence_embedder import InputExample, SentenceTransformer, losses

faulthandler.dump_traceback_later(150, exit=True)
logging.disable(logging.WARNING)
torch.set_num_threads(2)
FOLDER = sys.argv[1]
few = ["the cat sat", "a dog"]
many = [f"{'the cat sat on a mat ' * (n % 4)}the dog {n}" for n in range(120)]
model = SentenceTransformer(FOLDER, device="cpu")
expected = model.encode(many), model.encode(few)
draw = random.Random(0)

def interrupt(_signal, _frame):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)

def cut_off(work, longest):
    # Whether it was interrupted after a random time.
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(1e-4, longest))
            work()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        return True
    return False

def takes(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start

def agrees(model):
    return all(np.allclose(model.encode(texts), rows, atol=1e-5) for texts, rows in zip((many, few), expected))

def tried(work, times=12, longest=None):
    # How often it was interrupted; after each time the model must be as it was.
    longest = longest or min(takes(work) for _ in range(2))
    count = 0
    for _ in range(times):
        count += cut_off(work, longest)
        assert agrees(model)
    return count
"""

PROGRAMS = {
    "many texts": "print(tried(lambda: model.encode(many, batch_size=256)))",
    "one text": "print(tried(lambda: [model.encode(few[0]) for _ in range(20)]))",
    "one text, in another thread": """
from sentence_embedder.encoding.sharing import _Decision
by_one = _Decision(by_one=True, until=float("inf"), pause=1.0, seconds=1000.0)
model._sharing._decisions = dict.fromkeys(range(20), by_one)
print(tried(lambda: [model.encode(few[0]) for _ in range(20)]))
assert all(decision.by_one for decision in model._sharing._decisions.values())
model._sharing._decisions = {}
""",
    "module by module": """
model = SentenceTransformer(FOLDER, device="cpu", acceleration=False)
print(tried(lambda: model.encode(many, batch_size=8)))
""",
    "a stream": "print(tried(lambda: list(model.encode_iter(iter(many), chunk_size=32))))",
    "the first call of a model": """
count = 0
for _ in range(10):
    fresh = SentenceTransformer(FOLDER, device="cpu").train()
    count += cut_off(lambda: fresh.encode(many), 0.02)
    assert agrees(fresh)
print(count)
""",
    "loading": """
def load():
    loaded.append(SentenceTransformer(FOLDER, device="cpu"))

loaded = []
count = tried(load, longest=takes(load))
assert all(map(agrees, loaded))
print(count)
""",
    "a batcher": """
with model.batcher() as batcher:
    print(tried(lambda: [batcher.encode(text) for text in many[:20]]))
    assert np.allclose(batcher.encode(few), expected[1], atol=1e-5)
""",
    "a pool": """
if __name__ == "__main__":
    with model.start_multi_process_pool(["cpu"]) as pool:
        print(tried(lambda: model.encode(many, pool=pool, chunk_size=8), times=8))
        assert np.allclose(model.encode(many, pool=pool), expected[0], atol=1e-5)
""",
    "saving": """
count = tried(lambda: model.save(sys.argv[2] + "/saved"))
model.save(sys.argv[2] + "/saved")
assert agrees(SentenceTransformer(sys.argv[2] + "/saved", device="cpu"))
print(count)
""",
    "training": """
rows = [InputExample(texts=[one, other], label=0.5) for one, other in zip(many, many[1:])]
trained = SentenceTransformer(FOLDER, device="cpu")

def fit():
    loader = DataLoader(rows, batch_size=16)
    trained.fit([(loader, losses.CosineSimilarityLoss(trained))], epochs=1, show_progress_bar=False)

count = 0
for _ in range(8):
    count += cut_off(fit, 0.3)
    assert np.isfinite(trained.encode(many)).all()
    assert np.allclose(trained.encode(many[0]), trained.encode(many)[0], atol=1e-5)
print(count)
""",
}


TOGETHER = (
    (
        "many texts",
        "one text",
        "one text, in another thread",
        "module by module",
        "a stream",
        "the first call of a model",
        "a batcher",
    ),
    ("loading", "saving", "training"),
    ("a pool",),
)
"""What shares a process."""


def _printed(programs: str, tiny_folders: dict[str, Path], tmp_path: Path) -> list[int]:
    """The numbers that programs print, in a process of their own."""
    program = tmp_path / "program.py"
    program.write_text(BEGINNING + programs, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program), str(tiny_folders["bert"]), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return [*map(int, done.stdout.split())]


@pytest.mark.parametrize("names", TOGETHER, ids=", ".join)
def test_it_works_as_before(names: tuple[str, ...], tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Interrupted at random moments, often in the middle, the model then gives what it gave."""
    anew = 'model = SentenceTransformer(FOLDER, device="cpu")\n'
    programs = "".join(f"{anew}{PROGRAMS[name]}\n" for name in names)

    counts = dict(zip(names, _printed(programs, tiny_folders, tmp_path), strict=True))

    assert min(counts.values()) >= 1, counts


def test_nothing_is_left_out() -> None:
    """Each program belongs to one of the processes."""
    assert sorted(name for names in TOGETHER for name in names) == sorted(PROGRAMS)


# ── At every place ────────────────────────────────────────────────────────────────────────────────────────────

AT_EVERY_PLACE = """
from tests import interruption

# The files in which one thread waits for another.
WAITING = ("threading.py", "threads.py", "latch.py", "lock.py", "engine.py", "schedule.py", "encode_pool.py",
    "_base.py", "call.py", "call_queue.py")

def interrupted_at(number, work):
    return interruption.interrupted_at(number, work, WAITING)

def tried_everywhere(work):
    number = 1
    while interrupted_at(number, work):
        work()
        number += 1
    assert agrees(model)
    print(number)
"""

WAITS = {
    "downloads": """
from sentence_embedder.threads import Threads
shared = Threads(3, "shared")

def download():
    with Threads(3, "own") as own:
        assert list(own.map(len, few)) == list(shared.map(len, few)) == [11, 5]

tried_everywhere(download)
""",
    "a batcher": """
with model.batcher() as batcher:
    tried_everywhere(lambda: batcher.encode(few))
""",
    "the end of a batcher": """
from threading import Thread

def ended(number):
    # Whether it could be interrupted there; others wait for room meanwhile.
    batcher = model.batcher(max_waiting=1)

    def call():
        with contextlib.suppress(RuntimeError):
            while True:
                batcher.encode(few)

    others = [Thread(target=call, daemon=True) for _ in range(3)]
    for thread in others:
        thread.start()
    is_interrupted = interrupted_at(number, batcher.close)
    batcher.close()
    for thread in others:
        thread.join()
    return is_interrupted

print(next(number for number in range(1, 999) if not ended(number)))
""",
    "a batcher that has no room": """
with model.batcher(max_waiting=1) as batcher:
    def call():
        while not batcher.is_closed:
            with contextlib.suppress(RuntimeError):
                batcher.encode(few[0])

    others = [Thread(target=call, daemon=True) for _ in range(3)]
    for thread in others:
        thread.start()
    tried_everywhere(lambda: batcher.encode(few))
for thread in others:
    thread.join()
""",
    "threads": "tried_everywhere(lambda: model.encode(many[:60], batch_size=256))",
    "texts tokenised ahead": """
from sentence_embedder.encoding import engine
engine._WINDOW = 32
tried_everywhere(lambda: model.encode(many[:60], batch_size=64))
""",
    "a pool": """
if __name__ == "__main__":
    with model.start_multi_process_pool(["cpu"]) as pool:
        tried_everywhere(lambda: model.encode(many[:60], pool=pool, chunk_size=30))
""",
}


SHORT = "the end of a batcher"
"""It has few places, the fewer the less others wait."""


@pytest.mark.parametrize("names", [[*WAITS][:-1], ["a pool"]], ids=", ".join)
def test_at_every_place(names: list[str], tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Wherever a thread is interrupted that waits for another, or is about to, nobody waits for ever."""
    programs = "\n".join(WAITS[name] for name in names)

    places = dict(zip(names, _printed(AT_EVERY_PLACE + programs, tiny_folders, tmp_path), strict=True))

    assert places.pop(SHORT, 4) > 3
    assert min(places.values()) > 20, places
