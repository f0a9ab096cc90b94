"""Patches: code of others inside a model of transformers."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from torch import nn

from sentence_embedder.models.stand_ins.model import StandInModel

_LIBRARIES = frozenset({"peft", "sentence_embedder", "torch", "transformers"})
"""Packages whose code is known, or looked at."""


def is_patched(model: nn.Module) -> bool:
    """Whether code of others decides what a model computes: that of a class, of a method put into a class, or of an
    attention function that somebody has registered. Of a stand-in: what the model of transformers would compute.

    Args:
        model: A model of transformers, or what stands in for it.
    """
    return not all(map(_is_original, _classes_of(model))) or not _is_from_library(attention_function_of(model))


def attention_function_of(model: nn.Module) -> Any:
    """The function that the attention of a model calls; None if it calls none.

    Args:
        model: A model of transformers, or what stands in for it.
    """
    modeling = _modeling_of(model)
    name = getattr(model.config, "_attn_implementation", "sdpa")
    if name in (None, "eager"):
        return getattr(modeling, "eager_attention_forward", None)
    functions = getattr(modeling, "ALL_ATTENTION_FUNCTIONS", None)
    return None if functions is None else functions.get(name)


def _modeling_of(model: nn.Module) -> Any:
    """The file of transformers that a model is from; None if it has not been imported."""
    return sys.modules.get(model.modeling if isinstance(model, StandInModel) else type(model).__module__)


def _classes_of(model: nn.Module) -> Iterable[type]:
    if not isinstance(model, StandInModel):
        return dict.fromkeys(map(type, model.modules()))
    modeling = _modeling_of(model)
    values = () if modeling is None else vars(modeling).values()
    return [value for value in values if isinstance(value, type) and issubclass(value, nn.Module)]


def _is_original(kind: Any) -> bool:
    return all(map(_is_from_library, (kind, kind.forward, kind.__call__)))


def _is_from_library(code: Any) -> bool:
    """Whether a class or function is of a known package; None is."""
    if code is None:
        return True
    # What a decorator has made says of itself that it is from where the function is that it was made of.
    home = code.__globals__.get("__name__") if hasattr(code, "__globals__") else getattr(code, "__module__", None)
    return str(home).partition(".")[0] in _LIBRARIES
