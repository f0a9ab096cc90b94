"""A training as users run it, which kills itself where it is told to: ``python -m tests.training.script``.

Environment: FOLDER (the model), CHECKPOINTS, OUT (for the weights, an .npz file), DIES_AT: nothing, ``step N`` (in
the middle of that step) or ``file N`` (when the state is half written in the N-th checkpoint).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sentence_embedder import InputExample, SentenceTransformer, losses
from sentence_embedder.training import checkpoints, state_file
from tests.training.cases import examples, loader_of


class Dying(losses.CosineSimilarityLoss):
    """A loss that kills the process at its N-th batch."""

    def __init__(self, model: nn.Module, dies_at: int) -> None:
        super().__init__(model)
        self.dies_at = dies_at
        self.count = 0

    def forward(self, sentence_features: Any, labels: Any = None) -> Any:
        """The loss."""
        self.count += 1
        if self.count == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(sentence_features, labels)


def die_while_writing(number: int) -> None:
    """Kill the process when the state of that checkpoint is half written."""
    count = 0

    def dying(folder: Path, state: Any) -> None:
        nonlocal count
        count += 1
        state_file.write_state(folder, state)
        if count == number:
            path = folder / "state.safetensors"
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    vars(checkpoints)["write_state"] = dying


def train(folder: Path, checkpoint_path: Path, dies_in_step: int = 0) -> SentenceTransformer:
    """Train from the newest checkpoint: two objectives, dropout, shuffled data, an optimizer with a memory."""
    torch.manual_seed(7)
    model = SentenceTransformer(str(folder), device="cpu")
    objectives = [
        (loader_of(examples(InputExample, count=10), batch_size=3), Dying(model, dies_in_step)),
        (
            loader_of(examples(InputExample, 1, 12), batch_size=5, generator=torch.Generator().manual_seed(3)),
            losses.MultipleNegativesRankingLoss(model),
        ),
    ]
    model.fit(
        objectives,
        epochs=3,
        steps_per_epoch=4,
        warmup_steps=3,
        optimizer_params={"lr": 1e-3},
        show_progress_bar=False,
        checkpoint_path=checkpoint_path,
        checkpoint_save_steps=2,
        checkpoint_save_total_limit=2,
        resume_from_checkpoint=True,
    )
    return model


def main() -> None:
    what, _, number = os.environ.get("DIES_AT", "").partition(" ")
    torch.set_num_threads(1)
    if what == "file":
        die_while_writing(int(number))
    checkpoint_path = Path(os.environ["CHECKPOINTS"])
    model = train(Path(os.environ["FOLDER"]), checkpoint_path, int(number) if what == "step" else 0)
    weights: dict[str, Any] = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.savez(os.environ["OUT"], **weights)


if __name__ == "__main__":
    main()
