"""Runs in the environment of a sentence-transformers: what its evaluators say of a model → a JSON file.

``python record_evaluators.py FOLDER OUT.json``
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.evaluation.cases import CASES, outcome


def main() -> None:
    from sentence_transformers import SentenceTransformer, evaluation

    model = SentenceTransformer(sys.argv[1], device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        outcomes = {
            name: outcome(make, evaluation, model, Path(folder) / str(number))
            for number, (name, make) in enumerate(CASES.items())
        }
    Path(sys.argv[2]).write_text(json.dumps(outcomes, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
