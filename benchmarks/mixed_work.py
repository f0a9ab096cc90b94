"""Mixed work: calls of many kinds, and how far apart two answers to one of them are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from sentence_embedder import SentenceTransformer

_MANY = 60
"""So many texts are several batches."""

_LARGE = 256
"""Batches that are worth several threads even if the model takes 24 tokens."""


@dataclass(frozen=True)
class Piece:
    """A piece of work, whose answer is always the same.

    Attributes:
        name: What it is.
        call: Model → answer.
    """

    name: str
    call: Callable[[SentenceTransformer], Any]


def mixed_work(texts: Sequence[str]) -> list[Piece]:
    """Pieces of every kind.

    Args:
        texts: What is encoded, at least sixty.
    """
    one, few, many = texts[0], list(texts[1:4]), list(texts[:_MANY])
    long = " ".join(texts[:3])
    pairs = list(pairwise(few))
    few_with: Mapping[str, Mapping[str, Any]] = {
        "a list": {},
        "small batches": {"batch_size": 2},
        "normalised": {"normalize_embeddings": True},
        "a prompt": {"prompt": "the query: "},
        "truncated": {"truncate_dim": 5, "normalize_embeddings": True},
        "tokens": {"output_value": "token_embeddings"},
        "features": {"output_value": None},
        "a tensor": {"convert_to_tensor": True},
        "tensors": {"convert_to_numpy": False},
        "bits": {"precision": "ubinary"},
        "signed bits": {"precision": "binary"},
    }

    def with_options(options: Mapping[str, Any]) -> Callable[[SentenceTransformer], Any]:
        return lambda model: model.encode(few, truncation="ignore", **options)

    return [
        Piece("a text", lambda model: model.encode(one)),
        Piece("a long text", lambda model: model.encode(long, truncation="ignore")),
        Piece("many texts", lambda model: model.encode(many, batch_size=_LARGE, truncation="ignore")),
        Piece("pairs", lambda model: model.encode(pairs, truncation="ignore")),
        Piece("nothing", lambda model: model.encode([])),
        *(Piece(name, with_options(options)) for name, options in few_with.items()),
        Piece("a query", lambda model: model.encode_query(one)),
        Piece("documents", lambda model: model.encode_document(few, truncation="ignore")),
        Piece("chunks", lambda model: model.encode_chunks(one, [(0, 6), (6, 14)])),
        Piece("a stream", lambda model: list(model.encode_iter(iter(few), chunk_size=2))),
        Piece("counts", lambda model: model.count_tokens(few)),
        Piece("similarities", lambda model: model.similarity(model.encode(few[:1]), model.encode(few[1:]))),
        Piece("what it is", _looked_at),
    ]


def _looked_at(model: SentenceTransformer) -> Any:
    return [model.max_seq_length, model.get_sentence_embedding_dimension(), model.similarity_fn_name, repr(model)]


def difference(found: Any, expected: Any) -> float:
    """The largest difference of two numbers in two answers; infinite if they are not of one shape.

    Args:
        found: An answer.
        expected: The other one.
    """
    if isinstance(expected, Tensor):
        return (
            difference(found.detach().float().numpy(), expected.float().numpy())
            if _alike(found, expected)
            else np.inf
        )
    if isinstance(expected, np.ndarray):
        if not _alike(found, expected) or found.shape != expected.shape or found.dtype != expected.dtype:
            return np.inf
        return float(np.abs(found.astype(np.float64) - expected).max(initial=0))
    if isinstance(expected, Mapping):
        if not _alike(found, expected) or found.keys() != expected.keys():
            return np.inf
        return difference(list(found.values()), list(expected.values()))
    if isinstance(expected, (list, tuple)):
        if not _alike(found, expected) or len(found) != len(expected):
            return np.inf
        return max((difference(*two) for two in zip(found, expected, strict=True)), default=0.0)
    return 0.0 if found == expected else np.inf


def _alike(found: Any, expected: Any) -> bool:
    return isinstance(found, type(expected))
