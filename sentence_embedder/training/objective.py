"""Objective: a loss, the data that it is computed on, and what its gradients do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sentence_embedder.acceleration.trained_linear import quick_products
from sentence_embedder.loaders import Batch, Collation, batch_to
from sentence_embedder.losses.gradient_cache import check_joint, joint_loss
from sentence_embedder.training.data import Data
from sentence_embedder.training.plan import TrainingPlan
from sentence_embedder.training.ranks import Ranks
from sentence_embedder.training.schedules import scheduler_for

_WITHOUT_DECAY = ("bias", "LayerNorm.weight")
"""Parameters with one of these in their names are not drawn towards zero."""

_FUSED_ON = ("cpu", "cuda")


class Objective:
    """A loss, the data that it is computed on, its optimizer and the schedule of that.

    Args:
        number: Which of the objectives it is, from 0.
        given: What the user gave: a loader, and the loss.
        collation: What makes batches of what the loader yields.
        plan: How it is trained.
        ranks: The processes that train together.

    Raises:
        ValueError: The plan does not fit.
    """

    def __init__(
        self, number: int, given: tuple[Any, nn.Module], collation: Collation, plan: TrainingPlan, ranks: Ranks
    ) -> None:
        loader, self.loss = given
        self.name = f"objective {number} ({type(self.loss).__name__})"
        self._plan = plan
        self._ranks = ranks
        self._data = Data(loader, collation, ranks, self.name)
        self.parameters = list(self.loss.parameters())
        self._joined = 1 if plan.effective_batch_size is None else self._batches_to_join(plan.effective_batch_size)
        self._is_cached = self._joined > 1 or bool(getattr(self.loss, "is_cached", False))
        self._module = self.loss if self._is_cached else ranks.module(self.loss)
        if self._is_cached:
            ranks.equalise(self.loss)
        # What is computed a second time on the way back must be computed alike, and is not within the context.
        self._is_quick = not any(getattr(module, "gradient_checkpointing", False) for module in self.loss.modules())
        self.optimizer = _optimizer(self.loss, plan)
        self.scheduler: Any = None

    def _batches_to_join(self, rows: int) -> int:
        check_joint(self.loss)
        size = self._data.batch_size
        if size is None:
            raise ValueError(f"{self.name}: effective_batch_size: expected a loader with a batch_size")
        if rows % size:
            raise ValueError(
                f"{self.name}: effective_batch_size: expected a multiple of the loader's batch size, {size}, found "
                f"{rows}"
            )
        return rows // size

    @property
    def steps(self) -> int:
        """How many steps take all its data."""
        return max(1, len(self._data) // (self._joined * self._plan.gradient_accumulation_steps))

    def schedule(self, total_steps: int) -> None:
        """Set the schedule for so many steps."""
        self.scheduler = scheduler_for(
            self._plan.scheduler,
            self.optimizer,
            warmup_steps=self._plan.warmup_steps,
            total_steps=total_steps,
        )

    def begin(self) -> None:
        """Start to take batches."""
        self._data.begin()

    @property
    def learning_rate(self) -> float:
        """The learning rate now."""
        return float(self.optimizer.param_groups[0]["lr"])

    def backward(self, device: torch.device, scaler: torch.amp.GradScaler) -> Tensor:
        """Bring the gradients of the next batches to the parameters.

        Args:
            device: Where it is computed.
            scaler: What keeps small gradients from getting lost.

        Returns:
            The loss, a scalar without a graph.
        """
        times = self._plan.gradient_accumulation_steps
        dtype = self._plan.amp_dtype_on(device)
        total = torch.zeros((), device=device)
        for number in range(1, times + 1):
            batches = [batch_to(next(self._data), device) for _ in range(self._joined)]
            exchange = self._ranks.apart(self._module) if number < times else nullcontext()
            with exchange, quick_products(device) if self._is_quick else nullcontext():
                with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                    loss = self._loss_of(batches) / times
                scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if self._is_cached:
            self._ranks.average(self.parameters)
        return total

    def _loss_of(self, batches: Sequence[Batch]) -> Tensor:
        if self._joined > 1:
            return joint_loss(self.loss, batches)  # type: ignore[arg-type]
        found = self._module(*batches[0])
        whole: Tensor = sum(found.values()) if isinstance(found, Mapping) else found  # type: ignore[assignment]
        return whole.reshape(())

    def state_dict(self) -> dict[str, Any]:
        """What goes on where it was, the weights aside."""
        parts = {"optimizer": self.optimizer, "scheduler": self.scheduler, "data": self._data}
        states: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        return {**states, "optimizer_class": type(self.optimizer).__name__}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where it was; random numbers are left anywhere.

        Raises:
            ValueError: It was another optimizer, or there is less data.
        """
        own, found = type(self.optimizer).__name__, state["optimizer_class"]
        if own != found:
            raise ValueError(f"{self.name}: optimizer_class: expected that of the checkpoint, {found}, found {own}")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self._data.load_state_dict(state["data"])


def _optimizer(loss: nn.Module, plan: TrainingPlan) -> Optimizer:
    """The optimizer of a loss's parameters, in two groups: with weight decay, and without."""
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in loss.named_parameters():
        groups[not any(part in name for part in _WITHOUT_DECAY)].append(parameter)
    arguments = dict(plan.optimizer_params)
    is_stock = plan.optimizer_class in (torch.optim.AdamW, torch.optim.Adam)
    if is_stock and not {"fused", "foreach", "capturable", "differentiable"} & arguments.keys():
        arguments["fused"] = all(
            parameter.device.type in _FUSED_ON and parameter.is_floating_point() for parameter in loss.parameters()
        )
    made: Any = plan.optimizer_class
    optimizer: Optimizer = made(
        [
            {"params": groups[True], "weight_decay": plan.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        **arguments,
    )
    return optimizer
