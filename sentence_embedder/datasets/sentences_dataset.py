"""SentencesDataset: examples as a data set."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import Dataset

from sentence_embedder.input_example import InputExample


class SentencesDataset(Dataset[InputExample]):
    """The examples as they are. Older code wraps them so; a list of examples does as well.

    Args:
        examples: The examples.
        model: Means nothing.
    """

    def __init__(self, examples: Sequence[InputExample], model: object = None) -> None:
        del model
        self.examples = examples

    def __getitem__(self, item: int) -> InputExample:
        return self.examples[item]

    def __len__(self) -> int:
        return len(self.examples)
