"""Embeddings as a column of a table of Arrow."""

from __future__ import annotations

from typing import Any

import numpy as np


def with_embeddings(table: Any, model: Any, column: str, output_column: str, arguments: dict[str, Any]) -> Any:
    """A ``pyarrow.Table`` with the embeddings of its texts in a column more, each a list of fixed size.

    Args:
        table: The table.
        model: A SentenceTransformer.
        column: The column of the texts.
        output_column: The column of the embeddings; one of this name is replaced.
        arguments: What ``encode`` is given.

    Raises:
        ValueError: There is no such column.
    """
    import pyarrow

    if column not in table.column_names:
        raise ValueError(f"column={column!r}: expected one of {table.column_names}")
    embeddings = model.encode(table.column(column).to_pylist(), show_progress_bar=False, **arguments)
    values = pyarrow.array(np.ascontiguousarray(embeddings).reshape(-1))
    lists = pyarrow.FixedSizeListArray.from_arrays(values, embeddings.shape[1])
    if output_column in table.column_names:
        return table.set_column(table.column_names.index(output_column), output_column, lists)
    return table.append_column(output_column, lists)
