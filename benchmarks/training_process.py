"""One training, in a process and an environment of its own: what it cost, as a line of JSON.

``python training_process.py '{"library": …, "folder": …, …}'``. Only the standard library, torch and the library
that trains are imported.
"""

from __future__ import annotations

import csv
import json
import resource
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

_LOSSES = {"similarity": "CosineSimilarityLoss", "ranking": "MultipleNegativesRankingLoss"}
_SEED = 11
_WARM_UP = 5
"""Steps that are not timed."""


def main(given: Mapping[str, Any]) -> None:
    """Train, and print what it cost."""
    library = import_module(given["library"])
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    class Timed(nn.Module):
        """A loss that writes down when it is called."""

        def __init__(self, loss: nn.Module) -> None:
            super().__init__()
            self.loss = loss
            self.times: list[float] = []

        def forward(self, features: Any, labels: Any) -> Any:
            """The loss."""
            self.times.append(time.perf_counter())
            return self.loss(features, labels)

    torch.set_num_threads(given["threads"])
    torch.manual_seed(_SEED)
    model = library.SentenceTransformer(given["folder"], device="cpu")
    losses = import_module(f"{given['library']}.losses")
    own = getattr(losses, _LOSSES[given["loss"]])(model)
    loss = own if given["effective_batch_size"] else Timed(own)
    loader: Any = DataLoader
    rows = examples(library.InputExample, Path(given["train"]), given["loss"])
    joined = {"effective_batch_size": given["effective_batch_size"]} if given["effective_batch_size"] else {}
    before = _peak()
    fit = getattr(model, "old_fit", model.fit)
    fit(
        [(loader(rows, batch_size=given["batch_size"], shuffle=True, drop_last=True), loss)],
        evaluator=_evaluator(given, model),
        evaluation_steps=given["evaluation_steps"],
        epochs=given["epochs"],
        steps_per_epoch=given["steps"],
        warmup_steps=given["warmup_steps"],
        optimizer_params={"lr": 5e-5},
        show_progress_bar=False,
        **joined,
    )
    times = getattr(loss, "times", [])[_WARM_UP:]
    steps = sorted(later - earlier for earlier, later in pairwise(times))
    print(  # noqa: T201
        json.dumps(
            {
                "seconds_per_step": steps[len(steps) // 2] if steps else None,
                "peak_before": before,
                "peak": _peak(),
                "scores": _SCORES,
            }
        )
    )


_SCORES: list[tuple[int, int, float]] = []


def _evaluator(given: Mapping[str, Any], model: Any) -> Any:
    """What judges by the Spearman correlation on a set of pairs, if one is given."""
    if given["dev"] is None:
        return None
    evaluation = import_module(f"{given['library']}.evaluation")
    firsts, seconds, scores = read_pairs(Path(given["dev"]))
    judge = evaluation.EmbeddingSimilarityEvaluator(firsts, seconds, scores, batch_size=32)

    def evaluator(model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1) -> float:
        found = judge(model, output_path, epoch, steps)
        score = found if isinstance(found, float) else found[judge.primary_metric]
        _SCORES.append((epoch, steps, float(score)))
        return float(score)

    evaluator(model, epoch=-1, steps=0)
    return evaluator


def examples(make: Any, path: Path, loss: str) -> list[Any]:
    """The pairs of a file; for ranking only those of nearly the same meaning."""
    pairs = zip(*read_pairs(path), strict=True)
    return [
        make(texts=[first, second], label=score)
        for first, second, score in pairs
        if loss != "ranking" or score >= 0.8
    ]


def read_pairs(path: Path) -> tuple[list[str], list[str], list[float]]:
    """First texts, second texts, and similarities from 0 to 1, of a file of STS-B."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [row[0] for row in rows], [row[1] for row in rows], [float(row[2]) / 5 for row in rows]


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
