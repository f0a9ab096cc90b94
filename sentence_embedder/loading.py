"""Loading: one thread at a time, and to the end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from sentence_embedder.forks import ProcessLock
from sentence_embedder.uninterrupted import uninterrupted

_Arguments = ParamSpec("_Arguments")
_Loaded = TypeVar("_Loaded")

_loading = ProcessLock()


def one_at_a_time() -> AbstractContextManager[Any]:
    """Within this context no other thread loads a model.

    What transformers does meanwhile concerns the whole process: while it is imported it lacks names, and while it
    makes a model in halves every tensor is made so.
    """
    return _loading.here()


def undisturbed(load: Callable[[], _Loaded]) -> _Loaded:
    """Load something while no other thread loads, to the end, whatever Ctrl-C comes meanwhile.

    Args:
        load: Loads it.
    """

    def locked() -> _Loaded:
        with one_at_a_time():
            return load()

    return uninterrupted(locked)


def loads_undisturbed(load: Callable[_Arguments, _Loaded]) -> Callable[_Arguments, _Loaded]:
    """Let a function do what it does as ``undisturbed`` says."""

    @wraps(load)
    def load_undisturbed(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Loaded:
        return undisturbed(lambda: load(*args, **kwargs))

    return load_undisturbed
