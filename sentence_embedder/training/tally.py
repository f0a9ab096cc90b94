"""Tally: losses and the like of the steps since the last log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sentence_embedder.training.training_record import LoggedSteps


class Tally:
    """What there was since the last log.

    Args:
        objectives: How many objectives there are.
    """

    def __init__(self, objectives: int) -> None:
        self.steps = 0
        self._losses = [0.0] * objectives
        self._lengths = [0.0] * objectives
        self._seconds = 0.0

    def add(self, found: Sequence[tuple[float, float]], seconds: float) -> None:
        """Count a step: the loss of each objective and the length of its gradient, and how long it took."""
        self.steps += 1
        self._seconds += seconds
        self._losses = [total + loss for total, (loss, _) in zip(self._losses, found, strict=True)]
        self._lengths = [total + length for total, (_, length) in zip(self._lengths, found, strict=True)]

    def logged(self, epoch: int, step: int, learning_rates: Sequence[float]) -> LoggedSteps:
        """The means."""
        return LoggedSteps(
            epoch=epoch,
            step=step,
            losses=tuple(loss / self.steps for loss in self._losses),
            gradient_norms=tuple(length / self.steps for length in self._lengths),
            learning_rates=tuple(learning_rates),
            seconds_per_step=self._seconds / self.steps,
        )

    def to_dict(self) -> dict[str, Any]:
        """The tally as a checkpoint holds it."""
        return {
            "steps": self.steps,
            "losses": self._losses,
            "lengths": self._lengths,
            "seconds": self._seconds,
        }

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Tally:
        """The tally that a checkpoint holds."""
        tally = cls(len(state["losses"]))
        tally.steps = state["steps"]
        tally._losses = list(state["losses"])
        tally._lengths = list(state["lengths"])
        tally._seconds = state["seconds"]
        return tally
