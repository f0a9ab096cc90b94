"""The hidden states of all layers of a model of transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def recording_layers(model: torch.nn.Module) -> Iterator[list[Sequence[torch.Tensor]]]:
    """Let a model of transformers give the hidden states of all its layers as long as this is open.

    Yields:
        A list that gets the hidden states of each forward pass: what goes into the first layer, and what comes out
        of each.
    """
    recorded: list[Sequence[torch.Tensor]] = []

    def ask(_: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "output_hidden_states": True}

    # When it is asked for the first time, transformers puts hooks at the layers, which it leaves there: with them a
    # model is neither pickled nor accelerated.
    before = {part: (set(part._forward_hooks), _HOOKED in vars(part)) for part in model.modules()}
    asking = model.register_forward_pre_hook(ask, with_kwargs=True)
    taking = model.register_forward_hook(lambda _, __, output: recorded.append(output.hidden_states))
    try:
        yield recorded
    finally:
        asking.remove()
        taking.remove()
        for part, (own, was_hooked) in before.items():
            for hook in part._forward_hooks.keys() - own:
                del part._forward_hooks[hook]
            if not was_hooked:
                vars(part).pop(_HOOKED, None)


_HOOKED = "_output_capturing_hooks_installed"
"""What transformers calls the mark of a model at whose layers it has put hooks."""
