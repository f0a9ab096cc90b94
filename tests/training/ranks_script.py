"""Trainings that processes do together: ``python -m torch.distributed.run … -m tests.training.ranks_script``.

Environment: FOLDER (the model), OUT (a folder for the weights of every process and training).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sentence_embedder import InputExample, SentenceTransformer, losses
from tests.training.cases import examples, loader_of


def _softmax(model: SentenceTransformer) -> nn.Module:
    torch.manual_seed(0)
    return losses.SoftmaxLoss(model, 32, 2)


Losses = Callable[[SentenceTransformer], list[nn.Module]]

TRAININGS: Mapping[str, tuple[Losses, Mapping[str, Any]]] = {
    "similarity": (lambda model: [losses.CosineSimilarityLoss(model)], {}),
    "similarity, accumulated": (
        lambda model: [losses.CosineSimilarityLoss(model)],
        {"gradient_accumulation_steps": 2},
    ),
    "similarity, joined": (lambda model: [losses.CosineSimilarityLoss(model)], {"effective_batch_size": 8}),
    "ranking": (
        lambda model: [losses.MultipleNegativesRankingLoss(model, gather_across_devices=True)],
        {},
    ),
    "cached ranking": (
        lambda model: [
            losses.CachedMultipleNegativesRankingLoss(model, mini_batch_size=3, gather_across_devices=True)
        ],
        {},
    ),
    "symmetric, joined": (
        lambda model: [losses.MultipleNegativesSymmetricRankingLoss(model, gather_across_devices=True)],
        {"effective_batch_size": 8},
    ),
    "matryoshka": (
        lambda model: [
            losses.MatryoshkaLoss(
                model, losses.MultipleNegativesRankingLoss(model, gather_across_devices=True), [32, 8]
            )
        ],
        {},
    ),
    "two objectives": (lambda model: [losses.CosineSimilarityLoss(model), _softmax(model)], {"epochs": 2}),
    "recomputed": (lambda model: [losses.CosineSimilarityLoss(model)], {"gradient_checkpointing": True}),
}
"""Name → losses, and arguments of ``fit``."""


def trained(folder: Path, name: str, *, batch_size: int, factor: int = 1) -> dict[str, Any]:
    """The weights after a training.

    Args:
        folder: The model.
        name: Which training.
        batch_size: The size of its batches.
        factor: How many processes' batches they are: what is joined grows with it.
    """
    model = SentenceTransformer(str(folder), device="cpu")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    model[0].auto_model.config.attention_probs_dropout_prob = 0.0
    make, arguments = TRAININGS[name]
    rows = examples(InputExample, count=16)
    for row in rows:
        row.label = float(row.label > 0.5)
    joined = {"effective_batch_size": 8 * factor} if "effective_batch_size" in arguments else {}
    made = make(model)
    objectives = [
        (loader_of(_with_classes(rows, loss), batch_size=batch_size, shuffle=False), loss) for loss in made
    ]
    record = model.fit(
        objectives,
        **{
            "scheduler": "constantlr",
            "optimizer_class": torch.optim.SGD,
            "optimizer_params": {"lr": 0.1},
            "show_progress_bar": False,
            **arguments,
            **joined,
        },
    )
    assert record.steps == {"similarity, accumulated": 1, "two objectives": 4}.get(name, 1 if joined else 2)
    return {
        f"{number}.{key}": tensor.numpy()
        for number, loss in enumerate(made)
        for key, tensor in loss.state_dict().items()
    }


def _with_classes(rows: list[Any], loss: nn.Module) -> list[Any]:
    if not isinstance(loss, losses.SoftmaxLoss):
        return rows
    return [InputExample(texts=row.texts, label=int(row.label)) for row in rows]


def dropout_and_order(folder: Path) -> dict[str, Any]:
    """What two processes draw: the labels of their batches, and numbers of their own."""
    model = SentenceTransformer(str(folder), device="cpu")
    seen: list[float] = []
    drawn: list[float] = []

    class Seeing(losses.CosineSimilarityLoss):
        def forward(self, sentence_features: Any, labels: Any = None) -> Any:
            seen.extend(labels.tolist())
            drawn.append(float(torch.rand(())))
            return super().forward(sentence_features, labels)

    rows = [InputExample(texts=["a cat", "a dog"], label=float(number)) for number in range(12)]
    model.fit(
        [(loader_of(rows, batch_size=2), Seeing(model))],
        epochs=2,
        seed=5,
        show_progress_bar=False,
    )
    return {"seen": np.array(seen), "drawn": np.array(drawn)}


def checkpointed(folder: Path, out: Path) -> dict[str, Any]:
    """The weights of a training with a judge and checkpoints, and of one that goes on from the first of these."""

    def fit(resume: bool | Path) -> tuple[SentenceTransformer, Any]:
        torch.manual_seed(int(os.environ["RANK"]))
        model = SentenceTransformer(str(folder), device="cpu")
        record = model.fit(
            [(loader_of(examples(InputExample, count=16), batch_size=2), losses.CosineSimilarityLoss(model))],
            evaluator=lambda model, **_: (
                float(model.encode("a text").sum()) if os.environ["RANK"] == "0" else 1 / 0
            ),
            epochs=2,
            output_path=out / "model",
            checkpoint_path=out / "checkpoints",
            checkpoint_save_steps=3,
            resume_from_checkpoint=resume,
            show_progress_bar=False,
        )
        return model, record

    model, record = fit(resume=False)
    again, of_again = fit(resume=out / "checkpoints" / "3")
    assert record.scores == of_again.scores
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def failing(folder: Path, out: Path) -> str:
    """What an error of the first process is in this one."""
    model = SentenceTransformer(str(folder), device="cpu")
    (out / "taken").mkdir(exist_ok=True)
    (out / "taken" / "1").mkdir(exist_ok=True)
    try:
        model.fit(
            [(loader_of(examples(InputExample), batch_size=2), losses.CosineSimilarityLoss(model))],
            checkpoint_path=out / "taken",
            checkpoint_save_steps=1,
            show_progress_bar=False,
        )
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return "nothing"


def of_different_seeds(folder: Path) -> dict[str, Any]:
    """The weights of a loss that begin differently in each process, after joined batches."""
    model = SentenceTransformer(str(folder), device="cpu")
    torch.manual_seed(int(os.environ["RANK"]))
    loss = losses.SoftmaxLoss(model, 32, 2)
    rows = [InputExample(texts=["a cat", "a dog"], label=number % 2) for number in range(16)]
    model.fit([(loader_of(rows, batch_size=4), loss)], effective_batch_size=8, show_progress_bar=False)
    return {name: tensor.numpy() for name, tensor in loss.state_dict().items()}


def heard(folder: Path) -> str:
    """What an error of a callback, which the first process alone calls, is in this one."""
    model = SentenceTransformer(str(folder), device="cpu")
    loader = loader_of(examples(InputExample), batch_size=2)
    try:
        model.fit(
            [(loader, losses.CosineSimilarityLoss(model))],
            evaluator=lambda *_, **__: 0.0,
            callback=lambda *_: 1 / 0,
            show_progress_bar=False,
        )
    except Exception as error:  # noqa: BLE001
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    torch.set_num_threads(1)
    folder, out, rank = Path(os.environ["FOLDER"]), Path(os.environ["OUT"]), os.environ["RANK"]
    for name in TRAININGS:
        np.savez(out / f"{name}-{rank}.npz", **trained(folder, name, batch_size=4))
    np.savez(out / f"drawn-{rank}.npz", **dropout_and_order(folder))
    np.savez(out / f"checkpointed-{rank}.npz", **checkpointed(folder, out))
    np.savez(out / f"seeds-{rank}.npz", **of_different_seeds(folder))
    (out / f"heard-{rank}.txt").write_text(heard(folder))
    (out / f"failure-{rank}.txt").write_text(failing(folder, out))


if __name__ == "__main__":
    main()
