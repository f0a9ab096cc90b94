"""TrainingPlan: how a model is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch.optim import Optimizer

from sentence_embedder.dotted_names import qualified_name
from sentence_embedder.training.schedules import check_scheduler

AmpDtype = Literal["bfloat16", "float16"]

_AMP_DTYPES: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The arguments of ``SentenceTransformer.fit``, checked; there it says what each of them means.

    Raises:
        ValueError: An argument has a value that makes no sense.
    """

    epochs: int = 1
    steps_per_epoch: int | None = None
    scheduler: str = "WarmupLinear"
    warmup_steps: int = 10000
    optimizer_class: type[Optimizer] = torch.optim.AdamW
    optimizer_params: Mapping[str, Any] = field(default_factory=lambda: {"lr": 2e-5})
    weight_decay: float = 0.01
    evaluation_steps: int = 0
    output_path: Path | None = None
    save_best_model: bool = True
    max_grad_norm: float | None = 1.0
    use_amp: bool = False
    show_progress_bar: bool = True
    checkpoint_path: Path | None = None
    checkpoint_save_steps: int = 500
    checkpoint_save_total_limit: int = 0
    resume_from_checkpoint: bool | Path = False
    gradient_accumulation_steps: int = 1
    amp_dtype: str | None = None
    log_steps: int = 0
    early_stopping_patience: int | None = None
    seed: int | None = None
    gradient_checkpointing: bool = False
    effective_batch_size: int | None = None

    def __post_init__(self) -> None:
        check_scheduler(self.scheduler)
        self._check("epochs", self.epochs, least=0)
        self._check("gradient_accumulation_steps", self.gradient_accumulation_steps, least=1)
        for name in ("early_stopping_patience", "effective_batch_size"):
            value = getattr(self, name)
            if value is not None:
                self._check(name, value, least=1)
        if self.amp_dtype not in (None, *_AMP_DTYPES):
            raise ValueError(f"amp_dtype: expected one of {list(_AMP_DTYPES)}, found {self.amp_dtype!r}")
        if self.resume_from_checkpoint is True and self.checkpoint_path is None:
            raise ValueError("resume_from_checkpoint=True: expected a checkpoint_path to look in, found none")

    @staticmethod
    def _check(name: str, value: int, *, least: int) -> None:
        if int(value) != value or value < least:
            raise ValueError(f"{name}: expected a whole number, {least} or more, found {value!r}")

    def amp_dtype_on(self, device: torch.device) -> torch.dtype | None:
        """The number format of the products on a device; None for that of the weights."""
        if self.amp_dtype is not None:
            return _AMP_DTYPES[self.amp_dtype]
        if not self.use_amp:
            return None
        is_short_of_it = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.float16 if is_short_of_it else torch.bfloat16

    def is_checkpoint_due(self, step: int) -> bool:
        """Whether a checkpoint is written after so many steps."""
        return self.checkpoint_save_steps > 0 and step % self.checkpoint_save_steps == 0

    def to_dict(self) -> dict[str, Any]:
        """The arguments, for the model card."""
        names = (
            *("epochs", "steps_per_epoch", "scheduler", "warmup_steps", "weight_decay", "evaluation_steps"),
            *("max_grad_norm", "use_amp", "gradient_accumulation_steps", "effective_batch_size"),
        )
        return {
            **{name: getattr(self, name) for name in names},
            "optimizer_class": qualified_name(_named(self.optimizer_class)),
            "optimizer_params": {name: repr(value) for name, value in self.optimizer_params.items()},
        }


def _named(optimizer_class: Any) -> Any:
    """What has a name: the class, the function of a ``functools.partial``, or the class of whatever else it is."""
    made = getattr(optimizer_class, "func", optimizer_class)
    return made if hasattr(made, "__qualname__") else type(made)
