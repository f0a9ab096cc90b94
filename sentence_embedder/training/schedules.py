"""Schedules: how the learning rate goes up and down, by the names that ``fit`` knows."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from sentence_embedder.uninterrupted import uninterrupted

SCHEDULERS = ("constantlr", "warmupconstant", "warmuplinear", "warmupcosine", "warmupcosinewithhardrestarts")
"""Names of schedules, in any case: a rate that stays; one that rises first and stays then; one that falls again, in
a line, along a cosine, or along one that starts anew.
"""


def check_scheduler(name: str) -> None:
    """Raise a ValueError for a schedule that does not exist."""
    if name.lower() not in SCHEDULERS:
        raise ValueError(f"scheduler: expected one of {list(SCHEDULERS)}, in any case, found {name!r}")


def scheduler_for(name: str, optimizer: Optimizer, *, warmup_steps: int, total_steps: int) -> LambdaLR:
    """The schedule of an optimizer.

    Args:
        name: One of ``SCHEDULERS``, in any case.
        optimizer: The optimizer.
        warmup_steps: During how many steps the rate rises from 0.
        total_steps: After how many the training ends.
    """
    check_scheduler(name)
    # Takes long, and who only encodes need not pay for it.
    uninterrupted(lambda: import_module("transformers.optimization"))
    from transformers import optimization

    schedules: Any = optimization
    match name.lower():
        case "constantlr":
            made = schedules.get_constant_schedule(optimizer)
        case "warmupconstant":
            made = schedules.get_constant_schedule_with_warmup(optimizer, warmup_steps)
        case "warmuplinear":
            made = schedules.get_linear_schedule_with_warmup(optimizer, warmup_steps, total_steps)
        case "warmupcosine":
            made = schedules.get_cosine_schedule_with_warmup(optimizer, warmup_steps, total_steps)
        case _:
            with_restarts = schedules.get_cosine_with_hard_restarts_schedule_with_warmup
            made = with_restarts(optimizer, warmup_steps, total_steps)
    schedule: LambdaLR = made
    return schedule
