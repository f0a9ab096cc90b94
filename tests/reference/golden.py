"""Records tests/golden: what sentence-transformers makes of the tiny models and of MiniLM (``make golden``)."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from tests.minilm import minilm_folder
from tests.reference.environment import (
    ROOT,
    VERSIONS,
    record,
    record_evaluators,
    record_losses,
    record_surface,
    record_training,
)
from tests.tiny_models import TINY_MODELS, write_model

GOLDEN = ROOT / "tests" / "golden"
STSB_DEV = ROOT.parent / "shared" / "data" / "stsb-en-dev.csv"


def main() -> None:
    """Record everything anew."""
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, model in TINY_MODELS.items():
            write_model(folder / name, model)
            record("6.2", folder / name, GOLDEN / f"{name}.npz")
            record("2.7", folder / name, GOLDEN / f"{name}-spaced.npz", "--spaced")
        record("6.2", minilm_folder(), GOLDEN / "minilm.npz")
        record_losses("6.2", GOLDEN / "losses.npz")
        record_training("6.2", folder / "bert", GOLDEN / "training.npz")
        record_evaluators("6.2", minilm_folder(), GOLDEN / "evaluators.json")
        for version in VERSIONS:
            record_surface(version, GOLDEN / f"surface-{version}.json")
        if STSB_DEV.exists():
            record_stsb(folder)


def record_stsb(folder: Path) -> None:
    """Record the Spearman correlation that the reference reaches on STS-B."""
    import numpy as np

    from tests.stsb import read_stsb, spearman

    texts = folder / "texts.json"
    firsts, seconds, scores = read_stsb(STSB_DEV)
    texts.write_text(json.dumps([*firsts, *seconds]))
    record("6.2", minilm_folder(), folder / "stsb.npz", "--texts", texts)
    embeddings = np.load(folder / "stsb.npz")["embeddings"]
    figure = spearman(embeddings[: len(firsts)], embeddings[len(firsts) :], scores)
    (GOLDEN / "stsb.json").write_text(json.dumps({"dev_cosine_spearman_x100": figure}, indent=2) + "\n")


if __name__ == "__main__":
    main()
