"""Tally: losses and the like of the steps since the last log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sentence_embedder.training.training_record import LoggedSteps


@dataclass
class Tally:
    """What there was since the last log.

    Args:
        losses: The sum of each objective's losses.
        lengths: The sum of the lengths of its gradients.
        steps: How many steps there were.
        seconds: How long they took.
    """

    losses: list[float]
    lengths: list[float]
    steps: int = 0
    seconds: float = 0.0

    @classmethod
    def empty(cls, objectives: int) -> Tally:
        """That of so many objectives, without steps."""
        return cls([0.0] * objectives, [0.0] * objectives)

    def add(self, found: Sequence[tuple[float, float]], seconds: float) -> None:
        """Count a step: the loss of each objective and the length of its gradient, and how long it took."""
        self.steps += 1
        self.seconds += seconds
        self.losses = [total + loss for total, (loss, _) in zip(self.losses, found, strict=True)]
        self.lengths = [total + length for total, (_, length) in zip(self.lengths, found, strict=True)]

    def logged(self, epoch: int, step: int, learning_rates: Sequence[float]) -> LoggedSteps:
        """The means."""
        return LoggedSteps(
            epoch=epoch,
            step=step,
            losses=tuple(loss / self.steps for loss in self.losses),
            gradient_norms=tuple(length / self.steps for length in self.lengths),
            learning_rates=tuple(learning_rates),
            seconds_per_step=self.seconds / self.steps,
        )

    def to_dict(self) -> dict[str, Any]:
        """The tally as a checkpoint holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Tally:
        """The tally that a checkpoint holds."""
        return cls(**state)
