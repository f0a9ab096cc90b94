"""Runs in the environment of a sentence-transformers: the values and gradients of its losses → an .npz file.

``python record_losses.py OUT.npz``
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.losses.cases import CASES
from tests.losses.model_cases import run_model_cases
from tests.tiny_models import TINY_MODELS, write_model


def main() -> None:
    from sentence_transformers import SentenceTransformer, losses, util

    arrays = {}
    for name, case in CASES.items():
        value, gradient = case.run(losses, util)
        arrays[f"{name}#value"], arrays[f"{name}#gradient"] = value.numpy(), gradient.numpy()
    with TemporaryDirectory() as folder:
        write_model(Path(folder) / "bert", TINY_MODELS["bert"])
        load = partial(SentenceTransformer, device="cpu")
        made = run_model_cases(losses, load, Path(folder) / "bert")
    arrays.update({name: value.numpy() for name, value in made.items()})
    np.savez_compressed(sys.argv[1], **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
