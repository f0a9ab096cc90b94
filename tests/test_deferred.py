"""Modules that are loaded when somebody looks at them."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn

from sentence_embedder.deferred import (
    Deferred,
    Pending,
    is_deferred_inside,
    is_training,
    loaded,
    modules_seen,
    pending_of,
    seen,
    state_seen,
)


class Loads:
    """Loads a small module, and counts how often it did."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _: nn.Module) -> nn.Module:
        """The module."""
        self.count += 1
        return nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval()


def _deferred() -> tuple[nn.Module, Loads]:
    loads = Loads()
    return Deferred(Pending(nn.Identity(), loads)), loads


LOOKS: dict[str, Callable[[Any], object]] = {
    "attribute": lambda module: module.get_parameter("0.weight"),
    "call": lambda module: module(torch.zeros(1, 2)),
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "dict": vars,
    "dir": dir,
    "hook": lambda module: module.register_forward_hook(lambda *_: None),
    "missing attribute": lambda module: getattr(module, "no such", None),
    "modules": lambda module: list(module.modules()),
    "parameters": lambda module: list(module.parameters()),
    "pickle": pickle.dumps,
    "repr": repr,
    "set": lambda module: setattr(module, "name", 1),
    "state": lambda module: module.state_dict(),
    "to": lambda module: module.to(torch.float64),
    "train": lambda module: module.train(),
}


@pytest.mark.parametrize("look", LOOKS)
def test_it_becomes_the_module(look: str) -> None:
    """Whatever is asked of it, it is the module that answers, which it is from then on."""
    module, loads = _deferred()

    LOOKS[look](module)

    assert type(module) is nn.Sequential
    assert [type(part) for part in module.children()] == [nn.Linear, nn.ReLU]
    assert seen(module) is module
    assert loads.count == 1


QUESTIONS: dict[str, Callable[[nn.Module], object]] = {
    "apply": lambda holder: holder.apply(lambda _: None),
    "cast": lambda holder: holder.half(),
    "modules": lambda holder: list(holder.modules()),
    "names": lambda holder: next(iter(holder.named_children()))[1].get_parameter("0.weight"),
    "parameters": lambda holder: list(holder.parameters()),
    "repr": repr,
    "state": lambda holder: holder.state_dict(),
    "to": lambda holder: holder.to(torch.float64),
    "train": lambda holder: holder.train(),
    "zero": lambda holder: holder.zero_grad(),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_what_holds_it_is_never_without_its_weights(question: str) -> None:
    """Whatever a module is asked that holds one, it answers with the weights."""
    holder, (module, loads) = nn.Module(), _deferred()
    holder._modules["part"] = module

    QUESTIONS[question](holder)

    assert type(module) is nn.Sequential
    assert len(list(holder.parameters())) == 2
    assert loads.count == 1


def test_its_class() -> None:
    """isinstance knows it at the first question."""
    module, loads = _deferred()

    assert isinstance(module, nn.Sequential)
    assert isinstance(module, nn.Sequential)
    assert not isinstance(module, nn.Linear)
    assert module.get_parameter("0.weight").shape == (3, 2)
    assert loads.count == 1


def test_modules_of_others() -> None:
    """A module that has attributes of the same names, or is compiled, is seen as it is."""
    other = nn.Identity().eval()
    other.pending = [1]  # type: ignore[assignment]
    with warnings.catch_warnings():
        for deprecated in (DeprecationWarning, FutureWarning):  # from torch 2.15 on the latter
            warnings.simplefilter("ignore", deprecated)
        compiled = torch.jit.trace(nn.Sequential(nn.Linear(2, 2)).eval(), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
    holder = nn.Sequential(other, compiled).eval()

    assert not is_training(holder)
    assert seen(other) is other
    assert len(list(modules_seen(holder))) == 4
    assert not is_deferred_inside(holder)


def test_its_state_is_seen() -> None:
    """The state of what holds it is that of ``state_dict``, with what its stand-in has; nothing is loaded."""
    holder, part = nn.Module(), nn.BatchNorm1d(3)
    loads = Loads()
    holder.scale = nn.Parameter(torch.ones(2))
    holder.register_buffer("kept", torch.ones(1))
    holder.register_buffer("passing", torch.ones(1), persistent=False)
    holder.register_buffer("none", None)
    holder._modules["part"] = Deferred(Pending(part, loads))
    holder.rest = nn.Sequential(nn.Linear(2, 3))
    known = copy.copy(holder)
    known._modules = {**holder._modules, "part": part}
    expected = known.state_dict(prefix="model.")

    found = dict(state_seen(holder, "model."))

    assert list(found) == list(expected)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert loads.count == 0
    assert dict(state_seen(known)).keys() == known.state_dict().keys()


def _without_bias(_: nn.Module, state: dict[str, Any], prefix: str, __: object) -> None:
    del state[f"{prefix}part.0.bias"]


@pytest.mark.parametrize("way", ["extra state", "hook"])
def test_a_state_of_somebodys_own(way: str) -> None:
    """What says itself what its state is, is asked, for which what is deferred is loaded."""

    class Extra(nn.Module):
        def get_extra_state(self) -> Any:
            return {"version": 1}

    holder, (module, loads) = Extra() if way == "extra state" else nn.Module(), _deferred()
    holder._modules["part"] = module
    if way == "hook":
        holder.register_state_dict_post_hook(_without_bias)  # type: ignore[no-untyped-call]

    found = list(state_seen(holder))

    assert [name for name, _ in found] == list(holder.state_dict())
    assert loads.count == 1


def test_what_does_not_load_it() -> None:
    """It is in evaluation mode already; and what can be seen of it, in what holds it too, is its stand-in."""
    holder, (module, loads) = nn.Module(), _deferred()
    holder._modules["part"] = module

    holder.eval()

    assert not is_training(holder)
    assert is_deferred_inside(holder)
    assert type(seen(module)) is nn.Identity
    assert [type(part) for part in modules_seen(holder)] == [nn.Module, nn.Identity]
    assert loads.count == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pending: pickle.loads(pickle.dumps(pending))])  # noqa: S301
def test_what_is_pending_can_be_copied(copied: Callable[[Pending], Pending]) -> None:
    """Of a copy of what becomes of it another can be made."""
    module, loads = _deferred()
    pending = pending_of(module)
    assert pending is not None

    twin = Deferred(copied(pending))

    assert loads.count == 0
    assert type(seen(twin)) is nn.Identity
    assert twin.get_parameter("0.weight").shape == module.get_parameter("0.weight").shape
    assert pending_of(module) is None


def test_threads_load_it_once() -> None:
    """Threads that look at the same time find the same module, loaded once."""
    module, loads = _deferred()
    barrier = threading.Barrier(8)

    def weight(_: int) -> torch.Tensor:
        barrier.wait()
        return module.get_parameter("0.weight")

    with ThreadPoolExecutor(8) as threads:
        weights = {id(found) for found in threads.map(weight, range(8))}

    assert weights == {id(loaded(module).get_parameter("0.weight"))}
    assert loads.count == 1


def test_what_fails_can_be_tried_again() -> None:
    """An error while it is loaded reaches who looks; it stays deferred, and the next look loads it."""
    errors = [OSError("the disk is gone")]

    def load(_: nn.Module) -> nn.Module:
        if errors:
            raise errors.pop()
        return nn.Linear(2, 3)

    module: Any = Deferred(Pending(nn.Identity(), load))

    with pytest.raises(OSError, match="the disk is gone"):
        list(module.parameters())
    assert type(seen(module)) is nn.Identity
    assert module.out_features == 3


def test_the_mode_of_who_looks_leaves_no_mark() -> None:
    """Weights that are loaded in inference mode, or for another device, can be trained as any others."""
    module, _ = _deferred()

    with torch.inference_mode(), torch.device("meta"):
        weight = module.get_parameter("0.weight")

    assert weight.requires_grad
    assert not weight.is_inference()
    assert weight.device.type == "cpu"
