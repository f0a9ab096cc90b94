"""Evaluators of classifiers that are trained with a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.evaluation.sentence_evaluator import Measured, MeasuringEvaluator
from sentence_embedder.loaders import Collation, batch_to, batches_of


class LabelAccuracyEvaluator(MeasuringEvaluator):
    """How often a classifier, such as that of a SoftmaxLoss, finds the right class.

    Metric: ``accuracy``.

    Args:
        dataloader: Batches of examples with a class as label, as ``fit`` takes them, or of what is made from them:
            the Features of each column, and labels (rows,). It is iterated, and left as it is.
        name: What is put before the name of the metric, and into that of the CSV file.
        softmax_model: Features of each column, ``labels=None`` → the embeddings, and scores (rows, classes).
        write_csv: Whether figures are appended to a CSV file.

    Raises:
        ValueError: There is no classifier; when a model is judged, there are no examples.
    """

    def __init__(
        self,
        dataloader: Iterable[Any],
        name: str = "",
        softmax_model: Callable[..., Any] | None = None,
        write_csv: bool = True,
    ) -> None:
        super().__init__(name, write_csv=write_csv)
        if softmax_model is None:
            raise ValueError(
                "softmax_model: expected a classifier, such as the SoftmaxLoss of a training, found None"
            )
        self.dataloader = dataloader
        self.softmax_model = softmax_model

    @property
    def _default_csv_file(self) -> str:
        return self.file_name("accuracy_evaluation")

    def measured(self, model: Any) -> Measured:
        """The accuracy of a model, and of the classifier."""
        right = total = 0
        collation = Collation(model)
        with torch.no_grad(), _evaluating(model, self.softmax_model):
            for found in batches_of(self.dataloader, collation):
                columns, labels = batch_to(collation(found), model.device)
                if labels is None:
                    raise ValueError("dataloader: expected a class for each row, found batches without labels")
                _, scores = self.softmax_model(columns, labels=None)
                right += _count_of_right(scores, torch.as_tensor(labels, device=scores.device))
                total += len(scores)
        if not total:
            raise ValueError(
                "dataloader: expected examples, found none; one that can be iterated only once is used up"
            )
        accuracy = right / total
        return Measured(metrics={"accuracy": accuracy}, primary="accuracy", columns={"accuracy": accuracy})


def _count_of_right(scores: Tensor, labels: Tensor) -> int:
    """For how many rows of scores (rows, classes) the highest is that of the label, a class or shares of all."""
    classes = labels.argmax(dim=1) if labels.shape == scores.shape else labels.view(-1)
    return int((scores.argmax(dim=1) == classes).sum())


@contextmanager
def _evaluating(*parts: Any) -> Iterator[None]:
    """Whatever is a module in evaluation mode, and after it as it was."""
    modules = [module for part in parts if isinstance(part, nn.Module) for module in part.modules()]
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
