"""EmbeddingColumn: embeddings as a column of a table of Arrow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from sentence_embedder.encoding.collector import Collector
from sentence_embedder.encoding.cut_texts import CutTexts, Truncation
from sentence_embedder.encoding.nonfinite import NonFiniteRows, OnNonFinite
from sentence_embedder.pool.request import Request
from sentence_embedder.progress import Progress
from sentence_embedder.quantization.precision import CALIBRATED_PRECISIONS, as_numpy, quantize_embeddings

_SET_HERE = (
    *("output_value", "convert_to_numpy", "convert_to_tensor", "show_progress_bar"),
    *("device", "pool", "chunk_size", "out"),
)


@dataclass(frozen=True)
class EmbeddingColumn:
    """A column of embeddings that is made of a column of texts.

    Args:
        texts: The column of the texts.
        name: The column of the embeddings.
        request: What is wanted of each text.
        truncation: What is made of texts that are longer than the model reads.
        on_nonfinite: What is made of embeddings that are not finite.
    """

    texts: str
    name: str
    request: Request
    truncation: Truncation = "warn"
    on_nonfinite: OnNonFinite = "nan"

    @staticmethod
    def of(model: Any, texts: str, name: str, arguments: Mapping[str, Any]) -> EmbeddingColumn:
        """The column for arguments of ``encode``.

        Raises:
            TypeError: The model's modules do not take an argument.
            ValueError: An argument has no meaning for a column, or a value that does not exist.
        """
        unfit = [argument for argument in _SET_HERE if argument in arguments]
        if unfit:
            raise ValueError(
                f"{', '.join(unfit)}: expected arguments that have a meaning for a column of embeddings"
            )
        if name == texts:
            raise ValueError(f"output_column={name!r}: expected another one than that of the texts")
        if arguments.get("precision") in CALIBRATED_PRECISIONS and model.calibration is None:
            raise ValueError(
                f"precision={arguments['precision']!r}: expected one that needs no look at all embeddings first, "
                "or a model that is calibrated; or write float32, and quantise with quantize_embeddings and ranges"
            )
        listener = _Listener(model)
        model.encode([], pool=listener, **arguments)
        return EmbeddingColumn(
            texts,
            name,
            listener.requests[0],
            arguments.get("truncation", "warn"),
            arguments.get("on_nonfinite", "nan"),
        )

    @property
    def settings(self) -> dict[str, str]:
        """What the embeddings depend on beside the model, in words."""
        options = self.request.options
        wanted = {
            "column": self.texts,
            "output_column": self.name,
            "prompt": options.prompt or "",
            "precision": options.precision,
            "normalize_embeddings": options.normalize_embeddings,
            "truncate_dim": options.truncate_dim,
            "deterministic": options.deterministic,
            **self.request.kwargs,
        }
        return {name: repr(value) for name, value in wanted.items()}

    def check(self, names: Sequence[str], where: str) -> None:
        """Raise a ValueError unless a table with columns of these names has that of the texts."""
        if self.texts not in names:
            raise ValueError(f"{where}: column={self.texts!r}: expected one of {list(names)}")

    def cut_texts(self, model: Any) -> CutTexts:
        """What takes the places of texts that the model reads only in part."""
        return CutTexts(self.truncation, model.get_max_seq_length())

    def added_to(self, table: Any, model: Any, cut: CutTexts) -> Any:
        """A ``pyarrow.Table`` with the column, in place of one of its name or behind all others.

        Args:
            table: The table.
            model: A SentenceTransformer.
            cut: Told which rows have a text that is longer than the model reads.

        Raises:
            ValueError: The table has no such column of texts; or a text is too long, and none may be.
        """
        import pyarrow

        self.check(table.column_names, "a table")
        embeddings = self._embeddings(table.column(self.texts).to_pylist(), model, cut)
        lists = pyarrow.FixedSizeListArray.from_arrays(
            pyarrow.array(embeddings.reshape(-1)), max(1, embeddings.shape[1])
        )
        if self.name in table.column_names:
            return table.set_column(table.column_names.index(self.name), self.name, lists)
        return table.append_column(self.name, lists)

    def _embeddings(self, texts: list[Any], model: Any, cut: CutTexts) -> Any:
        missing = [row for row, text in enumerate(texts) if text is None]
        if missing:
            raise TypeError(f"column {self.texts!r}: expected texts, found none in row {missing[0]}")
        answer = self.request.answered_by(model, texts)
        cut.add(answer.cut)
        rows = answer.results()
        nonfinite = NonFiniteRows(self.on_nonfinite)
        nonfinite.look_at(np.arange(len(texts)), rows)
        nonfinite.judge(as_numpy(rows))
        options, ranges = self.request.options, None
        if options.precision == "float32":
            return as_numpy(rows)
        if options.precision in CALIBRATED_PRECISIONS:
            ranges = model.calibration.ranges_for(rows.shape[1], normalized=options.normalize_embeddings)
        return quantize_embeddings(rows, options.precision, ranges)


class _Listener:
    """A pool that computes nothing, and says what it was asked for: ``encode`` has then checked it all.

    Args:
        model: The model whose ``encode`` is listened to.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.requests: list[Request] = []

    def run(
        self,
        request: Request,
        texts: Sequence[Any],
        collector: Collector,
        progress: Progress,
        *,
        cut: CutTexts,
        chunk_size: int | None = None,
    ) -> None:
        """Take down the request."""
        del texts, collector, progress, cut, chunk_size
        self.requests.append(request)

    def stop(self) -> None:
        """Nothing."""
