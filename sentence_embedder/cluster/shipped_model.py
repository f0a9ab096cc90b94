"""ShippedModel: a model in the object store of a cluster, and what an actor makes of it."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from sentence_embedder.forks import ProcessLock

_connecting = ProcessLock()


def connected_ray() -> Any:
    """Ray, connected to a cluster: the one that this process has, or one on this machine, which is then started.

    Raises:
        ImportError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("expected the package ray: pip install 'sentence-embedder[ray]'") from error
    with _connecting.here():
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
        """How many such actors the machines of the cluster have room for, if nothing else runs there.

        Raises:
            ValueError: None of them has room for one.
        """
        machines = [node["Resources"] for node in connected_ray().nodes() if node["Alive"]]
        wanted = {kind: amount for kind, amount in (("CPU", self.num_cpus), ("GPU", self.num_gpus)) if amount}
        count = sum(min(int(machine.get(kind, 0) / wanted[kind]) for kind in wanted) for machine in machines)
        if count < 1:
            raise ValueError(
                f"expected a machine with {wanted} in the cluster, found {len(machines)} without; if more are "
                "started when they are asked for, say how many actors there are to be"
            )
        return count


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
        threads = max(1, math.floor(self.resources.num_cpus))
        torch.set_num_threads(threads)
        os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # the tokenizer's
        device = "cuda" if self.resources.num_gpus else "cpu"
        content: Any = connected_ray().get(self.content)
        # Written by the process that started this actor.
        return torch.load(io.BytesIO(content.data), map_location=device, weights_only=False)
