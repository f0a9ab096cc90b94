"""TrainingFacts: what the card of a model says of its training, apart from what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from enum import Enum
from typing import Any

import numpy as np
from torch import nn

from sentence_embedder.input_example import InputExample
from sentence_embedder.training.plan import TrainingPlan

_TASKS = {
    "BinaryClassificationEvaluator": "Binary Classification",
    "EmbeddingSimilarityEvaluator": "Semantic Similarity",
    "InformationRetrievalEvaluator": "Information Retrieval",
    "LabelAccuracyEvaluator": "Text Classification",
    "MSEEvaluator": "Knowledge Distillation",
    "ParaphraseMiningEvaluator": "Paraphrase Mining",
    "RerankingEvaluator": "Reranking",
    "TranslationEvaluator": "Translation",
    "TripletEvaluator": "Triplet",
}


def facts_of(objectives: Sequence[tuple[Any, nn.Module]], plan: TrainingPlan, evaluator: Any) -> dict[str, Any]:
    """What the card says: ``objectives``, ``arguments``, ``evaluator`` and ``citations``.

    Args:
        objectives: Loaders and losses.
        plan: How the model is trained.
        evaluator: What judges it, if anything does.
    """
    return {
        "objectives": [_objective(loader, loss) for loader, loss in objectives],
        "arguments": plan.to_dict(),
        "evaluator": None if evaluator is None else _evaluator(evaluator),
        "citations": [
            part.citation for _, loss in objectives for part in loss.modules() if getattr(part, "citation", "")
        ],
    }


def _objective(loader: Any, loss: nn.Module) -> dict[str, Any]:
    data = getattr(loader, "dataset", None)
    return {
        "loader": type(loader).__name__,
        "batch_size": getattr(loader, "batch_size", None),
        "examples": len(data) if isinstance(data, Sized) else None,
        "columns": _columns(data),
        "loss": type(loss).__name__,
        "settings": _plain(getattr(loss, "get_config_dict", dict)()),
    }


def _plain(value: Any) -> Any:
    """A setting as JSON has it, of anything else the name of its class: a model that was trained holds on to no
    guide, and can be pickled whatever functions its loss had.
    """
    if isinstance(value, Mapping):
        return {str(key): _plain(inside) for key, inside in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inside) for inside in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Enum):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return getattr(value, "__qualname__", type(value).__qualname__)  # a repr may hold addresses, and paths


def _columns(data: Any) -> str | None:
    """Which columns data has, as far as that can be seen without drawing from it."""
    names = getattr(data, "column_names", None)
    if isinstance(names, (list, tuple)):
        return ", ".join(map(str, names))
    first = data[0] if isinstance(data, (list, tuple)) and data else None
    if isinstance(first, InputExample):
        return f"{len(first.texts or ())} texts, and a label ({type(first.label).__name__})"
    return ", ".join(map(str, first)) if isinstance(first, Mapping) else None


def _evaluator(evaluator: Any) -> dict[str, str]:
    kind = type(evaluator).__name__
    return {"task": _TASKS.get(kind, kind), "name": str(getattr(evaluator, "name", "") or "")}
