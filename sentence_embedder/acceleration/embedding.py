"""The first step of an encoder: token ids → token embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.acceleration.batch import Batch
from sentence_embedder.features import PackedTexts, array_to_device


@dataclass(frozen=True)
class TableEmbedding:
    """The sum of one row of each table, and what follows it.

    Args:
        tables: Name of a column, or ``positions`` → its table, shape (rows, dim).
        after: What happens to the sum; a norm, as a rule.
        padding_id: If there is one, positions are counted from the next number on, as RoBERTa does, and
            tokens with this id have it for a position.
    """

    tables: Sequence[tuple[str, Tensor]]
    after: Callable[[Tensor], Tensor]
    padding_id: int | None = None

    def columns(self, texts: PackedTexts, device: torch.device) -> dict[str, Tensor]:
        """What it reads of texts beside their lengths: a name → int64, shape (tokens,).

        Positions are among it only where padding is among the tokens: elsewhere they are what the lengths say.

        Args:
            texts: The batch.
            device: Where it is computed.
        """
        columns = {name: texts.columns[name] for name, _ in self.tables if name in texts.columns}
        if self.padding_id is not None:
            is_token = texts.columns["input_ids"][: texts.lengths.sum()] != self.padding_id
            if not is_token.all():
                columns["positions"] = self._positions(texts, is_token)
        return {name: array_to_device(column, device) for name, column in columns.items()}

    def __call__(self, columns: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The embeddings of all tokens, float32, shape (tokens, dim), in memory that nobody else has.

        Args:
            columns: What ``columns`` makes of the texts.
            batch: What the tokens are.
        """
        return self.after(reduce(torch.add, (self._rows(*table, columns, batch) for table in self.tables)))

    def counts_padding(self, pad_token_id: int | None) -> bool:
        """Whether padding is counted among the positions of a text, so that padding on the left shifts the text.

        Args:
            pad_token_id: The token that texts are padded with.
        """
        has_positions = any(name == "positions" for name, _ in self.tables)
        return has_positions and (self.padding_id is None or self.padding_id != pad_token_id)

    def _rows(self, name: str, table: Tensor, columns: Mapping[str, Tensor], batch: Batch) -> Tensor:
        if name in columns:
            return torch.embedding(table, columns[name])
        if name != "positions":
            return table[0]  # a tokenizer that gives no token types means type 0
        first = 0 if self.padding_id is None else self.padding_id + 1
        end = first + batch.texts.tokens
        if batch.texts.is_lone and end <= table.shape[0]:
            return table[first:end]  # the weights themselves, of which a sum is made
        return torch.embedding(table, batch.positions + first if first else batch.positions)

    def _positions(self, texts: PackedTexts, is_token: NDArray[np.bool_]) -> NDArray[np.int64]:
        counted = np.cumsum(is_token)
        starts = np.cumsum(texts.lengths) - texts.lengths
        before = np.repeat(np.concatenate(([0], counted))[starts], texts.lengths)
        return texts.filled((counted - before) * is_token + self.padding_id)
