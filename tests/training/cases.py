"""Trainings that this package and sentence-transformers do alike; neither is imported here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

TEXTS = [
    "the cat sat on the red mat",
    "a kitten sleeps in the sun",
    "the dog runs about the park",
    "two dogs ran",
    "london is a city in england",
    "where is paris",
    "what is an embedding model",
    "a vector of a sentence",
    "hello world",
    "the quick brown fox jumps over the lazy dog",
    "a long query about the world and what is in it",
    "small text",
    "red wine",
    "sleeping in the city",
]

STEPS = 20


@dataclass(frozen=True)
class TrainingCase:
    """A training of 20 steps.

    Args:
        losses: The names of the losses of its objectives.
        arguments: Of ``fit``.
    """

    losses: Sequence[str]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def run(self, library: Any, losses: Any, model: Any, fit: Any) -> dict[str, Tensor]:
        """The weights after it.

        Args:
            library: The package, either one.
            losses: Its losses.
            model: The model.
            fit: The method that trains it.
        """
        torch.manual_seed(7)
        objectives = [
            (loader_of(examples(library.InputExample, number), batch_size=3 + number), getattr(losses, name)(model))
            for number, name in enumerate(self.losses)
        ]
        fit(objectives, show_progress_bar=False, **self.arguments)
        return {
            # The transformer has another name in every version.
            name.replace("auto_model", "model"): tensor.detach().clone()
            for name, tensor in model.state_dict().items()
        }


def loader_of(rows: Any, *, batch_size: int, shuffle: bool = True, **arguments: Any) -> DataLoader[Any]:
    """A DataLoader of rows."""
    return DataLoader(rows, batch_size=batch_size, shuffle=shuffle, **arguments)


def examples(make: Any, seed: int = 0, count: int = 20) -> list[Any]:
    """Pairs of texts with a similarity from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(len(TEXTS), (count, 2), generator=generator).tolist()
    similarities = torch.rand(count, generator=generator, dtype=torch.float64).tolist()
    return [
        make(texts=[TEXTS[first], TEXTS[second]], label=similarity)
        for (first, second), similarity in zip(places, similarities, strict=True)
    ]


def model_of(folder: Path, make: Any) -> Any:
    """The model in a folder, with an attention of which every version draws the same random numbers."""
    model = make(str(folder), device="cpu")
    model[0].auto_model.config._attn_implementation = "eager"
    return model


CASES: Mapping[str, TrainingCase] = {
    "similarity": TrainingCase(
        ["CosineSimilarityLoss"],
        {"epochs": 4, "steps_per_epoch": 5, "warmup_steps": 5, "optimizer_params": {"lr": 1e-3, "foreach": True}},
    ),
    "two objectives": TrainingCase(
        ["MultipleNegativesRankingLoss", "CosineSimilarityLoss"],
        {
            "epochs": 2,
            "steps_per_epoch": 10,
            "scheduler": "warmupcosine",
            "warmup_steps": 3,
            "optimizer_params": {"lr": 2e-3, "betas": (0.8, 0.95), "foreach": True},
            "weight_decay": 0.2,
            "max_grad_norm": 0.3,
        },
    ),
    "another optimizer": TrainingCase(
        ["CoSENTLoss"],
        {
            "epochs": 4,
            "steps_per_epoch": 5,
            "scheduler": "WarmupCosineWithHardRestarts",
            "warmup_steps": 0,
            "optimizer_class": torch.optim.SGD,
            "optimizer_params": {"lr": 0.05, "momentum": 0.5},
        },
    ),
}
"""Name → training."""
