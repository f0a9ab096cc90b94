"""``python -m benchmarks.pool_memory``: what each worker of a pool costs in memory.

The proportional set size of a process counts each page that several processes share by its share.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.models import ModelFolders
from benchmarks.report import table
from benchmarks.texts import short_sentences
from sentence_embedder import EncodePool, SentenceTransformer
from tests.minilm import minilm_folder

_TEXTS = 2_000
_WORKERS = (1, 2, 3)
_MODELS = ("minilm", "base-bert")


def memory_of_workers(model: SentenceTransformer, workers: int, texts: Sequence[str]) -> float:
    """The megabytes that so many workers take together when they have encoded texts."""
    with EncodePool(model, ["cpu"] * workers) as pool:
        model.encode(texts, pool=pool, chunk_size=max(1, len(texts) // (4 * workers)))
        return sum(_proportional_set_size(process.pid or 0) for process in pool.processes) / 1e6


def _proportional_set_size(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"/proc/{pid}/smaps_rollup has no Pss")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--texts", type=int, default=_TEXTS, help="how many texts are encoded before")
    parser.add_argument("--models", nargs="+", default=_MODELS, help="names of the benchmark's models")
    options = parser.parse_args(arguments)
    folders = ModelFolders(Path(".bench") / "models", minilm=minilm_folder())
    rows = []
    for name in options.models:
        model = SentenceTransformer(str(folders.folder(name)), device="cpu")
        taken = [memory_of_workers(model, workers, short_sentences(options.texts)) for workers in _WORKERS]
        # Only then: whoever asks for the weights has transformers loaded, here and in workers that follow.
        weights = sum(each.numel() * each.element_size() for each in model.state_dict().values()) / 1e6
        rows.append([name, f"{weights:.0f} MB", *(f"{each:.0f} MB" for each in taken)])
    heads = ["model", "weights", *(f"{workers} worker{'s' * (workers > 1)}" for workers in _WORKERS)]
    print(table(heads, rows))  # noqa: T201


if __name__ == "__main__":
    main()
