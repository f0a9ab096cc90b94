"""The loop: one step of each objective in turn, until there are as many as were asked for."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sentence_embedder.evaluation.sentence_evaluator import primary_figure
from sentence_embedder.grad_mode import grad_mode_kept
from sentence_embedder.loaders import Collation
from sentence_embedder.models.module import check_module
from sentence_embedder.progress import Progress, progress_bar
from sentence_embedder.training.activations import recomputed_activations
from sentence_embedder.training.checkpoints import Checkpoints
from sentence_embedder.training.objective import Objective
from sentence_embedder.training.plan import TrainingPlan
from sentence_embedder.training.randomness import Randomness, seed_all
from sentence_embedder.training.ranks import Ranks, joined_ranks
from sentence_embedder.training.tally import Tally
from sentence_embedder.training.training_record import Evaluation, LoggedSteps, TrainingRecord
from sentence_embedder.training.weights import put_weights, weights_of

logger = logging.getLogger(__name__)

Evaluator = Callable[..., Any]
Callback = Callable[[float, int, int], Any]
OnLog = Callable[[LoggedSteps], Any]

_NO_SCORE = -9999999
"""What ``best_score`` of a model is before there is a score, as in sentence-transformers."""

_STATE_FORMAT = 1

_LEAST_SCALE = 2.0**-10
"""Gradients that overflow even so are not those of a loss that is too large."""


class TrainingError(RuntimeError):
    """Training cannot go on.

    Attributes:
        step: The step that failed, counted from 1 over all epochs. The weights are those before the part of it that
            is the objective's.
        checkpoint: The last checkpoint, if there is one.
    """

    def __init__(self, message: str, *, step: int, checkpoint: str | None) -> None:
        remedy = f"The last checkpoint is {checkpoint}" if checkpoint else "There is no checkpoint"
        super().__init__(f"{message}. The weights are those before it. {remedy}")
        self._message = message
        self.step = step
        self.checkpoint = checkpoint

    def __reduce__(self) -> tuple[Callable[..., TrainingError], tuple[str]]:
        return partial(TrainingError, step=self.step, checkpoint=self.checkpoint), (self._message,)


def train(
    model: Any,
    objectives: Sequence[tuple[Any, nn.Module]],
    plan: TrainingPlan,
    *,
    evaluator: Evaluator | None = None,
    callback: Callback | None = None,
    on_log: OnLog | None = None,
    record: TrainingRecord | None = None,
) -> TrainingRecord:
    """Train a model; see ``SentenceTransformer.fit``.

    Args:
        model: The model, a SentenceTransformer.
        objectives: Loaders and losses.
        plan: How it is trained.
        evaluator: What judges the model.
        callback: Called after each judgement with the score, the epoch and the steps of it.
        on_log: Called with what is logged.
        record: Takes what comes of it, step by step; by default a new one, which is returned.
    """
    if not objectives:
        raise ValueError("train_objectives: expected at least one pair of a loader and a loss, found none")
    with grad_mode_kept(), torch.enable_grad(), joined_ranks(model.device) as ranks:
        device = ranks.device(model.device)
        model.to(device)
        for _, loss in objectives:
            loss.to(device)
        if plan.seed is not None:
            seed_all(plan.seed + ranks.rank)
        with recomputed_activations(model) if plan.gradient_checkpointing else nullcontext():
            record = TrainingRecord() if record is None else record
            training = Training(model, objectives, plan, ranks, evaluator, callback, on_log, record)
            try:
                return training.run()
            finally:
                training.rest()


class Training:
    """A training on its way.

    Args:
        model: The model, on its device.
        objectives: Loaders and losses.
        plan: How it is trained.
        ranks: The processes that train together.
        evaluator: What judges the model.
        callback: Called after each judgement.
        on_log: Called with what is logged.
        record: Takes what comes of it, step by step.
    """

    def __init__(
        self,
        model: Any,
        objectives: Sequence[tuple[Any, nn.Module]],
        plan: TrainingPlan,
        ranks: Ranks,
        evaluator: Evaluator | None,
        callback: Callback | None,
        on_log: OnLog | None,
        record: TrainingRecord,
    ) -> None:
        self._model = model
        self._plan = plan
        self._ranks = ranks
        self._evaluator = evaluator
        self._callback = callback
        self._on_log = on_log
        collation = Collation(model)
        self._objectives = [
            Objective(number, given, collation, plan, ranks) for number, given in enumerate(objectives)
        ]
        self._modules = {"model": model, **{f"loss {at}": found.loss for at, found in enumerate(self._objectives)}}
        self._steps_per_epoch = plan.steps_per_epoch or min(objective.steps for objective in self._objectives)
        for objective in self._objectives:
            objective.schedule(self._total_steps)
        device = model.device
        is_scaled = plan.amp_dtype_on(device) is torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=is_scaled)
        self._checkpoints = (
            None
            if plan.checkpoint_path is None
            else Checkpoints(plan.checkpoint_path, plan.checkpoint_save_total_limit)
        )
        self._record = record
        self._epoch = self._steps = 0
        self._written: tuple[int, int] | None = None
        model.best_score = _NO_SCORE
        self._tally = Tally.empty(len(self._objectives))

    @property
    def _reached(self) -> tuple[int, int]:
        """How many steps and evaluations there have been: after the last step the model may still be judged."""
        return self._record.steps, len(self._record.evaluations)

    @property
    def _total_steps(self) -> int:
        return int(self._steps_per_epoch * self._plan.epochs)

    # ── Epochs and steps ──────────────────────────────────────────────────────────────────────────────────

    def run(self) -> TrainingRecord:
        """Train, from the start or from a checkpoint."""
        self._check_files()
        self._begin()
        shown = self._plan.show_progress_bar and self._ranks.is_first
        with progress_bar(self._total_steps, unit="step", shown=shown, description="Training") as progress:
            progress.update(self._record.steps)
            while self._epoch < self._plan.epochs and not self._record.stopped_early:
                self._run_epoch(progress)
        self._finish()
        return self._record

    def _run_epoch(self, progress: Progress) -> None:
        self._wake()
        while self._steps < self._steps_per_epoch and not self._record.stopped_early:
            self._step()
            progress.update()
            if self._plan.evaluation_steps > 0 and self._steps % self._plan.evaluation_steps == 0:
                self._evaluate(self._steps)
                self._wake()
            if self._plan.is_checkpoint_due(self._record.steps):
                self._write_checkpoint()
        self._log()
        if not self._record.stopped_early:
            self._evaluate(-1)
            self._epoch, self._steps = self._epoch + 1, 0

    def _step(self) -> None:
        """One step of each objective."""
        started = time.perf_counter()
        found = [self._step_of(objective) for objective in self._objectives]
        self._tally.add(found, time.perf_counter() - started)
        self._steps += 1
        self._record.steps += 1
        if self._plan.log_steps > 0 and self._record.steps % self._plan.log_steps == 0:
            self._log()

    def _step_of(self, objective: Objective) -> tuple[float, float]:
        """One step of an objective; its loss, and the length of its gradient before it was clipped."""
        loss = objective.backward(self._model.device, self._scaler)
        self._scaler.unscale_(objective.optimizer)
        limit = math.inf if self._plan.max_grad_norm is None else self._plan.max_grad_norm
        length = nn.utils.clip_grad_norm_(objective.parameters, limit)
        found = torch.stack([loss.float(), length.to(loss.device).float()]).tolist()
        self._check_finite(objective, *found)
        scale = self._scaler.get_scale()
        self._scaler.step(objective.optimizer)
        self._scaler.update()
        objective.optimizer.zero_grad()
        if self._scaler.get_scale() >= scale:  # else the step was not taken: the gradients overflowed
            objective.scheduler.step()
        return found[0], found[1]

    def _check_finite(self, objective: Objective, loss: float, length: float) -> None:
        # The scaler leaves steps out until gradients no longer overflow.
        may_be_left_out = self._scaler.is_enabled() and self._scaler.get_scale() > _LEAST_SCALE
        if math.isfinite(loss) and (math.isfinite(length) or may_be_left_out):
            return
        objective.optimizer.zero_grad()
        what = f"the loss is {loss}" if not math.isfinite(loss) else f"the length of the gradient is {length}"
        made = self._checkpoints.existing() if self._checkpoints is not None else []
        raise TrainingError(
            f"{objective.name}: step {self._record.steps + 1}, epoch {self._epoch}: {what}",
            step=self._record.steps + 1,
            checkpoint=str(made[-1]) if made else None,
        )

    def _wake(self) -> None:
        for objective in self._objectives:
            objective.loss.zero_grad()
            objective.loss.train()

    def rest(self) -> None:
        """Leave the model as one that is used."""
        for objective in self._objectives:
            objective.loss.zero_grad()
            objective.loss.eval()

    # ── What is said of it ────────────────────────────────────────────────────────────────────────────────

    def _log(self) -> None:
        if self._tally.steps == 0:
            return
        logged = self._tally.logged(
            self._epoch, self._record.steps, [objective.learning_rate for objective in self._objectives]
        )
        self._tally = Tally.empty(len(self._objectives))
        self._record.logs.append(logged)
        logger.info("%s", logged)
        self._tell(self._on_log, logged)

    def _tell(self, listener: Callable[..., Any] | None, *what: Any) -> None:
        """Call a function of the user's, once for all processes; its error ends all of them."""

        def told() -> None:
            if listener is not None:
                listener(*what)

        self._ranks.first_says(told)

    def _evaluate(self, steps: int) -> None:
        if self._evaluator is None:
            return
        score, metrics = self._ranks.first_says(lambda: self._judged(steps))
        is_better = bool(getattr(self._evaluator, "greater_is_better", True))
        best = self._record.best
        is_best = best is None if math.isnan(score) else _is_better(score, best, greater=is_better)
        self._record.evaluations.append(
            Evaluation(
                epoch=self._epoch,
                steps=steps,
                step=self._record.steps,
                score=score,
                metrics=metrics,
                is_best=is_best,
            )
        )
        self._tell(self._callback, score, self._epoch, steps)
        if is_best:
            self._model.best_score = score
            if self._plan.save_best_model:
                self._save()
        self._record.stopped_early = self._is_patience_lost()

    def _is_patience_lost(self) -> bool:
        patience = self._plan.early_stopping_patience
        return patience is not None and self._record.evaluations_since_best >= patience

    def _judged(self, steps: int) -> tuple[float, dict[str, float]]:
        """The figure that counts, and all of them."""
        folder = None
        if self._plan.output_path is not None:
            folder = self._plan.output_path / "eval"
            folder.mkdir(parents=True, exist_ok=True)
        found = self._evaluator(  # type: ignore[misc]
            self._model, output_path=None if folder is None else str(folder), epoch=self._epoch, steps=steps
        )
        if not isinstance(found, Mapping):
            return float(found), {}
        figures = {name: float(figure) for name, figure in found.items() if isinstance(figure, Real)}
        return float(primary_figure(self._evaluator, found)), figures

    # ── Files ─────────────────────────────────────────────────────────────────────────────────────────────

    def _check_files(self) -> None:
        if self._plan.output_path is not None or self._checkpoints is not None:
            for module in self._model.children():
                check_module(module)
        if self._checkpoints is not None:
            due = [step for step in range(1, self._total_steps) if self._plan.is_checkpoint_due(step)]
            due.append(self._total_steps)
            self._ranks.first_says(lambda: self._checkpoints.check_free(due))  # type: ignore[union-attr]

    def _save(self) -> None:
        path = self._plan.output_path
        if path is None:
            return
        self._ranks.first_says(lambda: self._model.save(str(path)))
        self._record.model_path = str(path)

    def _finish(self) -> None:
        if not self._has_saved_the_best():
            self._save()
        if self._written != self._reached:
            self._write_checkpoint()

    def _has_saved_the_best(self) -> bool:
        """Whether the best model lies where it should; a training that goes on may have put it elsewhere."""
        path, best = self._plan.output_path, self._record.best
        # Of scores that are no numbers none is the best.
        is_known = best is not None and not math.isnan(best.score)
        is_wanted = self._evaluator is not None and self._plan.save_best_model and is_known
        return is_wanted and path is not None and self._record.model_path == str(path) and path.exists()

    def _write_checkpoint(self) -> None:
        checkpoints = self._checkpoints
        if checkpoints is None:
            return
        state = self._state()
        self._record.checkpoints = self._ranks.first_says(
            lambda: _write(checkpoints, self._record.steps, self._model, state)
        )
        self._written = self._reached

    def _state(self) -> dict[str, Any]:
        return {
            "format": _STATE_FORMAT,
            "steps_per_epoch": self._steps_per_epoch,
            "epoch": self._epoch,
            "steps": self._steps,
            "record": self._record.to_dict(),
            "tally": self._tally.to_dict(),
            "weights": weights_of(self._modules),
            "scaler": self._scaler.state_dict(),
            "objectives": [objective.state_dict() for objective in self._objectives],
            "randomness": self._ranks.all_say(Randomness.now().to_state()),
        }

    def _begin(self) -> None:
        """Begin, or go on from a checkpoint."""
        path = self._checkpoint_to_resume()
        if path is None:
            for objective in self._objectives:
                objective.begin()
            return
        state = (self._checkpoints or Checkpoints(path.parent)).read(path)
        self._check_state(path, state)
        if self._checkpoints is not None:
            self._ranks.first_says(self._checkpoints.clean)
        put_weights(self._modules, state["weights"])
        for objective, of_objective in zip(self._objectives, state["objectives"], strict=True):
            objective.load_state_dict(of_objective)
        self._scaler.load_state_dict(state["scaler"])
        self._record.become(TrainingRecord.from_dict(state["record"]))
        self._record.stopped_early = self._is_patience_lost()
        self._tally = Tally.from_dict(state["tally"])
        self._epoch, self._steps = state["epoch"], state["steps"]
        if self._record.best is not None:
            self._model.best_score = self._record.best.score
        Randomness.from_state(state["randomness"][self._ranks.rank]).restore()
        logger.info("training goes on from %s, after step %d", path, self._record.steps)

    def _checkpoint_to_resume(self) -> Path | None:
        asked = self._plan.resume_from_checkpoint
        if isinstance(asked, Path):
            return asked
        if not asked or self._checkpoints is None:
            return None
        newest = self._ranks.first_says(self._checkpoints.newest)
        if newest is None:
            logger.info("%s has no checkpoint: training starts from the beginning", self._checkpoints.folder)
        return newest

    def _check_state(self, path: Path, state: Mapping[str, Any]) -> None:
        """Raise a ValueError for a checkpoint of another training."""
        for what, own, found in (
            ("a state of format", _STATE_FORMAT, state["format"]),
            ("objectives, as many as", len(self._objectives), len(state["objectives"])),
            ("steps per epoch, as many as", self._steps_per_epoch, state["steps_per_epoch"]),
            ("processes, as many as", self._ranks.size, len(state["randomness"])),
        ):
            if own != found:
                raise ValueError(f"{path}: expected {what} {own}, as in this training, found {found}")


def _is_better(score: float, best: Evaluation | None, *, greater: bool) -> bool:
    if best is None or math.isnan(best.score):
        return True
    return score > best.score if greater else score < best.score


def _write(checkpoints: Checkpoints, step: int, model: Any, state: Any) -> list[str]:
    """Write a checkpoint, and name all that are there."""
    checkpoints.write(step, lambda folder: model.save(str(folder), model_name=str(step)), state)
    return [str(path) for path in checkpoints.existing()]
