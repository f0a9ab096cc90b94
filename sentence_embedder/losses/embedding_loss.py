"""EmbeddingLoss: what all losses have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, TypeVar

from torch import Tensor, nn

from sentence_embedder.features import Features
from sentence_embedder.losses.citations import citation_of
from sentence_embedder.losses.gathering import gathered, gathered_targets

_Column = TypeVar("_Column")


class EmbeddingLoss(nn.Module):
    """A loss over the sentence embeddings of the columns of a batch.

    Called with one Features a column (anchors, positives, …) and the labels of the rows, it gives a scalar. The
    model is a part of it, so its parameters are among the loss's. A subclass says what the loss of embeddings is.

    Args:
        model: The SentenceTransformer that is trained.

    Attributes:
        gather_across_devices: Whether the loss is that of the rows of all processes that train the model together,
            as if they were one batch: they are each other's negatives.
        needs_labels: Whether there is no loss without labels.
    """

    gather_across_devices = False
    needs_labels = False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Any:
        """The loss of a batch: the Features of each column, and labels (rows, …) if the loss needs some."""
        features = list(sentence_features)
        embeddings, targets = self.embeddings(features), self.joint_targets(features, labels)
        return self.of_embeddings(gathered(embeddings) if self.gather_across_devices else embeddings, targets)

    @property
    def citation(self) -> str:
        """The papers that it comes from, as BibTeX."""
        return citation_of(type(self))

    @property
    def is_cached(self) -> bool:
        """Whether its gradients come by ``cached_loss``: several times backward, not once."""
        return False

    @property
    def is_stock(self) -> bool:
        """Whether it computes as this package wrote it, so that its parts can be used one by one."""
        forward = type(self).forward
        return forward.__module__.startswith(__package__ or "sentence_embedder.losses")

    @property
    def can_be_joined(self) -> bool:
        """Whether several batches can be made one, of which its gradients are those of a single batch."""
        return self.is_stock and type(self).embeddings is EmbeddingLoss.embeddings

    def embeddings(self, sentence_features: Iterable[Features]) -> list[Tensor]:
        """The sentence embeddings of each column, shape (rows, dim)."""
        return [self.model(features)["sentence_embedding"] for features in sentence_features]

    def targets(self, sentence_features: Sequence[Features], labels: Any) -> Any:
        """What the embeddings are held against: the labels, unless a loss looks for something else.

        Raises:
            ValueError: It needs labels, and there are none.
        """
        del sentence_features
        if labels is None and self.needs_labels:
            raise ValueError(
                f"{type(self).__name__}: expected a label for each row, found none; they come from a column label, "
                "labels, score or scores"
            )
        return labels

    def joint_targets(self, sentence_features: Sequence[Features], labels: Any) -> Any:
        """The targets of the rows of all processes, if their embeddings are joined; else of these rows."""
        targets = self.targets(sentence_features, labels)
        return gathered_targets(targets) if self.gather_across_devices else targets

    def of_embeddings(self, embeddings: list[Tensor], targets: Any) -> Any:
        """The loss of the embeddings of the columns, each (rows, dim)."""
        raise NotImplementedError

    def cut_targets(self, targets: Any, width: int) -> Any:
        """The targets for embeddings that are cut to a width: the same, unless they are embeddings themselves."""
        del width
        return targets

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {}


def width_of(model: nn.Module) -> int | None:
    """How many values the embeddings have that a model is trained with, if it knows: ``truncate_dim`` cuts those of
    ``encode`` alone.
    """
    whole = getattr(model, "truncate_sentence_embeddings", None)
    names = ("get_embedding_dimension", "get_sentence_embedding_dimension")
    asked = next((getattr(model, name) for name in names if hasattr(model, name)), None)
    with nullcontext() if whole is None else whole(None):
        return None if asked is None else asked()


def columns(found: list[_Column], *counts: int) -> list[_Column]:
    """The columns of a batch, Features or embeddings, if there are as many as a loss takes.

    Raises:
        ValueError: There are not.
    """
    if len(found) not in counts:
        expected = " or ".join(map(str, counts))
        raise ValueError(f"expected {expected} columns of texts, found {len(found)}")
    return found
