"""The command ``search``."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from sentence_embedder.cli import searched_file
from sentence_embedder.util import semantic_search
from tests.cli.conftest import TEXTS, Run

QUERY = "where is the cat"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith("."))


def test_the_nearest_are_those_of_semantic_search(
    run: Run, bert: Path, texts: Path, model: SentenceTransformer
) -> None:
    """Score, row and text are those that ``semantic_search`` finds between documents and a query."""
    (expected,) = semantic_search(model.encode_query(QUERY), model.encode_document(TEXTS), top_k=3)

    done = run("search", texts, "--query", QUERY, "--top-k", 3, "--model", bert)

    assert done.code == 0
    found = [line.split("\t") for line in done.out.splitlines()]
    assert [(int(row), text) for _, row, text in found] == [
        (hit["corpus_id"], TEXTS[int(hit["corpus_id"])]) for hit in expected
    ]
    np.testing.assert_allclose([float(hit[0]) for hit in found], [hit["score"] for hit in expected], atol=1e-4)


def test_json_has_a_line_a_query(run: Run, bert: Path, texts: Path) -> None:
    """With ``--json`` each query has one line; otherwise, if there are several, each hit begins with its own."""
    arguments = ("search", texts, "--model", bert, "--top-k", 2, "--query", "cat", "dog", "--query", "kitten")

    plain, as_json = run(*arguments), run(*arguments, "--json")

    rows = [json.loads(line) for line in as_json.out.splitlines()]
    assert [row["query"] for row in rows] == ["cat", "dog", "kitten"]
    assert [(line.split("\t")[0], int(line.split("\t")[2])) for line in plain.out.splitlines()] == [
        (row["query"], hit["row"]) for row in rows for hit in row["hits"]
    ]


def test_a_file_is_embedded_once(run: Run, bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embeddings are kept beside the file: again they are made when it changes, and the older ones go."""
    arguments = ("search", texts, "--query", QUERY, "--model", bert)
    first = run(*arguments)
    (kept,) = _kept(texts.parent)
    with monkeypatch.context() as patch:
        patch.delattr(SentenceTransformer, "encode_document")
        again = run(*arguments)
    with texts.open("a") as file:
        file.write(f"{QUERY}\n")
    changed = run(*arguments)

    assert "18 texts" in first.err
    assert (again.out, again.err) == (first.out, "")
    assert changed.out.splitlines()[0].endswith(f"\t18\t{QUERY}")
    (newer,) = _kept(texts.parent)
    assert newer != kept


def test_each_model_has_its_own(run: Run, tiny_folders: dict[str, Path], texts: Path) -> None:
    """The embeddings of one model are not taken for those of another."""
    for name in ("bert", "mpnet"):
        assert run("search", texts, "--query", QUERY, "--model", tiny_folders[name]).code == 0

    assert len(_kept(texts.parent)) == 2


@pytest.mark.skipif(os.name != "posix", reason="folders that may not be written")
def test_a_folder_may_be_read_only(
    run: Run, bert: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing may be written beside the file, the embeddings are among the temporary files."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("sentence_embedder.cli.searched_file.os.access", lambda *_: False)
    monkeypatch.setattr(
        "sentence_embedder.cli.searched_file.tempfile.gettempdir", lambda: str(tmp_path / "temporary")
    )

    assert run("search", texts, "--query", QUERY, "--model", bert).code == 0

    assert _kept(texts.parent) == []
    assert len(list((tmp_path / "temporary").glob("*/.texts.txt.*"))) == 1


@pytest.mark.skipif(os.name != "posix", reason="folders of other users")
def test_a_folder_of_others_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary folder that others can write to is an error that names the remedy."""
    monkeypatch.setattr("sentence_embedder.cli.searched_file.tempfile.gettempdir", lambda: str(tmp_path))
    folder = searched_file._own_temporary_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)

    with pytest.raises(PermissionError, match="you alone can write to: remove it, or let TMPDIR name another"):
        searched_file._own_temporary_folder()


def test_queries_come_from_the_input(run: Run, bert: Path, texts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ``--query`` each line of the input is one; a terminal is asked, and not told what it has typed."""
    arguments = ("search", texts, "--model", bert, "--top-k", 1)
    monkeypatch.setattr("sys.stdin", io.StringIO("cat\n\ndog\n"))
    piped = run(*arguments)
    monkeypatch.setattr("sys.stdin", _Terminal("cat\n\ndog\n"))
    asked = run(*arguments)

    assert [line.split("\t")[0] for line in piped.out.splitlines()] == ["cat", "dog"]
    assert [f"{query}\t{line}" for query, line in zip(("cat", "dog"), asked.out.splitlines(), strict=True)] == (
        piped.out.splitlines()
    )
    assert asked.err.count("query> ") == 4


def test_an_empty_file_has_no_hits(run: Run, bert: Path, tmp_path: Path) -> None:
    """Nothing is found in a file without texts."""
    (tmp_path / "in.txt").touch()

    done = run("search", tmp_path / "in.txt", "--query", QUERY, "--model", bert)

    assert (done.code, done.out) == (0, "")


def test_a_text_stays_in_its_line(run: Run, bert: Path, tmp_path: Path) -> None:
    """Ends of lines and tabs in a text do not tear the output apart; JSON keeps them."""
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "the\tcat\nsat"}) + "\n")
    arguments = ("search", tmp_path / "in.jsonl", "--query", QUERY, "--model", bert)

    assert run(*arguments).out.endswith("\t0\tthe cat sat\n")
    assert json.loads(run(*arguments, "--json").out)["hits"][0]["text"] == "the\tcat\nsat"
