"""Fingerprint: what tells a model from others."""

from __future__ import annotations

import hashlib
from operator import itemgetter
from typing import Any

from torch import Tensor, nn

from sentence_embedder.deferred import state_seen
from sentence_embedder.features import memory_of


def fingerprint_of(model: nn.Module) -> str:
    """A digest of a model's modules, its tokenizer and its weights; what is deferred is not loaded for it."""
    backend = getattr(_tokenizer_seen(model), "backend_tokenizer", None)
    digest = hashlib.sha256(f"{[*model.children()]!r}{'' if backend is None else backend.to_str()}".encode())
    for name, value in sorted(state_seen(model), key=itemgetter(0)):  # a stand-in has them in another order
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(memory_of(value.detach().cpu().contiguous()).data.cast("B") if value.numel() else b"")
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _tokenizer_seen(model: nn.Module) -> Any:
    """The tokenizer of a model, or what stands in for it."""
    first: Any = next(model.children(), None)
    return first.tokenizer_seen if hasattr(first, "tokenizer_seen") else getattr(model, "tokenizer", None)
