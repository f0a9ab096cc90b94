"""sentence_embedder: a drop-in reimplementation of the ``SentenceTransformer`` class.

The names below are imported when they are first used: ``import sentence_embedder`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from sentence_embedder.version import __version__

if TYPE_CHECKING:
    from sentence_embedder.datasets.parallel_dataset import ParallelSentencesDataset
    from sentence_embedder.datasets.sentences_dataset import SentencesDataset
    from sentence_embedder.encoding.nonfinite import NonFiniteError
    from sentence_embedder.input_example import InputExample
    from sentence_embedder.logging_handler import LoggingHandler
    from sentence_embedder.model_card_data import SentenceTransformerModelCardData
    from sentence_embedder.pool.encode_pool import EncodePool
    from sentence_embedder.pool.failure import PoolError
    from sentence_embedder.quantization.calibration import Calibration
    from sentence_embedder.quantization.precision import quantize_embeddings
    from sentence_embedder.sentence_transformers import SentenceTransformer
    from sentence_embedder.serving.batcher import Batcher
    from sentence_embedder.similarity import SimilarityFunction

__all__ = [
    "Batcher",
    "Calibration",
    "EncodePool",
    "InputExample",
    "LoggingHandler",
    "NonFiniteError",
    "ParallelSentencesDataset",
    "PoolError",
    "SentenceTransformer",
    "SentenceTransformerModelCardData",
    "SentencesDataset",
    "SimilarityFunction",
    "__version__",
    "quantize_embeddings",
]

_HOMES = {
    "Batcher": "serving.batcher",
    "Calibration": "quantization.calibration",
    "EncodePool": "pool.encode_pool",
    "InputExample": "input_example",
    "LoggingHandler": "logging_handler",
    "NonFiniteError": "encoding.nonfinite",
    "ParallelSentencesDataset": "datasets.parallel_dataset",
    "PoolError": "pool.failure",
    "SentenceTransformer": "sentence_transformers",
    "SentenceTransformerModelCardData": "model_card_data",
    "SentencesDataset": "datasets.sentences_dataset",
    "SimilarityFunction": "similarity",
    "quantize_embeddings": "quantization.precision",
}


_SUBMODULES = (
    "compat",
    "datasets",
    "evaluation",
    "losses",
    "models",
    "quantization",
    "readers",
    "similarity",
    "util",
)


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
