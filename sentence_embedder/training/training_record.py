"""TrainingRecord: what came of a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LoggedSteps:
    """Some steps that followed each other.

    Args:
        epoch: The epoch, from 0.
        step: How many steps there had been at their end, over all epochs.
        losses: The mean loss of each objective.
        gradient_norms: The mean length of each objective's gradient, before it was clipped.
        learning_rates: The learning rate of each objective, after the last step.
        seconds_per_step: How long a step took.
    """

    epoch: int
    step: int
    losses: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    learning_rates: tuple[float, ...]
    seconds_per_step: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluator said.

    Args:
        epoch: The epoch, from 0.
        steps: After how many steps of it; -1 at its end.
        step: After how many over all epochs.
        score: The figure that counts.
        metrics: All figures; none from an evaluator that returns one only.
        is_best: Whether no score before was as good.
    """

    epoch: int
    steps: int
    step: int
    score: float
    metrics: Mapping[str, float]
    is_best: bool


@dataclass(kw_only=True)
class TrainingRecord:
    """What came of a training.

    Attributes:
        logs: Losses and the like, every ``log_steps`` steps and at the end of every epoch.
        evaluations: What the evaluator said, in order.
        steps: How many steps there were, over all epochs, those before a checkpoint was resumed included.
        stopped_early: Whether it ended because scores no longer got better.
        model_path: The folder of the model that was saved to ``output_path``, if one was.
        checkpoints: The folders of the checkpoints that are there, the oldest first.
    """

    logs: list[LoggedSteps] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    steps: int = 0
    stopped_early: bool = False
    model_path: str | None = None
    checkpoints: list[str] = field(default_factory=list)

    @property
    def losses(self) -> list[tuple[float, ...]]:
        """The mean losses of the objectives, log by log."""
        return [log.losses for log in self.logs]

    @property
    def scores(self) -> list[float]:
        """The scores, evaluation by evaluation."""
        return [evaluation.score for evaluation in self.evaluations]

    @property
    def best(self) -> Evaluation | None:
        """The evaluation with the best score; None without any."""
        return next((found for found in reversed(self.evaluations) if found.is_best), None)

    @property
    def evaluations_since_best(self) -> int:
        """How many evaluations there were after the best one; several after the same step are one."""
        best = self.best
        return len({found.step for found in self.evaluations if best is None or found.step > best.step})

    def become(self, other: TrainingRecord) -> None:
        """Take over what another one holds."""
        vars(self).update(vars(other))

    def to_dict(self) -> dict[str, Any]:
        """The record as a checkpoint holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TrainingRecord:
        """The record that a checkpoint holds."""
        return cls(
            **{
                **state,
                "logs": [LoggedSteps(**log) for log in state["logs"]],
                "evaluations": [Evaluation(**evaluation) for evaluation in state["evaluations"]],
            }
        )
