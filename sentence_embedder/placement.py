"""Placement: where the weights of a model belong, and that they are there."""

from __future__ import annotations

import torch
from torch import nn

from sentence_embedder.devices import check_fork, module_device
from sentence_embedder.forks import ProcessLock


class Placement:
    """Knows where a model's weights belong if they are not all there: unloaded, or on their way.

    Threads can share it. A copy or a pickle of its owner starts anew, with the weights where they are.
    """

    def __init__(self) -> None:
        self._lock = ProcessLock()
        self._belongs_on: torch.device | None = None
        self._is_moving = False

    def ready_on(self, model: nn.Module, device: str | torch.device | None) -> torch.device:
        """Bring a model to a device, unless it is there. What fails halfway is gone on with by the next call.

        Args:
            model: The model.
            device: Where it shall be; None for where it belongs.

        Returns:
            Where it is now.

        Raises:
            RuntimeError: This process was forked, and cannot use the device.
        """
        wanted = None if device is None else torch.device(device)
        found = module_device(model)
        if self._belongs_on is None and wanted in (None, found):
            check_fork(found)
            return found
        with self._lock.here():
            target, found = wanted or self._belongs_on, module_device(model)
            if target is None or (self._belongs_on is None and target == found):
                return found  # another thread has brought it there
            check_fork(target)
            self._move(model, target, belongs_on=target)
            self._belongs_on = None
        return module_device(model)

    def unload(self, model: nn.Module) -> None:
        """Bring a model to the CPU until it is needed where it is now."""
        with self._lock.here():
            device = module_device(model)
            if device.type != "cpu":
                self._move(model, torch.device("cpu"), belongs_on=device)

    def forget(self) -> None:
        """Leave the weights where they are: their owner moves them."""
        if not self._is_moving:
            self._belongs_on = None

    def _move(self, model: nn.Module, device: torch.device, *, belongs_on: torch.device) -> None:
        # Said before the first weight moves: other threads wait, and know what is left to do if it fails.
        self._belongs_on, self._is_moving = belongs_on, True
        try:
            model.to(device)
        finally:
            self._is_moving = False

    def __deepcopy__(self, memo: dict[int, object]) -> Placement:
        return Placement()

    def __copy__(self) -> Placement:
        return Placement()

    def __reduce__(self) -> tuple[type[Placement], tuple[()]]:
        return Placement, ()
