"""EmbeddingLoss: what all losses have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from sentence_embedder.features import Features

_Column = TypeVar("_Column")


class EmbeddingLoss(nn.Module):
    """A loss over the sentence embeddings of the columns of a batch.

    Called with one Features a column (anchors, positives, …) and the labels of the rows, it gives a scalar. The
    model is a part of it, so its parameters are among the loss's. A subclass says what the loss of embeddings is.

    Args:
        model: The SentenceTransformer that is trained.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Any:
        """The loss of a batch: the Features of each column, and labels (rows, …) if the loss needs some."""
        features = list(sentence_features)
        return self.of_embeddings(self.embeddings(features), self.targets(features, labels))

    @property
    def is_stock(self) -> bool:
        """Whether it computes as this package wrote it, so that its parts can be used one by one."""
        forward = type(self).forward
        return forward.__module__.startswith(__package__ or "sentence_embedder.losses")

    def embeddings(self, sentence_features: Iterable[Features]) -> list[Tensor]:
        """The sentence embeddings of each column, shape (rows, dim)."""
        return [self.model(features)["sentence_embedding"] for features in sentence_features]

    def targets(self, sentence_features: Sequence[Features], labels: Any) -> Any:
        """What the embeddings are held against: the labels, unless a loss looks for something else."""
        del sentence_features
        return labels

    def of_embeddings(self, embeddings: list[Tensor], targets: Any) -> Any:
        """The loss of the embeddings of the columns, each (rows, dim)."""
        raise NotImplementedError

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {}


def columns(found: list[_Column], *counts: int) -> list[_Column]:
    """The columns of a batch, Features or embeddings, if there are as many as a loss takes.

    Raises:
        ValueError: There are not.
    """
    if len(found) not in counts:
        expected = " or ".join(map(str, counts))
        raise ValueError(f"expected {expected} columns of texts, found {len(found)}")
    return found
