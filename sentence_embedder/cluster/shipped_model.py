"""ShippedModel: a model in the object store of a cluster, and what an actor makes of it."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn


def connected_ray() -> Any:
    """Ray, connected to a cluster: the one that this process has, or one on this machine, which is then started.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("expected the package ray: pip install 'sentence-embedder[ray]'") from error
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False)
    return ray


@dataclass(frozen=True)
class Resources:
    """What each actor has to itself.

    Args:
        num_cpus: Cores, which are also its threads.
        num_gpus: GPUs, or a share of one.
    """

    num_cpus: float = 1
    num_gpus: float = 0

    def room(self) -> int:
        """How many such actors the cluster has room for at present, one at least."""
        there = connected_ray().cluster_resources()
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus}
        counts = [int(there.get(kind, 0) / amount) for kind, amount in wanted.items() if amount]
        return max(1, min(counts, default=1))


@dataclass(frozen=True)
class ShippedModel:
    """A model as actors get it: once a machine, by the object store.

    Args:
        content: What ``torch.save`` wrote, a reference to an array of bytes.
        resources: What an actor has to itself.
    """

    content: Any
    resources: Resources

    @staticmethod
    def of(model: nn.Module, resources: Resources) -> ShippedModel:
        """Put a model, which stays as it is, into the object store."""
        written = io.BytesIO()
        torch.save(model, written)
        return ShippedModel(connected_ray().put(np.frombuffer(written.getbuffer(), dtype=np.uint8)), resources)

    def loaded(self) -> Any:
        """The model, in the process of an actor, with its share of the machine."""
        torch.set_num_threads(max(1, math.floor(self.resources.num_cpus)))
        device = "cuda" if self.resources.num_gpus else "cpu"
        content: Any = connected_ray().get(self.content)
        # Written by the process that started this actor.
        return torch.load(io.BytesIO(content.data), map_location=device, weights_only=False)
