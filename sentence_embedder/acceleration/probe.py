"""Probe: a few made-up texts, to compare what was read of a model with the model itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.acceleration.shadow import Shadow, twin_of
from sentence_embedder.features import PackedTexts

_LENGTHS = (4, 4, 4, 3, 3, 2, 1)
_PADS = 2
"""Short enough, with so much padding too, for any model."""


class Probe:
    """A few made-up texts, through a twin of a model: some forward passes write into their buffers.

    Args:
        model: The model.
        pad_token_id: What texts are padded with: there are models that look for it, and not at the mask.
    """

    def __init__(self, model: Any, pad_token_id: int) -> None:
        self._model = model
        # A table may lack a row for what its tokenizer pads with.
        self._pad = pad_token_id if pad_token_id < model.get_input_embeddings().num_embeddings else 0

    def error(self, stands_for_it: Encoder | Shadow) -> float:
        """The largest relative difference between the token embeddings of the model and of what stands for it."""
        return _difference(self._expected, self._found(stands_for_it))

    def error_of_texts(self, stands_for_it: Encoder | Shadow) -> float:
        """The same of the mean embeddings of texts."""
        return _difference(self._means(self._expected), self._means(self._found(stands_for_it)))

    def sides_to_pad(self, most: float) -> frozenset[str]:
        """The sides on which padding changes no embedding by more than so much of it, ``"left"`` and ``"right"``:
        there are models that do not look at the mask.
        """
        sides = {"left": (_PADS, 0), "right": (0, _PADS)}
        return frozenset(side for side, pads in sides.items() if self._change_by(pads) <= most)

    def _change_by(self, pads: tuple[int, int]) -> float:
        filling = {"input_ids": self._pad, "attention_mask": 0}
        padded = {name: functional.pad(values, pads, value=filling[name]) for name, values in self._inputs.items()}
        return _difference(self._expected, _token_embeddings(self._twin, padded))

    @cached_property
    def _packed(self) -> PackedTexts:
        lengths = np.array(_LENGTHS)
        ids = np.arange(lengths.sum(), dtype=np.int64) * 7919 % self._model.get_input_embeddings().num_embeddings
        return PackedTexts(columns={"input_ids": ids}, lengths=lengths)

    @cached_property
    def _inputs(self) -> dict[str, Tensor]:
        device = next(self._model.parameters()).device
        mask = torch.from_numpy(self._packed.mask).to(device)
        padded = torch.full(mask.shape, self._pad, device=device)
        padded[mask] = torch.from_numpy(self._packed.columns["input_ids"]).to(device)
        return {"input_ids": padded, "attention_mask": mask.long()}

    @cached_property
    def _twin(self) -> nn.Module:
        twin: nn.Module = twin_of(self._model)
        return twin

    @cached_property
    def _expected(self) -> Tensor:
        return _token_embeddings(self._twin, self._inputs)

    def _found(self, stands_for_it: Encoder | Shadow) -> Tensor:
        if isinstance(stands_for_it, Shadow):
            return _token_embeddings(stands_for_it.new(), self._inputs)
        with torch.no_grad():
            return stands_for_it(self._packed)

    def _means(self, tokens: Tensor) -> Tensor:
        texts = torch.split(tokens, self._packed.lengths.tolist())
        return torch.stack([text.float().mean(0) for text in texts])


@torch.no_grad()
def _token_embeddings(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The embeddings of all tokens, (tokens, dim)."""
    embeddings: Tensor = model(**inputs, return_dict=True)[0]
    return embeddings[inputs["attention_mask"].bool()]


def _difference(expected: Tensor, found: Tensor) -> float:
    """The largest distance between rows, relative to their length; NaN if a number is."""
    distances = (expected.float() - found.float()).norm(dim=-1)
    return float((distances / expected.float().norm(dim=-1).clamp(min=1e-12)).max())
