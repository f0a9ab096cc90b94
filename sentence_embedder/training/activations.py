"""Activations: what transformers keep for the way back, or compute again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def recomputed_activations(model: nn.Module) -> Iterator[None]:
    """Within this context the transformers of a model compute activations a second time instead of keeping them.

    See Chen et al. 2016, https://arxiv.org/abs/1604.06174. Those that do so already go on with it afterwards.

    Raises:
        ValueError: There is no transformer in the model that can.
    """
    able = list(_outermost_able(model))
    if not able:
        raise ValueError("gradient_checkpointing: expected a Transformer that can, found none in the model")
    keeping = [module for module in able if not any(map(_is_recomputing, module.modules()))]
    try:
        for module in keeping:
            # Before transformers 5.23 it has another name.
            enable = (
                getattr(module, "activation_checkpointing_enable", None) or module.gradient_checkpointing_enable
            )
            enable()
        yield
    finally:
        for module in keeping:
            disable = getattr(module, "activation_checkpointing_disable", None)
            (disable or module.gradient_checkpointing_disable)()
            # It leaves a hook behind, which is of use with frozen weights only.
            module.disable_input_require_grads()


def _outermost_able(module: Any) -> Iterator[Any]:
    """The modules that can, those inside of others aside."""
    if getattr(module, "supports_gradient_checkpointing", False):
        yield module
        return
    for child in module.children():
        yield from _outermost_able(child)


def _is_recomputing(module: Any) -> bool:
    return bool(getattr(module, "gradient_checkpointing", False))
