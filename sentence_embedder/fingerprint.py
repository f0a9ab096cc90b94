"""Fingerprint: what tells a model from others."""

from __future__ import annotations

import hashlib

from torch import Tensor, nn

from sentence_embedder.features import memory_of


def fingerprint_of(model: nn.Module) -> str:
    """A digest of a model's modules, its tokenizer and its weights."""
    backend = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
    digest = hashlib.sha256(f"{[*model.children()]!r}{'' if backend is None else backend.to_str()}".encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(memory_of(value.detach().cpu().contiguous()).data.cast("B") if value.numel() else b"")
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
