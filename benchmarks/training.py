"""``python -m benchmarks.training``: what a step of ``fit`` costs beside sentence-transformers, and what is learnt.

The model is all-MiniLM-L6-v2 cut to its first three layers; the data is STS-B where it lies beside the project, and
generated pairs where it does not.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.report import table
from benchmarks.texts import short_sentences
from sentence_embedder import SentenceTransformer
from sentence_embedder.models import Transformer
from tests.minilm import minilm_folder

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
LIBRARIES = {
    "ours": ("sentence_embedder", Path(sys.executable)),
    "2.7": ("sentence_transformers", ROOT / ".venv-reference-2.7" / "bin" / "python"),
    "6.2": ("sentence_transformers", ROOT / ".venv-reference-6.2" / "bin" / "python"),
}
"""Name → its package, and the interpreter that has it."""

_LAYERS = 3


def cut_minilm(folder: Path, layers: int = _LAYERS) -> Path:
    """A model folder with the first layers of MiniLM, made if it is not there."""
    path = folder / f"minilm-{layers}-layers"
    if not (path / "modules.json").exists():
        model = SentenceTransformer(str(minilm_folder()), device="cpu")
        transformer = model[0]
        assert isinstance(transformer, Transformer)  # noqa: S101
        transformer.auto_model.encoder.layer = transformer.auto_model.encoder.layer[:layers]
        transformer.auto_model.config.num_hidden_layers = layers
        model.save(path)
    return path


def train_file(folder: Path) -> Path:
    """The pairs to train with: STS-B, or generated ones."""
    if (DATA / "stsb-en-train.csv").exists():
        return DATA / "stsb-en-train.csv"
    path = folder / "pairs.csv"
    texts = short_sentences(4_000)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            (first, second, 4.5) for first, second in zip(texts[::2], texts[1::2], strict=True)
        )
    return path


def trained(name: str, **given: Any) -> dict[str, Any]:
    """What a training cost, with a library in its environment.

    Raises:
        RuntimeError: It failed.
    """
    library, python = LIBRARIES[name]
    settings = {
        "library": library,
        "loss": "similarity",
        "batch_size": 16,
        "epochs": 1,
        "steps": 60,
        "warmup_steps": 30,
        "evaluation_steps": 0,
        "effective_batch_size": None,
        "dev": None,
        **given,
    }
    done = subprocess.run(
        [str(python), "-W", "ignore", str(Path(__file__).with_name("training_process.py")), json.dumps(settings)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def steps_table(names: Sequence[str], rounds: int, **given: Any) -> str:
    """Seconds per step and the peak of memory of each library, alternated, and ours as a share of theirs."""
    rows = []
    for loss, batch_size in (("similarity", 16), ("ranking", 32)):
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                found[name].append(trained(name, loss=loss, batch_size=batch_size, **given))
        for name in names:
            ratios = [
                [one[key] / other[key] for one, other in zip(found["ours"], found[name], strict=True)]
                for key in ("seconds_per_step", "peak")
            ]
            rows.append(
                [
                    f"{loss}, batches of {batch_size}",
                    name,
                    f"{median(run['seconds_per_step'] for run in found[name]) * 1e3:.0f} ms",
                    f"{median(run['peak'] for run in found[name]) / 1e6:.0f} MB",
                    *(f"{median(each):.2f}" for each in ratios),
                ]
            )
    return table(["work", "library", "a step", "peak", "ours of its time", "ours of its memory"], rows)


def curves(**given: Any) -> str:
    """The Spearman correlation on STS-B dev while a model learns."""
    rows = []
    for loss, batch_size in (("similarity", 16), ("ranking", 32)):
        found = trained(
            "ours",
            loss=loss,
            batch_size=batch_size,
            steps=None,
            epochs=2,
            evaluation_steps=90 if loss == "similarity" else 15,
            dev=str(DATA / "stsb-en-dev.csv"),
            **given,
        )
        rows.append([loss, *(f"{score * 100:.2f}" for _, _, score in found["scores"])])
    width = max(map(len, rows))
    return table(["loss", *("" for _ in range(width - 1))], [row + [""] * (width - len(row)) for row in rows])


def joined_table(**given: Any) -> str:
    """The memory of batches that are joined."""
    rows = []
    for what, arguments in (
        ("batches of 32", {"batch_size": 32}),
        ("512 joined from batches of 32", {"batch_size": 32, "effective_batch_size": 512}),
        ("batches of 512", {"batch_size": 512}),
    ):
        found = trained("ours", loss="ranking", steps=3, **arguments, **given)
        rows.append(
            [what, f"{found['peak'] / 1e6:.0f} MB", f"{(found['peak'] - found['peak_before']) / 1e6:.0f} MB"]
        )
    return table(["ranking", "peak", "of which by training"], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each library trains")
    parser.add_argument("--steps", type=int, default=60, help="how many steps it takes each time")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--tables", nargs="+", default=["steps", "curves", "joined"])
    options = parser.parse_args(arguments)
    folder = ROOT / ".bench" / "models"
    folder.mkdir(parents=True, exist_ok=True)
    given = {
        "folder": str(cut_minilm(folder)),
        "train": str(train_file(folder)),
        "threads": options.threads,
    }
    names = [name for name, (_, python) in LIBRARIES.items() if python.exists()]
    if "steps" in options.tables:
        print(steps_table(names, options.rounds, steps=options.steps, **given))  # noqa: T201
    if "curves" in options.tables and DATA.exists():
        print(curves(**given))  # noqa: T201
    if "joined" in options.tables:
        print(joined_table(**given))  # noqa: T201


if __name__ == "__main__":
    main()
