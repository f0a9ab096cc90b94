"""What the examples of training work with: a model, and pairs of sentences with how alike they are.

``python examples/training_material.py [--model NAME_OR_FOLDER] [--data FOLDER | --small]`` shows it. The pairs are
those of the STS benchmark, if a folder with ``stsb-en-train.csv`` and ``stsb-en-dev.csv`` is given or lies in
``../shared/data``; else a few that were written for these examples.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from sentence_embedder import InputExample, SentenceTransformer
from sentence_embedder.evaluation import EmbeddingSimilarityEvaluator
from sentence_embedder.readers import STSDataReader

ROOT = Path(__file__).parents[1]
STSB = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class Material:
    """What an example trains with.

    Args:
        model: The name of a model, or its folder: all-MiniLM-L6-v2 or another BERT.
        data: A folder with the files of STS-B; None for the small set.
    """

    model: str
    data: Path | None

    @classmethod
    def from_command_line(cls, description: str | None) -> Material:
        """What the user asks for."""
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument(
            "--model", default="all-MiniLM-L6-v2", help="a name on the Hugging Face Hub, or a folder"
        )
        found = STSB if (STSB / "stsb-en-train.csv").exists() else None
        parser.add_argument("--data", type=Path, default=found, help="a folder with the files of STS-B")
        parser.add_argument("--small", action="store_true", help="the small set, even if there is such a folder")
        options = parser.parse_args()
        return cls(options.model, None if options.small else options.data)

    def loader(self, examples: list[InputExample], batch_size: int) -> DataLoader[InputExample]:
        """Examples in shuffled batches."""
        rows: Any = examples  # a list is data set enough
        return DataLoader(rows, batch_size=batch_size, shuffle=True, drop_last=True)

    def examples(self, split: str) -> list[InputExample]:
        """Pairs with a similarity from 0 to 1: of ``"train"`` or of ``"dev"``."""
        if self.data is None:
            return STSDataReader(str(ROOT / "examples" / "data")).get_examples(f"pairs-{split}.tsv")
        reader = STSDataReader(str(self.data), delimiter=",", quoting=csv.QUOTE_MINIMAL)
        return reader.get_examples(f"stsb-en-{split}.csv")

    def evaluator(self) -> EmbeddingSimilarityEvaluator:
        """What judges a model by the pairs of ``"dev"``."""
        return EmbeddingSimilarityEvaluator.from_input_examples(
            self.examples("dev"), batch_size=32, main_similarity="cosine"
        )

    def student(self) -> SentenceTransformer:
        """The first two layers of the model: small and quick, and with something to learn."""
        model = SentenceTransformer(self.model)
        encoder, config = model[0].auto_model.encoder, model[0].auto_model.config
        encoder.layer, config.num_hidden_layers = encoder.layer[:2], 2
        return model

    def model_to_train(self) -> SentenceTransformer:
        """A model that the examples train within a minute: the student, or for the small set the whole model."""
        return SentenceTransformer(self.model) if self.data is None else self.student()

    def epochs(self, of_stsb: int) -> int:
        """So many for STS-B, more for the small set."""
        return of_stsb if self.data is not None else 15


def main() -> None:
    material = Material.from_command_line(__doc__)
    for split in ("train", "dev"):
        found = material.examples(split)
        print(f"{split}: {len(found)} pairs, among them:")
        for example in found[:3]:
            print(f"  {example.label:.2f}  {'  |  '.join(example.texts or ())}")
    print(material.model_to_train())


if __name__ == "__main__":
    main()
