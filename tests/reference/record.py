"""Runs in the environment of a sentence-transformers: what it makes of a model folder → an .npz file.

``python record.py FOLDER OUT.npz [--spaced | --texts TEXTS.json | --items ITEMS.json] [--save FOLDER]``
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.reference.cases import SPACED_PROMPT, SPACED_TEXTS, Case, as_item, cases, run, texts_for


def main() -> None:
    from sentence_transformers import SentenceTransformer

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--spaced", action="store_true", help="embed the texts around which spaces stand")
    parser.add_argument("--texts", type=Path, help="embed the texts in a JSON array")
    parser.add_argument("--items", type=Path, help="embed each of the items in a JSON array")
    parser.add_argument("--save", type=Path, help="save the model into this folder, too")
    arguments = parser.parse_args()
    model = SentenceTransformer(str(arguments.folder), device="cpu")
    if arguments.save:
        model.save(str(arguments.save))
    if arguments.spaced:
        (prompted,) = run(model, Case(SPACED_PROMPT, include_prompt=False), list(SPACED_TEXTS))
        (plain,) = run(model, Case(), list(SPACED_TEXTS))
        arrays = {"plain": plain, "prompted": prompted}
    elif arguments.texts:
        arrays = {"embeddings": model.encode(json.loads(arguments.texts.read_text()))}
    elif arguments.items:
        # One by one: padding and mixed routes are of no concern then.
        items = map(as_item, json.loads(arguments.items.read_text()))
        arrays = {"embeddings": np.stack([model.encode([item])[0] for item in items])}
    else:
        arrays = {
            f"{case}#{place}": array
            for case in cases()
            if not _is_too_wide(case, model)
            for place, array in enumerate(run(model, case, texts_for(case)))
        }
    np.savez_compressed(arguments.out, **arrays)


def _is_too_wide(case: Case, model: object) -> bool:
    """Whether the arrays of a case are left out, to keep what is committed small."""
    width = model.get_sentence_embedding_dimension()  # type: ignore[attr-defined]
    return bool(width and width > 300 and (case.output_value is None or case.output_value == "token_embeddings"))


if __name__ == "__main__":
    main()
