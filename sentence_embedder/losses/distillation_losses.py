"""Losses that bring a model near to another one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.losses.embedding_loss import EmbeddingLoss
from sentence_embedder.losses.similarity_losses import Similarity, name_of
from sentence_embedder.similarity import pairwise_dot_score


class MSELoss(EmbeddingLoss):
    """The mean squared difference to the embeddings of a teacher (Reimers and Gurevych 2020,
    https://arxiv.org/abs/2004.09813), of texts or of their translations.

    mean (uᵢⱼ - yᵢⱼ)²; the label yᵢ is the teacher's embedding.

    Args:
        model: The model that is trained.
    """

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of texts and the teacher's embeddings (rows, dim); of several columns, each is a translation."""
        return functional.mse_loss(torch.cat(embeddings), labels.repeat(len(embeddings), 1))


def margins(embeddings: list[Tensor], similarity: Similarity) -> Tensor:
    """How much more similar each query is to its positive than to each negative, shape (rows, negatives).

    Args:
        embeddings: Queries, positives, and one column or more of negatives, each (rows, dim).
        similarity: Similarities row by row.
    """
    queries, positives, *negatives = embeddings
    positive = similarity(queries, positives)
    return torch.stack([positive - similarity(queries, negative) for negative in negatives], dim=1)


class MarginMSELoss(EmbeddingLoss):
    """How far margins are from those of a teacher, a cross-encoder as a rule (Hofstätter et al. 2020,
    https://arxiv.org/abs/2010.02666).

    mean (s(qᵢ, pᵢ) - s(qᵢ, nᵢⱼ) - yᵢⱼ)²; the label yᵢⱼ is the teacher's margin, or labels are its similarities to
    the positive and to each negative.

    Args:
        model: The model that is trained.
        similarity_fct: Similarities row by row.
    """

    def __init__(self, model: nn.Module, similarity_fct: Similarity = pairwise_dot_score) -> None:
        super().__init__(model)
        self.similarity_fct = similarity_fct

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of queries, positives and negatives, and labels (rows, negatives) or (rows, negatives + 1); of
        one column of negatives also (rows,).

        Raises:
            ValueError: The labels fit to neither.
        """
        if len(embeddings) < 3:
            raise ValueError(f"expected queries, positives and negatives, found {len(embeddings)} columns")
        found = margins(embeddings, self.similarity_fct)
        expected = labels.view(-1, 1) if labels.ndim == 1 else labels
        if expected.shape[1] == found.shape[1] + 1:
            expected = expected[:, :1] - expected[:, 1:]
        if expected.shape != found.shape:
            raise ValueError(f"labels: expected the shape {tuple(found.shape)}, found {tuple(labels.shape)}")
        return functional.mse_loss(found, expected.to(found.dtype))

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"similarity_fct": name_of(self.similarity_fct)}


class DistillKLDivLoss(EmbeddingLoss):
    """How far the distribution of a query over its candidates is from a teacher's (Lin et al. 2020,
    https://arxiv.org/abs/2010.11386).

    T² KL(softmax(yᵢ / T) ‖ softmax(sᵢ / T)), sᵢ the similarities of the query to its positive and negatives; the
    labels yᵢ are the teacher's.

    Args:
        model: The model that is trained.
        similarity_fct: Similarities row by row.
        temperature: T; above 1 the lower similarities count more.
    """

    def __init__(
        self, model: nn.Module, similarity_fct: Similarity = pairwise_dot_score, temperature: float = 1.0
    ) -> None:
        super().__init__(model)
        self.similarity_fct = similarity_fct
        self.temperature = temperature

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        """The loss of queries, positives and negatives, and the teacher's similarities (rows, columns - 1)."""
        queries, *candidates = embeddings
        expected = (len(queries), len(candidates))
        if len(candidates) < 2 or labels.shape != expected:
            raise ValueError(
                "expected queries, positives and negatives, and a similarity of the teacher to each: labels of "
                f"shape {expected}, found {len(embeddings)} columns and labels of shape {tuple(labels.shape)}"
            )
        scores = torch.stack([self.similarity_fct(queries, candidate) for candidate in candidates], dim=1)
        student, teacher = (
            functional.log_softmax(each / self.temperature, dim=-1) for each in (scores, labels.to(scores.dtype))
        )
        divergence = functional.kl_div(student, teacher, log_target=True, reduction="batchmean")
        return divergence * self.temperature**2

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"similarity_fct": name_of(self.similarity_fct), "temperature": self.temperature}
