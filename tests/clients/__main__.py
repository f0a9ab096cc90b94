"""``python -m tests.clients PROGRAM MODEL OUT [--here]``: one program, on the one library or the other."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from tests.clients.programs import PROGRAMS


def main() -> None:
    """Run a program, and write what came of it, and on what it ran."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--here", action="store_true", help="on this package")
    arguments = parser.parse_args()
    if arguments.here:
        from sentence_embedder import compat

        compat.install()
    result = PROGRAMS[arguments.program](arguments.model)
    imported = sys.modules["sentence_transformers"].SentenceTransformer
    facts = {"class": f"{imported.__module__}.{imported.__qualname__}", "result": result}
    arguments.out.write_text(json.dumps(facts, default=_plain), encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"expected what JSON has, found {type(value).__name__}")


if __name__ == "__main__":
    main()
