"""The files that evaluators write: rows of a CSV file, and records, one a line."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterable, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger(__name__)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append a row to a CSV file, whose first line has the names of the columns.

    A file that was begun with other columns is left alone: the row goes to one beside it, ``…_2.csv`` and so on,
    because a training should not end with an error for it, and a row under the wrong names is worse.

    Args:
        path: The file; it and its folder are made if need be.
        row: Name of a column → what stands there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _fitting(path, list(row)).open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(row)
        writer.writerow(row.values())


def _fitting(path: Path, columns: list[str]) -> Path:
    """The file, or the first beside it that has these columns or nothing yet."""
    others = (path.with_stem(f"{path.stem}_{number}") for number in count(2))
    fitting = next(candidate for candidate in chain([path], others) if _header(candidate) in ([], columns))
    if fitting != path and not fitting.exists():
        logger.warning(
            "%s: expected the columns %s, found %s: figures go to %s; move the old file away to have them here",
            *(path, columns, _header(path), fitting.name),
        )
    return fitting


def _header(path: Path) -> list[str]:
    """The first line of a CSV file; [] if there is none."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        return next(csv.reader(file), [])


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON, one a line, in place of what the file held.

    Args:
        path: The file; it and its folder are made if need be.
        records: What JSON knows, or scalars of numpy; anything else as text.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(record, default=_plain)}\n" for record in records)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
