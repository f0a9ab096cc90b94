"""Patches: code of others inside a model of transformers."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from operator import attrgetter, is_
from types import FunctionType, MappingProxyType
from typing import Any

from torch import nn

from sentence_embedder.models.stand_ins.model import StandInModel

_LIBRARIES = frozenset({"peft", "sentence_embedder", "torch", "transformers"})
"""Packages whose code is known, or looked at."""


class Methods:
    """The methods that some classes of modules have at a time: the passes that they have or inherit, and all that
    their own bodies define.

    A lone short text waits for a comparison, so no method takes a step of Python.

    Args:
        kinds: The classes.
    """

    def __init__(self, kinds: Iterable[type]) -> None:
        self._kinds = list(dict.fromkeys(kinds))
        self._passes = list(map(_passes_of, self._kinds))
        own = [
            (vars(kind), name)
            for kind in self._kinds
            for name, value in vars(kind).items()
            if isinstance(value, FunctionType | staticmethod | classmethod | property)
        ]
        self._holders = [holder for holder, _ in own]
        self._names = [name for _, name in own]
        self._own = self._present()

    def are_same(self) -> bool:
        """Whether the classes still have these."""
        return list(map(_passes_of, self._kinds)) == self._passes and all(map(is_, self._present(), self._own))

    def are_of_libraries(self) -> bool:
        """Whether the classes, and what they have, are of packages that are known."""
        passes = [method for pair in self._passes for method in pair]
        return all(map(_is_from_library, (*self._kinds, *passes, *map(_function_of, self._own))))

    def _present(self) -> list[Any]:
        return list(map(MappingProxyType.get, self._holders, self._names))


_passes_of = attrgetter("forward", "__call__")

_of_stand_ins: dict[type[StandInModel], Methods] = {}
"""The methods of the classes for which models stand in, as they were when they were of transformers."""


def is_patched(model: nn.Module) -> bool:
    """Whether code of others decides what a model computes: a class, a method put into a class, or an attention
    function that somebody has registered. Of a stand-in: what the model of transformers would compute.

    Args:
        model: A model of transformers, or what stands in for it.
    """
    if not _is_from_library(attention_function_of(model)):
        return True
    if not isinstance(model, StandInModel):
        return not Methods(map(type, model.modules())).are_of_libraries()
    modeling = _modeling_of(model)
    if modeling is None:
        return False
    known = _of_stand_ins.get(type(model))
    if known is not None:
        return not known.are_same()
    found = Methods(
        kind for kind in vars(modeling).values() if isinstance(kind, type) and issubclass(kind, nn.Module)
    )
    is_original = found.are_of_libraries()
    if is_original:
        _of_stand_ins[type(model)] = found
    return not is_original


def attention_function_of(model: nn.Module) -> Any:
    """The function that the attention of a model calls; None if it calls none.

    Args:
        model: A model of transformers, or what stands in for it.
    """
    modeling = _modeling_of(model)
    name = getattr(model.config, "_attn_implementation", "sdpa")
    if name in (None, "eager"):
        return getattr(modeling, "eager_attention_forward", None)
    # Where the file of the model is not imported, its attention is that of all.
    home = sys.modules.get("transformers.modeling_utils") if modeling is None else modeling
    functions = getattr(home, "ALL_ATTENTION_FUNCTIONS", None)
    return None if functions is None else functions.get(name)


def _modeling_of(model: nn.Module) -> Any:
    """The file of transformers that a model is from; None if it has not been imported."""
    return sys.modules.get(model.modeling if isinstance(model, StandInModel) else type(model).__module__)


def _function_of(method: Any) -> Any:
    """The function in what a class body defines."""
    return method.fget if isinstance(method, property) else getattr(method, "__func__", method)


def _is_from_library(code: Any) -> bool:
    """Whether a class or function is of a known package; None is."""
    if code is None:
        return True
    # What a decorator has made says of itself that it is from where the function is that it was made of.
    home = code.__globals__.get("__name__") if hasattr(code, "__globals__") else getattr(code, "__module__", None)
    return str(home).partition(".")[0] in _LIBRARIES
