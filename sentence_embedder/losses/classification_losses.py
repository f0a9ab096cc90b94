"""Losses for pairs of texts with a class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.losses.embedding_loss import EmbeddingLoss, columns


class SoftmaxLoss(EmbeddingLoss):
    """A linear classifier of pairs, trained with the embeddings (Reimers and Gurevych 2019,
    https://arxiv.org/abs/1908.10084).

    loss_fct(W (uᵢ, vᵢ, |uᵢ - vᵢ|, uᵢ ⊙ vᵢ) + b, yᵢ), of which the parts are chosen; the label yᵢ is a class.

    Args:
        model: The model that is trained.
        sentence_embedding_dimension: Width of its embeddings.
        num_labels: How many classes there are.
        concatenation_sent_rep: Whether the classifier sees u and v.
        concatenation_sent_difference: Whether it sees |u - v|.
        concatenation_sent_multiplication: Whether it sees u ⊙ v.
        loss_fct: (scores of the classes, labels) → loss.
        embedding_dimension: A newer name of ``sentence_embedding_dimension``.

    Raises:
        ValueError: The classifier would see nothing.
        TypeError: The width or the number of classes is missing, or the width is given twice.
    """

    def __init__(
        self,
        model: nn.Module,
        sentence_embedding_dimension: int | None = None,
        num_labels: int | None = None,
        concatenation_sent_rep: bool = True,
        concatenation_sent_difference: bool = True,
        concatenation_sent_multiplication: bool = False,
        loss_fct: nn.Module | None = None,
        *,
        embedding_dimension: int | None = None,
    ) -> None:
        super().__init__(model)
        widths = [width for width in (sentence_embedding_dimension, embedding_dimension) if width is not None]
        if len(widths) != 1 or num_labels is None:
            raise TypeError(
                "expected the width of the embeddings, as sentence_embedding_dimension or as embedding_dimension, "
                f"and num_labels, found {sentence_embedding_dimension}, {embedding_dimension} and {num_labels}"
            )
        self.num_labels = num_labels
        self.concatenation_sent_rep = concatenation_sent_rep
        self.concatenation_sent_difference = concatenation_sent_difference
        self.concatenation_sent_multiplication = concatenation_sent_multiplication
        parts = 2 * concatenation_sent_rep + concatenation_sent_difference + concatenation_sent_multiplication
        if not parts:
            raise ValueError("expected one part of u, v, |u - v| and u ⊙ v at least for the classifier, found none")
        device = next((parameter.device for parameter in model.parameters()), None)
        self.classifier = nn.Linear(parts * widths[0], num_labels, device=device)
        self.loss_fct = nn.CrossEntropyLoss() if loss_fct is None else loss_fct

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Any:
        """The loss of pairs (two columns) and classes (rows,); without labels the embeddings, and the scores of the
        classes (rows, classes).
        """
        first, second = columns(embeddings, 2)
        parts = [first, second] if self.concatenation_sent_rep else []
        if self.concatenation_sent_difference:
            parts.append((first - second).abs())
        if self.concatenation_sent_multiplication:
            parts.append(first * second)
        scores = self.classifier(torch.cat(parts, dim=1).to(self.classifier.weight.dtype))
        if labels is None:
            return [first, second], scores
        return self.loss_fct(scores, labels if labels.shape == scores.shape else labels.view(-1))

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "num_labels": self.num_labels,
            "concatenation_sent_rep": self.concatenation_sent_rep,
            "concatenation_sent_difference": self.concatenation_sent_difference,
            "concatenation_sent_multiplication": self.concatenation_sent_multiplication,
        }
