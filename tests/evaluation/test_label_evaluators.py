"""LabelAccuracyEvaluator: how often a classifier is right; nobody's loader or mode changes for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sentence_embedder import InputExample, SentenceTransformer, evaluation
from tests.evaluation.cases import classifier_and_loader

CLASSES = [0, 1, 1, 2, 0]


class _Parrot:
    """A classifier that says what stands in its table, batch after batch."""

    def __init__(self, *scores: list[list[float]]) -> None:
        self._scores = iter(scores)

    def __call__(self, sentence_features: Any, labels: None) -> tuple[None, Tensor]:
        assert [column["input_ids"].shape[0] for column in sentence_features] == [len(CLASSES)] * 2
        assert labels is None
        return None, torch.tensor(next(self._scores))


def _batch() -> list[InputExample]:
    return [InputExample(texts=[f"a {label}", f"b {label}"], label=label) for label in CLASSES]


def test_the_share_of_right_classes(model: SentenceTransformer) -> None:
    """Of five classes three are found; batches of examples and of Features count alike."""
    scores = torch.eye(3)[[0, 1, 2, 2, 1]].tolist()
    features, labels = model.smart_batching_collate(_batch())
    shares = torch.eye(3)[labels]

    for batch in (_batch(), (features, labels), (features, CLASSES), (features, shares)):
        evaluator = evaluation.LabelAccuracyEvaluator([batch], "dev", softmax_model=_Parrot(scores))
        assert evaluator(model) == {"dev_accuracy": pytest.approx(0.6)}


def test_loader_and_modes_stay_as_they_are(minilm: SentenceTransformer) -> None:
    """During training, dropout is off while it is judged and on again after it, but where it was off before; the
    loader still collates in its own way, and no gradient is kept.
    """
    loss, loader = classifier_and_loader(evaluation, minilm)
    collate = loader.collate_fn
    evaluator = evaluation.LabelAccuracyEvaluator(loader, softmax_model=loss)
    expected = evaluator(minilm)
    modes = []
    loss.register_forward_hook(lambda module, *_: modes.append({part.training for part in module.modules()}))
    loss.train()
    minilm[1].eval()
    try:
        assert evaluator(minilm) == expected
        assert modes == [{False}] * 6
        assert loss.training
        assert minilm[0].training
        assert not minilm[1].training
    finally:
        minilm.eval()
    assert loader.collate_fn is collate
    assert loss.classifier.weight.grad is None


def test_modes_come_back_after_an_error(model: SentenceTransformer) -> None:
    """A classifier that fails leaves the model in training mode, if it was."""
    model.train()
    evaluator = evaluation.LabelAccuracyEvaluator([_batch()], softmax_model=_Parrot())

    with pytest.raises(StopIteration):
        evaluator(model)

    assert all(module.training for module in model.modules())


def test_without_a_classifier_or_examples_there_is_no_accuracy(model: SentenceTransformer) -> None:
    """What is missing is named: the classifier before a training begins, the examples when they are asked for."""
    with pytest.raises(ValueError, match="softmax_model: expected a classifier"):
        evaluation.LabelAccuracyEvaluator([])
    with pytest.raises(ValueError, match="dataloader: expected examples, found none"):
        evaluation.LabelAccuracyEvaluator([], softmax_model=_Parrot())(model)
