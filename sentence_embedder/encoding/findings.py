"""Findings: what a call of ``encode`` finds out about its texts."""

from __future__ import annotations

from dataclasses import dataclass

from sentence_embedder.encoding.cut_texts import CutTexts
from sentence_embedder.encoding.nonfinite import NonFiniteRows


@dataclass(frozen=True)
class Findings:
    """What a call of ``encode`` finds out about its texts, for who called it.

    Args:
        cut: Which were longer than the model reads.
        nonfinite: Of which the model makes no finite numbers.
    """

    cut: CutTexts
    nonfinite: NonFiniteRows

    @property
    def start(self) -> int:
        """The row of the first text, if these are a part of more."""
        return self.cut.start
