"""Losses that bring a model near to another one."""

from __future__ import annotations

import math
import os
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.losses.embedding_loss import EmbeddingLoss, width_of
from sentence_embedder.losses.similarity_losses import Similarity, name_of
from sentence_embedder.similarity import pairwise_dot_score

Distance = Literal["mse", "l2", "cosine"]


def distance(embeddings: Tensor, teacher: Tensor, kind: Distance) -> Tensor:
    """How far embeddings are from those of a teacher, the mean over the rows.

    Args:
        embeddings: Shape (rows, dim).
        teacher: Likewise.
        kind: ``"mse"``: the squared difference, its mean over dim too; ``"l2"``: the length of the difference;
            ``"cosine"``: 1 - cos.
    """
    if kind == "mse":
        return functional.mse_loss(embeddings, teacher)
    if kind == "l2":
        lengths: Tensor = torch.linalg.vector_norm(embeddings - teacher, dim=-1)
        return lengths.mean()
    return (1 - functional.cosine_similarity(embeddings, teacher, dim=-1)).mean()


class EmbedDistillLoss(EmbeddingLoss):
    """How far embeddings are from those of a teacher (Kim et al. 2023, https://arxiv.org/abs/2301.12005).

    ``distance`` of W uᵢ + b, or of uᵢ itself, and yᵢ, the mean over the columns; the label yᵢ is the teacher's
    embedding.

    Args:
        model: The model that is trained.
        distance_metric: ``"mse"``, ``"l2"`` or ``"cosine"``.
        projection_dim: Width of the teacher's embeddings, if a linear layer, which is learnt as well, should bring
            those of the model to it. The layer is a part of the loss: see ``save_projection``.

    Raises:
        ValueError: There is no such distance.
    """

    def __init__(
        self, model: nn.Module, distance_metric: Distance = "cosine", projection_dim: int | None = None
    ) -> None:
        super().__init__(model)
        if distance_metric not in get_args(Distance):
            raise ValueError(f"distance_metric: expected one of {get_args(Distance)}, found {distance_metric!r}")
        self.distance_metric = distance_metric
        self.projection_dim = projection_dim
        self.projection: nn.Linear | None = None
        if projection_dim is not None:
            self.projection = nn.Linear(_known_width_of(model), projection_dim, device=_device_of(model))

    def of_embeddings(self, embeddings: list[Tensor], labels: Tensor | None) -> Tensor:
        """The loss of texts and the teacher's embeddings: (rows, dim), the same for each column, or (rows, columns,
        dim).

        Raises:
            ValueError: The labels have another shape.
        """
        found = None if labels is None else tuple(labels.shape)
        if labels is None or labels.ndim not in (2, 3) or (labels.ndim == 3 and labels.shape[1] != len(embeddings)):
            raise ValueError(
                f"labels: expected a teacher's embeddings, (rows, dim) or (rows, {len(embeddings)}, dim), "
                f"found {found}"
            )
        teachers = [labels] * len(embeddings) if labels.ndim == 2 else labels.unbind(dim=1)
        distances = []
        for embedding, teacher in zip(embeddings, teachers, strict=True):
            projected = self._projected(embedding)
            if projected.shape != teacher.shape:
                raise ValueError(
                    f"labels: expected embeddings {tuple(projected.shape)}, found {tuple(teacher.shape)}; for a "
                    "teacher of another width give its width as projection_dim"
                )
            distances.append(distance(projected, teacher.detach().to(projected), self.distance_metric))
        return torch.stack(distances).mean()

    def _projected(self, embedding: Tensor) -> Tensor:
        if self.projection is None:
            return embedding
        # Of a model in halves the layer is one of float32 all the same.
        projected: Tensor = self.projection(embedding.to(self.projection.weight.dtype))
        return projected

    def cut_targets(self, targets: Tensor, width: int) -> Tensor:
        """The teacher's embeddings, cut likewise."""
        return targets[..., :width]

    def save_projection(self, path: str | os.PathLike[str]) -> None:
        """Write the linear layer into a file of safetensors, for ``load_projection``.

        Raises:
            ValueError: There is none.
        """
        if self.projection is None:
            raise ValueError("projection: expected a linear layer, found none; give a projection_dim")
        save_file({name: value.contiguous() for name, value in self.projection.state_dict().items()}, path)

    def load_projection(self, path: str | os.PathLike[str]) -> None:
        """Take the linear layer that ``save_projection`` has written.

        Raises:
            ValueError: It is none, or not one of these widths.
        """
        weights = load_file(path)
        if weights.keys() != {"weight", "bias"} or weights["weight"].ndim != 2:
            raise ValueError(f"{path}: expected a linear layer, weight and bias, found {sorted(weights)}")
        to_dim, from_dim = weights["weight"].shape
        expected = (_known_width_of(self.model), to_dim if self.projection_dim is None else self.projection_dim)
        if (from_dim, to_dim) != expected:
            raise ValueError(f"{path}: expected a layer from width to width {expected}, found {(from_dim, to_dim)}")
        if self.projection is None:
            self.projection = nn.Linear(from_dim, to_dim, device=_device_of(self.model))
            self.projection_dim = to_dim
        self.projection.load_state_dict(weights)

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"distance_metric": self.distance_metric, "projection_dim": self.projection_dim}


def _known_width_of(model: nn.Module) -> int:
    width = width_of(model)
    if width is None:
        raise ValueError(
            "projection: expected a model that knows the width of its embeddings, found one that does not"
        )
    return width


def _device_of(model: nn.Module) -> torch.device | None:
    return next((parameter.device for parameter in model.parameters()), None)


class MSELoss(EmbedDistillLoss):
    """The mean squared difference to the embeddings of a teacher (Reimers and Gurevych 2020,
    https://arxiv.org/abs/2004.09813), of texts or of their translations.

    mean (uᵢⱼ - yᵢⱼ)²; the label yᵢ is the teacher's embedding. Of several columns, each is a translation.

    Args:
        model: The model that is trained.
        projection_dim: As for ``EmbedDistillLoss``.
    """

    def __init__(self, model: nn.Module, *, projection_dim: int | None = None) -> None:
        super().__init__(model, "mse", projection_dim)

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"projection_dim": self.projection_dim}


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

    needs_labels = True

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

    T² KL(softmax(yᵢ / U) ‖ softmax(sᵢ / T)), sᵢ the similarities of the query to its positive and negatives; the
    labels yᵢ are the teacher's.

    Args:
        model: The model that is trained.
        similarity_fct: Similarities row by row.
        temperature: T and U; above 1 the lower similarities count more.
        student_temperature: T, if it is another.
        teacher_temperature: U, if it is another.

    Raises:
        ValueError: A temperature is not above 0, or infinite.
    """

    needs_labels = True

    def __init__(
        self,
        model: nn.Module,
        similarity_fct: Similarity = pairwise_dot_score,
        temperature: float = 1.0,
        student_temperature: float | None = None,
        teacher_temperature: float | None = None,
    ) -> None:
        super().__init__(model)
        self.similarity_fct = similarity_fct
        self.temperature = temperature
        self.student_temperature = temperature if student_temperature is None else student_temperature
        self.teacher_temperature = temperature if teacher_temperature is None else teacher_temperature
        for name in ("temperature", "student_temperature", "teacher_temperature"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}: expected a finite number above 0, found {getattr(self, name)}")

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
        student = functional.log_softmax(scores / self.student_temperature, dim=-1)
        teacher = functional.log_softmax(labels.detach().to(scores.dtype) / self.teacher_temperature, dim=-1)
        divergence = functional.kl_div(student, teacher, log_target=True, reduction="batchmean")
        return divergence * self.student_temperature**2

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "similarity_fct": name_of(self.similarity_fct),
            "temperature": self.temperature,
            "student_temperature": self.student_temperature,
            "teacher_temperature": self.teacher_temperature,
        }
