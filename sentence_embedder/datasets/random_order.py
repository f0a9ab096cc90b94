"""Random order, all of it from torch's global random generator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

T = TypeVar("T")


def new_generator() -> torch.Generator:
    """A generator that is seeded from the global one, and from then on is disturbed by nothing that others draw."""
    seed = int(torch.empty((), dtype=torch.int64).random_())
    return torch.Generator().manual_seed(seed)


def shuffled(items: Sequence[T], generator: torch.Generator | None = None) -> list[T]:
    """The items in random order; without a generator it is drawn from the global one."""
    return [items[place] for place in torch.randperm(len(items), generator=generator).tolist()]
