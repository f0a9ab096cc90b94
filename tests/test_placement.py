"""Placement: weights are where they belong, whoever else brings them there, and whatever failed before."""

from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sentence_embedder import SentenceTransformer
from sentence_embedder.placement import Placement
from tests.crowd import in_threads

GPU = torch.device("meta")
"""What stands for one: a device that any machine has."""


class Slow(nn.Module):
    """Two weights that move one after the other, or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.empty(1), torch.empty(1)])
        self.moves = 0
        self.fails = False

    @property
    def devices(self) -> list[torch.device]:
        """Where each is."""
        return [weight.device for weight in self.weights]

    def to(self, device: Any) -> Slow:  # type: ignore[override]
        """Move the weights."""
        self.moves += 1
        for place in range(2):
            self.weights[place] = torch.empty(1, device=device)
            time.sleep(0.02)
            if self.fails:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return self


def test_where_it_is_already() -> None:
    """Nothing moves, whether it is asked for or not."""
    model, placement = Slow(), Placement()

    placement.ready_on(model, None)
    placement.ready_on(model, "cpu")

    assert model.moves == 0


@pytest.mark.parametrize("device", [None, GPU])
def test_threads_find_all_weights_in_one_place(device: torch.device | None) -> None:
    """Those that come while the weights are on their way wait; they are moved once."""
    model, placement = Slow(), Placement()
    placement.ready_on(model, GPU)
    placement.unload(model)
    assert model.devices == [torch.device("cpu")] * 2
    found = []

    def come(number: int) -> None:
        time.sleep(0.01 * number)
        placement.ready_on(model, device)
        found.append(list(model.devices))

    in_threads(6, come)

    assert found == [[GPU] * 2] * 6
    assert model.moves == 3


def test_what_failed_halfway_is_gone_on_with() -> None:
    """The next call moves what is left, though the first weight is there already."""
    model, placement = Slow(), Placement()
    model.fails = True
    with pytest.raises(torch.OutOfMemoryError):
        placement.ready_on(model, GPU)
    assert model.devices[0] != model.devices[1]
    model.fails = False

    placement.ready_on(model, None)

    assert model.devices == [GPU] * 2


def test_copies_begin_where_they_are() -> None:
    """What was unloaded is unloaded for itself alone: another machine may have no such device."""
    model, placement = Slow(), Placement()
    placement.ready_on(model, GPU)
    placement.unload(model)

    for other in (copy.copy(placement), copy.deepcopy(placement), pickle.loads(pickle.dumps(placement))):  # noqa: S301
        other.ready_on(model, None)

    assert model.devices == [torch.device("cpu")] * 2


@pytest.mark.parametrize("move", ["to", "cpu", "cuda"])
def test_an_owner_who_moves_it_is_obeyed(
    move: str, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a model is brought after it was unloaded, there it stays."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    model._placement._belongs_on = GPU
    monkeypatch.setattr(nn.Module, "cuda", lambda self, _device: self)

    getattr(model, move)(*["cpu"] * (move == "to"))

    assert model.encode("the cat").shape == (32,)
    assert model.device.type == "cpu"
