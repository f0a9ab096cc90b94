"""Request: what a pool is asked to do with each chunk of texts, and how a worker does it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.encoding.cut_texts import CutTexts
from sentence_embedder.encoding.nonfinite import NonFiniteRows
from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.features import memory_of, tensor_of


@dataclass(frozen=True)
class Request:
    """What is wanted of every text.

    Args:
        options: What the call of ``encode`` asks for. Workers leave the last steps to the caller, who quantises
            over all texts and chooses what the result stands in.
        kwargs: What modules of the model ask for.
        encode: (model, texts, …) → embeddings: the method that was called, not one that overrides it, which has
            done its part in the caller's process.
    """

    options: EncodeOptions
    kwargs: Mapping[str, Any]
    encode: Callable[..., Any]

    def answered_by(self, model: Any, texts: Sequence[Any]) -> Answer:
        """What a model makes of a chunk of texts.

        Args:
            model: A SentenceTransformer.
            texts: Its items, as they were handed to ``encode``.
        """
        options = self.options
        cut = CutTexts()
        model.truncate_dim = options.truncate_dim  # the caller's may have changed since the pool was started
        made = self.encode(
            model,
            list(texts),
            prompt=options.prompt or "",
            batch_size=options.batch_size,
            show_progress_bar=False,
            output_value=options.output_value,
            convert_to_tensor=True,
            normalize_embeddings=options.normalize_embeddings,
            truncate_dim=options.truncate_dim,
            truncation=cut,
            on_nonfinite=NonFiniteRows(),
            deterministic=options.deterministic,
            **self.kwargs,
        )
        if options.output_value == "sentence_embedding":
            answer = Answer.of_rows(made)
        else:
            answer = Answer.of_matrices(made) if options.output_value else Answer.of_objects(made)
        return replace(answer, cut=cut.places)


@dataclass(frozen=True)
class Answer:
    """What a worker makes of a chunk, as one array that can be sent in one piece.

    Args:
        numbers: All values, as whole numbers of the same size.
        format: What they are: the name of a format of torch, or ``"objects"`` for anything at all.
        lengths: Of token embeddings, how many tokens each text has, shape (texts,).
        cut: The places of texts in the chunk that were longer than the model reads.
    """

    numbers: NDArray[Any]
    format: str
    lengths: NDArray[np.int64] | None = None
    cut: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @staticmethod
    def of_rows(rows: Tensor) -> Answer:
        """Sentence embeddings, shape (texts, dim)."""
        return Answer(memory_of(rows.detach().cpu().contiguous()), str(rows.dtype).removeprefix("torch."))

    @staticmethod
    def of_matrices(matrices: Sequence[Tensor]) -> Answer:
        """Token embeddings: for each text a tensor (tokens, dim)."""
        rows = Answer.of_rows(torch.cat(list(matrices)))
        return Answer(rows.numbers, rows.format, np.array([len(matrix) for matrix in matrices], dtype=np.int64))

    @staticmethod
    def of_objects(objects: Sequence[Any]) -> Answer:
        """Anything, a dict for each text say."""
        written = io.BytesIO()
        torch.save(list(objects), written)
        return Answer(np.frombuffer(written.getbuffer(), dtype=np.int8), "objects")

    def results(self) -> Any:
        """What the model made: a tensor of rows, or a list with what belongs to each text; all on the CPU."""
        if self.format == "objects":
            # Written by a process that this one has started.
            return torch.load(io.BytesIO(self.numbers.tobytes()), map_location="cpu", weights_only=False)
        rows = tensor_of(self.numbers, getattr(torch, self.format))
        # Each text's own: its owner may change it.
        return rows if self.lengths is None else [part.clone() for part in torch.split(rows, self.lengths.tolist())]
