"""Threads: any number of them encode with one model, and load models, as if each were alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertTokenizer

from benchmarks.mixed_work import difference, mixed_work
from benchmarks.texts import short_sentences
from sentence_embedder import SentenceTransformer
from tests.crowd import in_threads
from tests.programs import run_program


@pytest.fixture
def three_threads() -> Iterator[None]:
    """torch with three threads: encode computes several batches at a time."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def all_agree(model: SentenceTransformer, *, threads: int, calls: int) -> None:
    """Mixed work in many threads gives what it gives in one."""
    work = mixed_work(short_sentences(60))
    expected = [piece.call(model) for piece in work]
    state = _state(model)

    def run(number: int) -> None:
        draw = random.Random(number)  # noqa: S311
        for _ in range(calls):
            place = draw.randrange(len(work))
            assert difference(work[place].call(model), expected[place]) <= 1e-6, work[place].name

    in_threads(threads, run)
    assert _state(model) == state


def _state(model: SentenceTransformer) -> Any:
    """What encode could change."""
    backend = model.tokenizer.backend_tokenizer
    modules = [(module.training, sorted(vars(module))) for module in model.modules()]
    return modules, backend.truncation, backend.padding, dict(model.prompts), model.max_seq_length


@pytest.mark.xdist_group("sixty-four threads")  # which take long, and so come early
def test_sixty_four_threads_do_mixed_work(model: SentenceTransformer) -> None:
    """64 threads with 200 calls each, of every kind, get what one gets; model and tokenizer stay the same."""
    all_agree(model, threads=64, calls=200)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("name", ["decoder", "bert-chain"])
def test_threads_share_the_threads_that_compute(name: str, tiny_folders: dict[str, Path]) -> None:
    """So it is if each call shares out its batches to threads."""
    all_agree(SentenceTransformer(str(tiny_folders[name]), device="cpu"), threads=6, calls=20)


def test_the_first_calls_of_threads(tiny_folders: dict[str, Path]) -> None:
    """Threads may make the first calls of a model, in training mode yet, at the same time."""
    work = mixed_work(short_sentences(60))
    known = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    expected = [piece.call(known) for piece in work]
    for _ in range(5):
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu").train()

        def check(place: int, model: SentenceTransformer = model) -> None:
            assert difference(work[place].call(model), expected[place]) <= 1e-6, work[place].name

        in_threads(len(work), check)


def test_a_thread_changes_what_others_read(model: SentenceTransformer) -> None:
    """A thread may give the model prompts, and another length, while others encode: they get the old or the new."""
    texts = short_sentences(4)
    lengths = (8, 24)
    either = []
    for model.max_seq_length in lengths:
        either.append(model.encode(texts))

    def work(number: int) -> None:
        for turn in range(60):
            if number == 0:
                model.prompts[f"prompt {turn}"] = "the "
                model.max_seq_length = lengths[turn % 2]
            else:
                found = model.encode(texts)
                assert min(difference(found, one) for one in either) <= 1e-6
                assert "prompts" in repr(model)

    in_threads(6, work)


class OwnTokenizer(BertTokenizer):
    """A tokenizer of somebody's own, which is called as it is, and keeps what it is told in a call."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What it would be without this."""
        return super().__call__(*args, **kwargs)


def test_a_tokenizer_that_keeps_state(model: SentenceTransformer, tiny_folders: dict[str, Path]) -> None:
    """Threads share a tokenizer that each call sets to its own truncation."""
    model.tokenizer = OwnTokenizer.from_pretrained(tiny_folders["bert"])
    texts = [" ".join(short_sentences(9)), *short_sentences(5)]
    embeddings, counts = model.encode(texts, truncation="ignore"), model.count_tokens(texts)
    assert counts[0] > 24

    def work(number: int) -> None:
        for _ in range(30):
            if number % 2:
                assert difference(model.count_tokens(texts), counts) == 0
            else:
                assert difference(model.encode(texts, truncation="ignore"), embeddings) <= 1e-6

    in_threads(8, work)


LOADS = """
import logging, sys, threading
from sentence_embedder import SentenceTransformer
logging.disable(logging.WARNING)

folders, errors = sys.argv[1:], []
start = threading.Barrier(len(folders))

def load(folder):
    start.wait()
    try:
        dtype = "bfloat16" if folder.endswith("bert") else "float32"
        model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})
        found = {parameter.dtype for parameter in model[0].parameters()}
        assert str(found) == f"{{torch.{dtype}}}", found
        assert all("float32" in str(part.dtype) for module in [*model][1:] for part in module.parameters())
        model.encode(["hello", "the cat sat"])
    except BaseException as error:
        errors.append(f"{folder}: {error!r}")

threads = [threading.Thread(target=load, args=(folder,)) for folder in folders]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*errors, sep="\\n")
"""


def test_eight_threads_load_eight_models(tiny_folders: dict[str, Path]) -> None:
    """In a process that has not imported transformers yet, threads load models of different kinds and formats."""
    printed = run_program(LOADS, *map(str, tiny_folders.values()))

    assert printed.strip() == ""


GOES_ON = """
import logging, sys, threading, time, torch
logging.disable(logging.WARNING)
torch.set_num_threads(2)
from sentence_embedder import SentenceTransformer
from sentence_embedder.encoding import engine, single_threads

engine._WINDOW = 100  # so that texts are tokenised ahead, in a thread of their own
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = ["the cat " * (1 + place % 5) + str(place) for place in range(400)]
expected = model.encode(texts, batch_size=512)

def work():
    threading.main_thread().join()
    time.sleep(0.2)
    print((model.encode(texts, batch_size=512) == expected).all(), bool(single_threads._pools))

threading.Thread(target=work).start()
"""


def test_threads_encode_while_the_interpreter_ends(tiny_folders: dict[str, Path]) -> None:
    """A thread that is left when the main thread has come to its end still encodes, in several threads."""
    assert run_program(GOES_ON, str(tiny_folders["bert"])).split() == ["True", "True"]
