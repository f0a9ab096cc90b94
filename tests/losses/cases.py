"""Losses on fixed inputs, for this package and for sentence-transformers alike, neither of which is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

ROWS, WIDTH = 12, 8


class LinearModel(nn.Module):
    """A model whose embeddings are a linear function of vectors, so that gradients by its weights say
    everything.
    """

    def __init__(self, seed: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.device = torch.device("cpu")
        self.tokenizer: Any = None
        self.max_seq_length = ROWS
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64).float())

    # What losses of sentence-transformers look at: the first module, and the width of the embeddings.
    def __getitem__(self, place: int) -> LinearModel:
        return self

    def get_embedding_dimension(self) -> int:
        """The width of the embeddings."""
        return WIDTH

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """The embeddings of the vectors."""
        return {**features, "sentence_embedding": features["vectors"] @ self.weight.T}


def _tokenizer() -> Any:
    """A tokenizer of one word: a guide with the same one gets the same Features."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words: Any = Tokenizer(WordLevel({"word": 0}, unk_token="word"))  # noqa: S106
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=words)


def _columns(count: int) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(11)
    vectors = torch.randn(count, ROWS, WIDTH, generator=generator, dtype=torch.float64).float()
    # Positives are near to their anchors, so that no loss is at its limit.
    vectors[1:] = 0.6 * vectors[:1] + 0.8 * vectors[1:]
    return [{"vectors": column} for column in vectors]


SIMILARITIES = torch.linspace(-0.5, 1, ROWS).roll(5)
TOGETHER = (torch.arange(ROWS) % 3 == 0).long()
CLASSES = torch.arange(ROWS) % 4
TEACHER = torch.sin(torch.arange(ROWS * WIDTH, dtype=torch.float32)).view(ROWS, WIDTH)


@dataclass(frozen=True)
class LossCase:
    """A loss, and what it is given.

    Args:
        name: Its class.
        columns: How many columns of texts.
        labels: The labels.
        arguments: Of its constructor.
        functions: Arguments that are functions: name → (module, function) in either library.
        inner: For a loss over another loss: the name of that, and its arguments.
        is_guided: Whether it takes another model that knows better.
    """

    name: str
    columns: int
    labels: Tensor | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)
    inner: tuple[str, Mapping[str, Any]] | None = None
    is_guided: bool = False

    def run(self, losses: Any, util: Any) -> tuple[Tensor, Tensor]:
        """The value and the gradient by the model's weights, with the losses of either library."""
        model = LinearModel()
        arguments = {
            **self.arguments,
            **{name: _found(losses, util, path) for name, path in self.functions.items()},
        }
        if self.inner is not None:
            name, of_inner = self.inner
            arguments = {"loss": getattr(losses, name)(model, **of_inner), **arguments}
        if self.is_guided:
            guide = LinearModel(seed=4)
            model.tokenizer = guide.tokenizer = _tokenizer()
            arguments["guide"] = guide
        torch.manual_seed(5)
        loss = getattr(losses, self.name)(model, **arguments)
        value = loss(_columns(self.columns), self.labels)
        if isinstance(value, dict):
            value = torch.stack(list(value.values())).sum()
        value.backward()
        assert model.weight.grad is not None
        return value.detach(), model.weight.grad


def _found(losses: Any, util: Any, path: str) -> Callable[..., Any]:
    owner, _, name = path.rpartition(".")
    found: Callable[..., Any] = getattr(getattr(losses, owner) if owner else util, name)
    return found


_DIMS = {"matryoshka_dims": [8, 5, 2], "matryoshka_weights": [1.0, 0.5, 2.0]}

_ALL_DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
_BOTH_WAYS = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}

CASES: Mapping[str, LossCase] = {
    "cosine similarity": LossCase("CosineSimilarityLoss", 2, SIMILARITIES),
    "cosent": LossCase("CoSENTLoss", 2, SIMILARITIES),
    "cosent of dot products": LossCase(
        "CoSENTLoss", 2, SIMILARITIES, {"scale": 0.5}, {"similarity_fct": "pairwise_dot_score"}
    ),
    "cosent of ties": LossCase("CoSENTLoss", 2, TOGETHER.float()),
    "angle": LossCase("AnglELoss", 2, SIMILARITIES),
    "angle of triplets": LossCase("AnglELoss", 3),
    "angle of triplets with labels": LossCase("AnglELoss", 4, SIMILARITIES),
    "ranking": LossCase("MultipleNegativesRankingLoss", 2),
    "ranking with negatives": LossCase(
        "MultipleNegativesRankingLoss", 4, None, {"scale": 2.0}, {"similarity_fct": "dot_score"}
    ),
    "symmetric ranking": LossCase("MultipleNegativesSymmetricRankingLoss", 3),
    "cached ranking": LossCase("CachedMultipleNegativesRankingLoss", 3, None, {"mini_batch_size": 5}),
    "cached symmetric ranking": LossCase(
        "CachedMultipleNegativesSymmetricRankingLoss", 2, None, {"mini_batch_size": 5}
    ),
    "ranking of all with all": LossCase("MultipleNegativesRankingLoss", 3, None, {"directions": _ALL_DIRECTIONS}),
    "ranking by direction": LossCase("MultipleNegativesRankingLoss", 3, None, _BOTH_WAYS),
    **{
        f"ranking with hard {mode}": LossCase(
            "MultipleNegativesRankingLoss", 3, None, {"hardness_mode": mode, "hardness_strength": 5.0, "scale": 3.0}
        )
        for mode in ("in_batch_negatives", "hard_negatives", "all_negatives")
    },
    "contrastive": LossCase("ContrastiveLoss", 2, TOGETHER),
    "contrastive by sum": LossCase(
        "ContrastiveLoss",
        2,
        TOGETHER,
        {"margin": 4.0, "size_average": False},
        {"distance_metric": "SiameseDistanceMetric.EUCLIDEAN"},
    ),
    "online contrastive": LossCase("OnlineContrastiveLoss", 2, TOGETHER),
    "online contrastive, one of a kind": LossCase(
        "OnlineContrastiveLoss", 2, (torch.arange(ROWS) == 0).long(), {"margin": 1.5}
    ),
    "triplet": LossCase("TripletLoss", 3),
    "triplet by cosine": LossCase(
        "TripletLoss", 3, None, {"triplet_margin": 0.2}, {"distance_metric": "TripletDistanceMetric.COSINE"}
    ),
    "triplet by manhattan": LossCase(
        "TripletLoss", 3, None, {}, {"distance_metric": "TripletDistanceMetric.MANHATTAN"}
    ),
    "softmax": LossCase(
        "SoftmaxLoss",
        2,
        CLASSES,
        {"sentence_embedding_dimension": WIDTH, "num_labels": 4, "concatenation_sent_multiplication": True},
    ),
    "mse": LossCase("MSELoss", 1, TEACHER),
    "margin mse": LossCase("MarginMSELoss", 3, SIMILARITIES * 10),
    "margin mse, several negatives": LossCase("MarginMSELoss", 4, TEACHER[:, :2]),
    "margin mse, labels of all": LossCase("MarginMSELoss", 4, TEACHER[:, :3]),
    "divergence": LossCase("DistillKLDivLoss", 3, TEACHER[:, :2], {"temperature": 2.0}),
    "divergence, two temperatures": LossCase(
        "DistillKLDivLoss", 3, TEACHER[:, :2], {"student_temperature": 2.0, "teacher_temperature": 0.5}
    ),
    "distillation": LossCase("EmbedDistillLoss", 1, TEACHER),
    "distillation by length": LossCase("EmbedDistillLoss", 2, TEACHER, {"distance_metric": "l2"}),
    "distillation of each": LossCase(
        "EmbedDistillLoss", 2, torch.stack((TEACHER, TEACHER.roll(3)), dim=1), {"distance_metric": "mse"}
    ),
    "distillation to another width": LossCase("EmbedDistillLoss", 1, TEACHER[:, :5], {"projection_dim": 5}),
    "mse to another width": LossCase("MSELoss", 1, TEACHER[:, :3], {"projection_dim": 3}),
    "orthogonal": LossCase("GlobalOrthogonalRegularizationLoss", 2),
    "orthogonal by sum": LossCase(
        "GlobalOrthogonalRegularizationLoss", 3, None, {"mean_weight": 0.5, "aggregation": "sum"}
    ),
    "batch hard": LossCase("BatchHardTripletLoss", 1, CLASSES),
    "batch hard by cosine": LossCase(
        "BatchHardTripletLoss",
        1,
        CLASSES,
        {"margin": 0.3},
        {"distance_metric": "BatchHardTripletLossDistanceFunction.cosine_distance"},
    ),
    "batch hard, soft margin": LossCase("BatchHardSoftMarginTripletLoss", 1, CLASSES),
    "batch all": LossCase("BatchAllTripletLoss", 1, CLASSES, {"margin": 1.0}),
    "batch semi-hard": LossCase("BatchSemiHardTripletLoss", 1, CLASSES, {"margin": 1.0}),
    "gist": LossCase("GISTEmbedLoss", 2, is_guided=True),
    "gist with negatives": LossCase("GISTEmbedLoss", 3, None, {"temperature": 0.5}, is_guided=True),
    "gist with a margin": LossCase("GISTEmbedLoss", 2, None, {"temperature": 0.1, "margin": 0.3}, is_guided=True),
    "gist with a share": LossCase(
        "GISTEmbedLoss",
        3,
        None,
        {"temperature": 0.1, "margin": 0.5, "margin_strategy": "relative", "contrast_anchors": False},
        is_guided=True,
    ),
    "cached gist": LossCase(
        "CachedGISTEmbedLoss", 3, None, {"mini_batch_size": 5, "contrast_positives": False}, is_guided=True
    ),
    "mega batch": LossCase("MegaBatchMarginLoss", 2, None, {"use_mini_batched_version": False}),
    "contrastive tension": LossCase("ContrastiveTensionLoss", 2, TOGETHER),
    "contrastive tension in a batch": LossCase("ContrastiveTensionLossInBatchNegatives", 1),
    "batch semi-hard, no pairs": LossCase("BatchSemiHardTripletLoss", 1, torch.arange(ROWS)),
    "batch hard, one class": LossCase("BatchHardTripletLoss", 1, torch.zeros(ROWS, dtype=torch.long)),
    "batch all, lone classes": LossCase("BatchAllTripletLoss", 1, (torch.arange(ROWS) - 3).clamp(min=0)),
    "contrastive tension, labels in a column": LossCase("ContrastiveTensionLoss", 2, TOGETHER.view(-1, 1)),
    "cosine similarity, labels in a column": LossCase("CosineSimilarityLoss", 2, SIMILARITIES.view(-1, 1).double()),
    "matryoshka of ranking": LossCase("MatryoshkaLoss", 2, None, _DIMS, {}, ("MultipleNegativesRankingLoss", {})),
    "matryoshka of similarities": LossCase("MatryoshkaLoss", 2, SIMILARITIES, _DIMS, {}, ("CoSENTLoss", {})),
    "matryoshka of margins": LossCase("MatryoshkaLoss", 3, SIMILARITIES * 10, _DIMS, {}, ("MarginMSELoss", {})),
    "matryoshka of a batch": LossCase("MatryoshkaLoss", 1, CLASSES, _DIMS, {}, ("BatchHardTripletLoss", {})),
    "matryoshka of a teacher": LossCase("MatryoshkaLoss", 1, TEACHER, _DIMS, {}, ("MSELoss", {})),
    "matryoshka of cached ranking": LossCase(
        "MatryoshkaLoss", 2, None, _DIMS, {}, ("CachedMultipleNegativesRankingLoss", {"mini_batch_size": 5})
    ),
}
"""Name → loss."""
