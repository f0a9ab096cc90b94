"""Ranks: the processes that train a model together, started by torchrun; often there is only one."""

from __future__ import annotations

import atexit
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sentence_embedder.training.randomness import seeded

_Result = TypeVar("_Result")

_PATIENCE = timedelta(days=7)
"""How long ranks wait for one that evaluates."""

_BUCKET_VALUES = 2**23

_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # the name since torch 2.13, and before
    if name in inspect.signature(DistributedDataParallel).parameters
)


@dataclass
class Ranks:
    """The processes that train together.

    Args:
        rank: Which of them this is.
        size: How many there are.
        group: Those who wait for each other; None if there is one only.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this one evaluates and writes."""
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """Where this one trains: on its own GPU, if the model is on a GPU."""
        if self.size == 1 or device.type != "cuda":
            return device
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", self.rank % torch.cuda.device_count())))

    def module(self, loss: nn.Module) -> nn.Module:
        """A loss whose gradients are averaged over the ranks as ``backward`` makes them."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in loss.parameters()):
            return loss
        make: Any = DistributedDataParallel
        # Weights that no embedding depends on, a pooler's say, get no gradient.
        return make(loss, find_unused_parameters=True, **{_SYNC_BUFFERS: False})  # type: ignore[no-any-return]

    def equalise(self, module: nn.Module) -> None:
        """Give a module the weights that it has in the first rank; what ``module`` makes does so itself."""
        if self.size > 1:
            for tensor in (*module.parameters(), *module.buffers()):
                distributed.broadcast(tensor.detach(), src=0)

    def apart(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Within this context gradients stay in their ranks."""
        return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients that stayed in their ranks."""
        if self.size == 1:
            return
        has_gradient = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
        distributed.all_reduce(has_gradient, op=distributed.ReduceOp.MAX, group=self.group)
        gradients = []
        for parameter, has in zip(parameters, has_gradient.tolist(), strict=True):
            if has:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            together = torch.cat([gradient.flatten() for gradient in bucket])
            distributed.all_reduce(together)
            together /= self.size
            for gradient, part in zip(
                bucket, torch.split(together, [gradient.numel() for gradient in bucket]), strict=True
            ):
                gradient.copy_(part.view_as(gradient))

    def first_says(self, say: Callable[[], _Result]) -> _Result:
        """What the first rank says, in all of them; an error that it raises is raised in all of them.

        Raises:
            RuntimeError: In the others, if the first one has raised an error.
        """
        if self.size == 1:
            return say()
        said: list[Any] = [None, None]
        failure = None
        if self.is_first:
            try:
                said[0] = say()
            except BaseException as error:  # noqa: BLE001 (it is raised again below)
                failure = error
                said[1] = f"{type(error).__name__}: {error}"
        distributed.broadcast_object_list(said, src=0, group=self.group)
        if failure is not None:
            try:
                raise failure
            finally:
                failure = None  # else it would hold itself, by its frames
        if said[1] is not None:
            raise RuntimeError(f"rank 0 failed: {said[1]}")
        result: _Result = said[0]
        return result

    def all_say(self, word: _Result) -> list[_Result]:
        """What each rank says, in the order of the ranks."""
        words: list[Any] = [word]
        if self.size > 1:
            words = [None] * self.size
            distributed.all_gather_object(words, word, group=self.group)
        return words

    def alike(self) -> AbstractContextManager[None]:
        """Within this context the ranks draw the same random numbers: they must agree on the order of the data."""
        if self.size == 1:
            return nullcontext()
        return seeded(self.first_says(lambda: int(torch.randint(2**31, ()))))


@contextmanager
def joined_ranks(device: torch.device) -> Iterator[Ranks]:
    """The processes that torchrun started, joined if the user has not joined them."""
    is_joined = distributed.is_available() and distributed.is_initialized()
    if not is_joined and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    if not is_joined:
        if device.type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        # Not before: those who part cannot join a second time.
        atexit.register(_part)
    group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
    ranks = Ranks(distributed.get_rank(), distributed.get_world_size(), group)
    try:
        yield ranks
    finally:
        distributed.destroy_process_group(group)
        # Its thread must end before Python does, whoever still holds the ranks.
        ranks.group = group = None


def _part() -> None:
    """Leave the other processes, if the user has not done so."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one format, as many as are exchanged at once."""
    for dtype in sorted({gradient.dtype for gradient in gradients}, key=str):
        bucket: list[Tensor] = []
        for gradient in gradients:
            if gradient.dtype == dtype:
                bucket.append(gradient)
                if sum(part.numel() for part in bucket) > _BUCKET_VALUES:
                    yield bucket
                    bucket = []
        if bucket:
            yield bucket
