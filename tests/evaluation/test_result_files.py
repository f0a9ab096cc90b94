"""The files that evaluators write: no figure is lost, and none stands under a name that is not its own."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from sentence_embedder.evaluation.result_files import append_row, write_records


def test_rows_follow_the_names_of_their_columns(tmp_path: Path) -> None:
    """The names are written once, also to a file that is there and empty, in a folder that is made."""
    path = tmp_path / "new" / "results.csv"
    append_row(path, {"epoch": 0, "a, b": 0.5})
    append_row(path, {"epoch": 1, "a, b": 0.25})
    empty = tmp_path / "empty.csv"
    empty.touch()
    append_row(empty, {"epoch": 0})

    assert path.read_bytes() == b'epoch,"a, b"\r\n0,0.5\r\n1,0.25\r\n'
    assert empty.read_bytes() == b"epoch\r\n0\r\n"


def test_a_file_with_other_columns_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its rows stay as they are, those that do not fit go to a file beside it, the next ones too, and a warning
    says so once for each file that is begun.
    """
    caplog.set_level(logging.WARNING, logger="sentence_embedder")
    path = tmp_path / "results_@5.csv"
    foreign = b"epoch;steps;caf\xe9\n"
    path.write_bytes(foreign)

    for epoch in (0, 1):
        append_row(path, {"epoch": epoch, "a": 0.5})
    append_row(path, {"epoch": 2, "b": 0.5})

    assert path.read_bytes() == foreign
    assert (tmp_path / "results_@5_2.csv").read_text() == "epoch,a\n0,0.5\n1,0.5\n"
    assert (tmp_path / "results_@5_3.csv").read_text() == "epoch,b\n2,0.5\n"
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == [
        "figures go to results_@5_2.csv; move the old file away to have them here",
        "figures go to results_@5_3.csv; move the old file away to have them here",
    ]
    assert "expected the columns ['epoch', 'a'], found ['epoch;steps;caf" in caplog.records[0].getMessage()


def test_records_take_the_place_of_those_before(tmp_path: Path) -> None:
    """A file of records has the last ones only; ids may be numbers of numpy, or what only has a name."""
    path = tmp_path / "new" / "predictions.jsonl"
    write_records(path, [{"id": 1}, {"id": 2}])
    write_records(path, [{"id": np.int64(7), "score": 0.5}, {"id": Path("é")}])

    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"id": 7, "score": 0.5}, {"id": "é"}]
