"""Positions: how many tokens of a text a model has places for, if it learnt an embedding of each place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

_FROM_0 = frozenset({"albert", "bert", "distilbert", "electra", "ernie"})
_BEHIND_PADDING = frozenset({"camembert", "mpnet", "roberta", "xlm-roberta", "xlm-roberta-xl"})
"""Architectures by where they count from: the first row of their table, or the row behind that of padding."""


@dataclass(frozen=True)
class Positions:
    """The table of positions of a model.

    Args:
        rows: How many rows it has.
        padding_id: The id of padding, which is not counted, if places are counted from the row behind its number.
    """

    rows: int
    padding_id: int | None = None

    @staticmethod
    def of(model: Any) -> Positions | None:
        """Those of a model of transformers; None if its architecture is not known to have such a table."""
        config, embeddings = getattr(model, "config", None), getattr(model, "embeddings", None)
        architecture = getattr(config, "model_type", None)
        table = getattr(getattr(embeddings, "position_embeddings", None), "weight", None)
        is_absolute = getattr(config, "position_embedding_type", None) in (None, "absolute")
        if not (isinstance(table, nn.Parameter) and table.ndim == 2 and is_absolute):
            return None
        if architecture in _FROM_0:
            return Positions(table.shape[0])
        padding_id = getattr(embeddings, "padding_idx", None)
        if architecture in _BEHIND_PADDING and padding_id is not None:
            return Positions(table.shape[0], padding_id)
        return None

    @property
    def most(self) -> int:
        """How many tokens it has places for."""
        return self.rows if self.padding_id is None else self.rows - self.padding_id - 1

    def check(self, texts: Sequence[Sequence[int]], limit: int | None) -> None:
        """Raise a ValueError if there is no place for a token of a text.

        Args:
            texts: The token ids of each text.
            limit: The ``max_seq_length`` that let it be so long, for the message.
        """
        most = self.most
        for ids in texts:
            # Tokens are counted one by one only where it matters.
            if len(ids) > most and sum(token != self.padding_id for token in ids) > most:
                raise ValueError(
                    f"max_seq_length={limit}: a text has {len(ids):,} tokens, and the model has places for "
                    f"{most:,}: set max_seq_length to {most} or less"
                )
