"""Runs in the environment of a sentence-transformers: the weights after its trainings → an .npz file.

``python record_training.py FOLDER OUT.npz``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.training.cases import CASES, model_of


def main() -> None:
    import sentence_transformers
    from sentence_transformers import losses

    folder, out = map(Path, sys.argv[1:])
    arrays = {}
    for name, case in CASES.items():
        model = model_of(folder, sentence_transformers.SentenceTransformer)
        # From 3.0 on ``fit`` is a loop of another library; the one of old has another name.
        weights = case.run(sentence_transformers, losses, model, getattr(model, "old_fit", model.fit))
        arrays.update({f"{name}#{key}": tensor.numpy() for key, tensor in weights.items()})
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
