"""Randomness: the state of every generator of random numbers that training draws from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Randomness:
    """The states of the generators of torch, numpy and Python, at one moment.

    Args:
        torch_cpu: That of torch on the CPU.
        torch_cuda: Those of the GPUs that this process uses.
        numpy: That of numpy's global generator.
        python: That of the module ``random``.
    """

    torch_cpu: Tensor
    torch_cuda: list[Tensor]
    numpy: tuple[Any, ...]
    python: tuple[Any, ...]

    @classmethod
    def now(cls) -> Randomness:
        """The states now."""
        kind, keys, *rest = np.random.get_state(legacy=True)
        return cls(
            torch_cpu=torch.get_rng_state(),
            torch_cuda=torch.cuda.get_rng_state_all() if _uses_gpus() else [],
            numpy=(kind, np.asarray(keys).tolist(), *rest),
            python=random.getstate(),
        )

    def restore(self) -> None:
        """Go on from these states."""
        torch.set_rng_state(self.torch_cpu)
        if self.torch_cuda:
            torch.cuda.set_rng_state_all(self.torch_cuda)
        kind, keys, *rest = self.numpy
        np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
        random.setstate(self.python)

    def to_state(self) -> dict[str, Any]:
        """The states as a checkpoint holds them."""
        return {name: list(value) if name == "torch_cuda" else value for name, value in asdict(self).items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Randomness:
        """The states that a checkpoint holds."""
        return cls(**state)


def seed_all(seed: int) -> None:
    """Start all generators from a seed."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within this context random numbers start from a seed; afterwards they go on as if none had been drawn."""
    before = Randomness.now()
    seed_all(seed)
    try:
        yield
    finally:
        before.restore()


def _uses_gpus() -> bool:
    cuda: Any = torch.cuda
    return bool(cuda.is_initialized())
