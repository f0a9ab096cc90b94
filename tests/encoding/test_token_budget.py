"""Memory that is not enough: batches are halved, nothing is lost, and what fitted is remembered."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sentence_embedder import SentenceTransformer
from sentence_embedder.acceleration.forward import PackedForward
from sentence_embedder.encoding.token_budget import TokenBudget
from sentence_embedder.features import Features, Places

TEXTS = [f"{'the cat sat on a mat ' * (place % 3)}the dog {place}" for place in range(40)]


class Narrow(nn.Module):
    """Has memory for so many tokens at a time, and raises what a GPU raises for more."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.tried: list[int] = []

    def forward(self, features: Features) -> Features:
        """What was given, if there is room."""
        self.tried.append(features["attention_mask"].numel())
        if self.tried[-1] > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return features


def _narrow(model: SentenceTransformer, room: int) -> Narrow:
    narrow = Narrow(room)
    model.add_module("narrow", narrow)
    return narrow


def test_batches_are_halved_until_they_fit(model: SentenceTransformer) -> None:
    """Every row comes back as it would with more memory, in its place."""
    expected = model.encode(TEXTS)
    narrow = _narrow(model, 100)

    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-6)

    assert max(narrow.tried) > 100
    assert narrow.tried[0] > narrow.tried[1]


def test_what_fitted_is_remembered(model: SentenceTransformer) -> None:
    """In later batches, and in later calls, nothing is tried that is known not to fit."""
    narrow = _narrow(model, 100)
    model.encode(TEXTS)
    failures = sum(tokens > 100 for tokens in narrow.tried)
    narrow.tried.clear()

    model.encode(TEXTS)

    assert failures <= 4
    assert max(narrow.tried) <= 100


def test_a_text_that_does_not_fit_alone_is_named(model: SentenceTransformer) -> None:
    """The error says which row it is, and how long; rows that were done lie in the caller's array."""
    limit = model.max_seq_length or 0
    _narrow(model, limit - 1)
    texts = ["a dog", "a dog", *TEXTS[:8], "the cat " * 100, "a dog"]
    out = np.zeros((len(texts), 32), dtype=np.float32)

    with pytest.raises(MemoryError, match=rf"row 10: a text of {limit} tokens does not fit") as caught:
        model.encode(texts, out=out, prompt="")

    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    model.encode(["a dog", "the cat"])  # it is as it was


def test_other_errors_are_not_taken_for_it(model: SentenceTransformer) -> None:
    """Only for want of memory is anything tried again."""

    class Broken(nn.Module):
        calls = 0

        def forward(self, _features: Features) -> Features:
            self.calls += 1
            raise RuntimeError("shapes do not fit")

    broken = Broken()
    model.add_module("broken", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        model.encode(TEXTS)
    assert broken.calls == 1


@pytest.mark.parametrize("room", [40, 64, 200])
def test_a_limit_that_is_set_is_kept(model: SentenceTransformer, room: int) -> None:
    """With ``max_batch_tokens`` no batch has more, packed or padded; the rows are the same."""
    expected = model.encode(TEXTS)
    model.max_batch_tokens = room
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-6)
    narrow = _narrow(model, room)

    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-6)

    assert 0 < max(narrow.tried) <= room


def test_packed_batches_keep_it(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster way asks for the same: no batch takes more, even if it were padded."""
    sizes: list[int] = []
    forward = PackedForward.__call__

    def seen(self: PackedForward, source: Any, rows: Places, least_tokens: int = 0) -> Features:
        sizes.append(len(rows) * int(source.lengths[rows].max()))
        return forward(self, source, rows, least_tokens)

    monkeypatch.setattr(PackedForward, "__call__", seen)
    model.max_batch_tokens = 60

    model.encode(TEXTS)

    assert 0 < max(sizes) <= 60


def test_a_text_longer_than_the_limit_is_named(model: SentenceTransformer) -> None:
    """It is an error that says what may be done, before anything is computed of it."""
    model.max_batch_tokens = 10
    narrow = _narrow(model, 10)

    with pytest.raises(
        MemoryError, match=r"row 1: a text of \d+ tokens is more than .* max_batch_tokens=10: raise it"
    ):
        model.encode(["a dog", "the cat sat on a mat with a small red dog"], prompt="")

    assert all(tokens <= 10 for tokens in narrow.tried)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "64"])
def test_a_limit_is_a_whole_number(model: SentenceTransformer, limit: Any) -> None:
    """Anything else is an error when it is set."""
    with pytest.raises(ValueError, match="max_batch_tokens: expected 1 or more, or None"):
        model.max_batch_tokens = limit


def test_copies_keep_what_was_said() -> None:
    """A copy, and a pickle, has the limit, and tries anew what has failed in this process."""
    budget = TokenBudget(1000)
    budget.has_failed("cuda:0", 64)

    for again in (copy.deepcopy(budget), pickle.loads(pickle.dumps(budget))):  # noqa: S301
        assert (again.most("cuda:0"), budget.most("cuda:0"), budget.most("cpu")) == (1000, 32, 1000)


_REAL = """
import resource, sys
import numpy as np, torch
from torch import nn
from sentence_embedder import SentenceTransformer

class Hungry(nn.Module):
    def forward(self, features):
        torch.zeros(features["attention_mask"].numel(), 500_000)  # two megabytes a token
        return features

torch.set_num_threads(1)
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = [f"the dog number {place}" for place in range(64)]
expected = model.encode(texts)
model.add_module("hungry", Hungry())
model.encode(texts[0])
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 300 * 2**20,) * 2)
np.testing.assert_allclose(model.encode(texts, batch_size=64), expected, atol=1e-6)
print(model._token_budget.most("cpu"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory")
def test_memory_that_is_really_short(tiny_folders: dict[str, Path]) -> None:
    """A process that may have no more memory gets all of its rows, in smaller batches."""
    done = subprocess.run(
        [sys.executable, "-c", _REAL, str(tiny_folders["bert"])], capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) < 64 * 10
