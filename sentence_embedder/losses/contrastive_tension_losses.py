"""Losses of contrastive tension: texts without labels (Carlsson et al. 2021,
https://openreview.net/forum?id=Ov_sMNau-PF).
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.features import Features
from sentence_embedder.input_example import InputExample
from sentence_embedder.losses.embedding_loss import EmbeddingLoss, columns
from sentence_embedder.losses.ranking_losses import ranking
from sentence_embedder.losses.similarity_losses import Similarity, name_of
from sentence_embedder.similarity import cos_sim


class ContrastiveTensionLoss(EmbeddingLoss):
    """Two copies of a model should embed a text alike, and different texts differently.

    Σ BCE(σ(u₁ᵢ · u₂ᵢ), yᵢ), where u₁ and u₂ are made by the copies; the label yᵢ is 1 if both texts are the same,
    else 0. ``ContrastiveTensionDataLoader`` makes such pairs. The model itself is the second copy.

    Args:
        model: The model that is trained.
    """

    _columns: tuple[int, ...] = (2,)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.model2 = model
        self.model1 = copy.deepcopy(model)

    def embeddings(self, sentence_features: Iterable[Features]) -> list[Tensor]:
        """The sentence embeddings of each column, by a copy each."""
        features = columns(list(sentence_features), *self._columns)
        return [self.model1(features[0])["sentence_embedding"], self.model2(features[-1])["sentence_embedding"]]

    def of_embeddings(self, embeddings: list[Tensor], targets: Tensor) -> Tensor:
        """The loss of pairs (two columns) and labels (rows,)."""
        first, second = embeddings
        scores = (first * second).sum(dim=-1)
        labels = targets.view(-1).to(scores.dtype)
        return functional.binary_cross_entropy_with_logits(scores, labels, reduction="sum")


class ContrastiveTensionLossInBatchNegatives(ContrastiveTensionLoss):
    """The same with all other texts of a batch as those that differ, and a temperature that is learnt: each text
    should be nearer to itself than to all others, in both directions. Labels mean nothing.

    Args:
        model: The model that is trained.
        scale: The factor of the similarities in the beginning.
        similarity_fct: Similarities of all pairs.
    """

    _columns: tuple[int, ...] = (1, 2)

    def __init__(self, model: nn.Module, scale: float = 20.0, similarity_fct: Similarity = cos_sim) -> None:
        super().__init__(model)
        self.similarity_fct = similarity_fct
        self.logit_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def of_embeddings(self, embeddings: list[Tensor], targets: Tensor | None = None) -> Tensor:
        """The loss of texts, in one column, or in two that are the same."""
        del targets
        scores = self.similarity_fct(*embeddings) * self.logit_scale.exp()
        return (ranking(scores) + ranking(scores.T)) / 2

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {"scale": float(self.logit_scale.detach().exp()), "similarity_fct": name_of(self.similarity_fct)}


class ContrastiveTensionDataLoader:
    """Batches of pairs for a ContrastiveTensionLoss: of so many pairs, one is a text and itself, with label 1, and
    the others are two different texts, with label 0. Each epoch has another order.

    Args:
        sentences: The texts.
        batch_size: How many pairs a batch has.
        pos_neg_ratio: Of how many pairs one is of label 1.

    Raises:
        ValueError: The batch size is no multiple of that number.
    """

    def __init__(
        self, sentences: Sequence[str] | NDArray[np.str_], batch_size: int, pos_neg_ratio: int = 8
    ) -> None:
        if batch_size % pos_neg_ratio != 0:
            raise ValueError(
                f"batch_size: expected a multiple of pos_neg_ratio={pos_neg_ratio}, found {batch_size}"
            )
        self.sentences = sentences
        self.batch_size = batch_size
        self.pos_neg_ratio = pos_neg_ratio
        self.collate_fn: Callable[[list[InputExample]], Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        shuffled = random.sample(list(self.sentences), len(self.sentences))
        texts = iter(shuffled)
        while True:
            batch = [pair for place in range(self.batch_size) if (pair := self._pair(place, texts)) is not None]
            if len(batch) < self.batch_size:
                return
            yield batch if self.collate_fn is None else self.collate_fn(batch)

    def _pair(self, place: int, texts: Iterator[str]) -> InputExample | None:
        """The pair at a place of a batch; None if there are no texts left for one."""
        first = next(texts, None)
        is_same = place % self.pos_neg_ratio == 0
        second = first if is_same else next(texts, None)
        if first is None or second is None:
            return None
        return InputExample(texts=[first, second], label=int(is_same))

    def __len__(self) -> int:
        """How many batches an epoch has."""
        texts = self.batch_size * 2 - self.batch_size // self.pos_neg_ratio
        return len(self.sentences) // texts
