"""Forks: a process that was forked from one whose models compute can compute, too, or says why not."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
import torch

from sentence_embedder import SentenceTransformer, forks
from sentence_embedder.forks import ProcessLock, between_forks
from tests.minilm import minilm_folder
from tests.pool.deadline import within
from tests.programs import run_program

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

BEGINNING = """
import logging, multiprocessing, os, random, signal, sys, threading, time
import numpy as np
import torch
from benchmarks.texts import short_sentences
from sentence_embedder import SentenceTransformer

logging.disable(logging.WARNING)
torch.set_num_threads(2)
model = SentenceTransformer(sys.argv[1], device="cpu")
few, many = short_sentences(10), short_sentences(150)

def all_of_it():
    return [*model.encode(few), *model.encode(many, batch_size=256), model.encode(few[0])]

def agree(found):
    return all(np.allclose(*pair, atol=1e-5) for pair in zip(found, expected, strict=True))

def in_child(call):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(20)  # ends what hangs
            code = int(not call())
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

AFTER_COMPUTING = """
expected = all_of_it()
print(in_child(lambda: agree(all_of_it())))

def of_the_child():
    alone = torch.get_num_threads()
    others = []
    thread = threading.Thread(target=lambda: others.append(torch.get_num_threads()))
    thread.start(); thread.join()
    torch.set_num_threads(3)  # who asks for more gets it for batches, which others compute
    return agree(all_of_it()) and (alone, others, torch.get_num_threads()) == (1, [2], 1)

print(in_child(of_the_child))
print(in_child(lambda: in_child(lambda: agree(all_of_it())) == 0))
context = multiprocessing.get_context("fork")
with context.Pool(2) as pool:
    print(all(np.allclose(row, each, atol=1e-5) for row, each in zip(pool.map(model.encode, few), expected)))
print(agree(all_of_it()), torch.get_num_threads())
"""


def test_a_fork_of_a_process_that_has_computed() -> None:
    """Its child encodes texts, few and many, with the products of its one thread alone; so does a child of that,
    and a process of a pool of multiprocessing; the parent goes on as before. Nothing is printed about tokenizers.
    """
    printed = run_program(BEGINNING + AFTER_COMPUTING, str(minilm_folder()))

    assert printed.split() == ["0", "0", "0", "True", "True", "2"]


WHILE_OTHERS_ENCODE = """
expected = all_of_it()
ends = threading.Event()

def work(seed):
    draw = random.Random(seed)
    while not ends.is_set():
        texts = [" ".join(draw.sample(many, draw.randint(1, 3))) for _ in range(draw.choice([1, 5, 70]))]
        model.encode(texts, batch_size=256)
        model.max_seq_length = draw.choice([20, 24])  # caches are made anew

threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
for thread in threads: thread.start()
draw = random.Random(0)
codes = []
for _ in range(20):
    time.sleep(draw.random() * 0.02)
    codes.append(in_child(lambda: len(all_of_it()) == len(expected)))
ends.set()
for thread in threads: thread.join()
model.max_seq_length = 24
print(set(codes), agree(all_of_it()))
"""


def test_forks_while_other_threads_encode(tiny_folders: dict[str, Path]) -> None:
    """Whatever locks other threads held at the moment of the fork, the child does not wait for them."""
    assert run_program(BEGINNING + WHILE_OTHERS_ENCODE, str(tiny_folders["bert"])).strip() == "{0} True"


HELD_LOCKS = """
from sentence_embedder.models import checkpoint, tokenizer_backend
from sentence_embedder.encoding import single_threads
from tqdm.auto import tqdm

expected = all_of_it()
held, ends = threading.Event(), threading.Event()

def hold():
    locks = [checkpoint.one_at_a_time(), tokenizer_backend.one_call_at_a_time(), single_threads._setting.here()]
    locks += [model._acceleration._readings[None]._lock.here(), model[0]._token_ids._copies._lock.here()]
    locks.append(tqdm.get_lock())
    for lock in locks: lock.__enter__()
    held.set()
    ends.wait()
    for lock in locks: lock.__exit__(None, None, None)

thread = threading.Thread(target=hold)
thread.start()
held.wait()

def everything_anew():
    other = SentenceTransformer(sys.argv[1], device="cpu")
    model.max_seq_length = 22
    model.encode(many, batch_size=256)
    model[0].auto_model.encoder.layer[0].output.dense.weight.data.mul_(2)
    model.encode(few)
    sys.stderr = open(os.devnull, "w")
    from sentence_embedder.progress import progress_bar
    with progress_bar(3, unit="text", shown=True) as bar:
        bar.update(3)
    return agree([*other.encode(few), *other.encode(many, batch_size=256), other.encode(few[0])])

def release_later():
    time.sleep(1)
    ends.set()

threading.Thread(target=release_later).start()  # what is shared with the child, as tqdm's other lock is
print(in_child(everything_anew))
thread.join()
"""


def test_every_lock_is_new_in_a_forked_process(tiny_folders: dict[str, Path]) -> None:
    """Loading, making caches anew, threads and progress bars wait for no thread of the parent."""
    assert run_program(BEGINNING + HELD_LOCKS, str(tiny_folders["bert"])).strip() == "0"


def test_a_lock_of_the_process() -> None:
    """A thread may take it again, another one has to wait, and a forked process has one that is free."""
    lock = ProcessLock()
    taken: list[bool] = []

    def take() -> None:
        with lock.here():
            taken.append(True)

    with lock.here(), lock.here():
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        thread.join(0.05)
        assert not taken
        child = os.fork()
        if child == 0:
            other = threading.Thread(target=take, daemon=True)
            other.start()
            other.join(20)
            os._exit(int(not taken))

    assert within(60, lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) == 0
    thread.join(20)
    assert taken


def test_a_fork_waits_for_a_batch() -> None:
    """A fork comes after the batch that another thread computes, and before the next one."""
    events: list[str] = []
    begun = threading.Event()

    def compute() -> None:
        with between_forks():
            begun.set()
            time.sleep(0.1)
            with between_forks():  # inside a batch there is no waiting for a fork that waits for it
                events.append("computed")

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        os._exit(0)
    events.append("forked")
    os.waitpid(child, 0)
    thread.join(20)

    assert events == ["computed", "forked"]
    assert not forks._computed
    assert not forks._forking


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes very long is not waited for; nor is what the thread that forks computes itself."""
    monkeypatch.setattr(forks, "_LONGEST_WAIT", 0.1)
    ends, begun = threading.Event(), threading.Event()

    def compute() -> None:
        with between_forks():
            begun.set()
            ends.wait(60)

    thread = threading.Thread(target=compute, daemon=True)
    thread.start()
    begun.wait()
    with between_forks():
        child = os.fork()
        if child == 0:
            os._exit(int(bool(forks._computed)))
    ends.set()
    thread.join(20)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_cuda_after_a_fork(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a GPU cannot be used because the process was forked, the error says so, and names the remedy."""
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)

    with pytest.raises(RuntimeError, match=r"device cuda: .* forked .*get_context\('spawn'\)"):
        model.encode("a", device="cuda")
    with pytest.raises(RuntimeError, match=r"device cuda:1: .* forked .*get_context\('spawn'\)"):
        SentenceTransformer(modules=list(model), device="cuda:1")

    assert model.encode("a").shape == (32,)


def test_ctrl_c_while_a_process_is_forked() -> None:
    """A Ctrl-C that comes while the system forks is raised in the first step of Python that follows, and would be
    forgotten there, with what that was to do, if it were one of ours: nobody waits for that fork ever after.
    """
    printed = run_program("""
        import ctypes, functools, os, signal
        import torch, transformers, huggingface_hub  # whose hooks come before ours
        kill = functools.partial(ctypes.CDLL(None).kill, os.getpid(), signal.SIGINT)
        os.register_at_fork(after_in_parent=kill)
        from sentence_embedder import forks
        from tests.pool.misbehaving import misbehaving_model
        model = misbehaving_model()
        try:
            child = os.fork()
            if child == 0:
                os._exit(0)
            print("not interrupted")
        except KeyboardInterrupt:
            print("interrupted")
        print(model.encode(["a"], prompt="").shape, forks._forking)
    """)

    assert printed.splitlines() == ["interrupted", "(1, 2) []"]


def test_the_end_of_the_process_waits_for_a_batch() -> None:
    """A thread that computes for somebody who was interrupted twice, and is gone, is not cut off inside torch."""
    printed = run_program("""
        import threading, time
        from sentence_embedder.forks import between_forks
        begun = threading.Event()
        def compute():
            with between_forks():
                begun.set()
                time.sleep(0.2)
                print("computed", flush=True)
        threading.Thread(target=compute, daemon=True).start()
        begun.wait()
    """)

    assert printed == "computed\n"
