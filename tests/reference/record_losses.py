"""Runs in the environment of a sentence-transformers: the values and gradients of its losses → an .npz file.

``python record_losses.py OUT.npz``
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.losses.cases import CASES


def main() -> None:
    from sentence_transformers import losses, util

    arrays = {}
    for name, case in CASES.items():
        value, gradient = case.run(losses, util)
        arrays[f"{name}#value"], arrays[f"{name}#gradient"] = value.numpy(), gradient.numpy()
    np.savez_compressed(sys.argv[1], **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
