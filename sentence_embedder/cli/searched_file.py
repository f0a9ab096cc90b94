"""SearchedFile: a file of texts with its embeddings beside it."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.cli.file_encoding import FileEncoding
from sentence_embedder.cli.text_file import TextFile

_SAVE_EVERY = 4096
_ROWS_AT_ONCE = 50_000
_SMALL = 2**20
_SUFFIX = ".embeddings.npy"


@dataclass(frozen=True)
class SearchedFile:
    """A file of texts, embedded once.

    Args:
        texts: The file.
        embeddings: Of its texts (rows, dim), read from the disk as they are used.
        model: What embeds queries.
    """

    texts: TextFile
    embeddings: NDArray[Any]
    model: Any

    @staticmethod
    def of(texts: TextFile, model: Any, *, dtype: str, batch_size: int) -> SearchedFile:
        """A file with its embeddings, which are made if there are none of this model and of the file as it is."""
        from sentence_embedder.fingerprint import fingerprint_of
        from sentence_embedder.version import __version__

        made_by = {
            "model": fingerprint_of(model),
            "prompts": [model.prompts, model.default_prompt_name],
            "truncate_dim": model.truncate_dim,
            "dtype": dtype,
            "column": texts.column,
            "version": __version__,
        }
        kept = _path(texts, _digest(made_by), _digest(texts.stamp))
        if not kept.exists():
            encoding = FileEncoding(
                texts=texts,
                output=kept,
                encode=lambda chunk, cut: model.encode_document(
                    chunk, batch_size=batch_size, show_progress_bar=False, truncation=cut
                ),
                finished_as=None,
                save_every=_SAVE_EVERY,
                limit=model.get_max_seq_length(),
                settings=made_by,
            )
            sys.stderr.write(f"{encoding.run(overwrite=True)}\n")
            _remove_older(kept)
        return SearchedFile(texts, _opened(kept), model)

    def nearest(self, query: str, top_k: int) -> list[dict[str, Any]]:
        """The nearest texts, best first, each with its row and score."""
        from sentence_embedder.retrieval import semantic_search

        if not len(self.embeddings):
            return []
        (hits,) = semantic_search(
            self.model.encode_query(query, show_progress_bar=False),
            self.embeddings,
            corpus_chunk_size=_ROWS_AT_ONCE,
            top_k=top_k,
            score_function=self.model.similarity,
        )
        texts = self._texts_of([int(hit["corpus_id"]) for hit in hits])
        return [
            {"row": int(hit["corpus_id"]), "score": hit["score"], "text": texts[int(hit["corpus_id"])]}
            for hit in hits
        ]

    def _texts_of(self, rows: Sequence[int]) -> dict[int, str]:
        """The texts of some rows, read again: they need not all have room in memory."""
        wanted, found = set(rows), dict[int, str]()
        for row, text in enumerate(self.texts.texts()):
            if row in wanted:
                found[row] = text
                if len(found) == len(wanted):
                    break
        return found


def _path(texts: TextFile, maker: str, stamp: str) -> Path:
    """Beside the file, or, where nothing may be written, among the temporary files of this user."""
    folder = texts.path.resolve().parent
    if not os.access(folder, os.W_OK):
        folder = _own_temporary_folder()
    return folder / f".{texts.path.name}.{maker}-{stamp}{_SUFFIX}"


def _own_temporary_folder() -> Path:
    """A folder among the temporary files that this user alone can write to.

    Raises:
        PermissionError: It is there, and somebody else has made it, or can write to it.
    """
    if os.name != "posix":  # temporary files are each user's own
        return Path(tempfile.gettempdir())
    folder = Path(tempfile.gettempdir()) / f"sentence-embedder-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{folder}: expected a folder that you alone can write to: remove it, or let TMPDIR name another one"
        )
    return folder


def _remove_older(kept: Path) -> None:
    """Remove what the same model made of the file as it was."""
    start = kept.name.removesuffix(_SUFFIX).rpartition("-")[0]
    for path in kept.parent.iterdir():
        is_alike = path.name.startswith(f"{start}-") and path.name.endswith(_SUFFIX)
        if is_alike and path != kept:
            path.unlink(missing_ok=True)


def _opened(path: Path) -> NDArray[Any]:
    # What has no rows cannot be mapped. Copied on write: torch takes no array that cannot be written to.
    opened: NDArray[Any] = np.load(path, mmap_mode="c" if path.stat().st_size > _SMALL else None)
    return opened


def _digest(settings: Mapping[str, Any]) -> str:
    text = json.dumps(settings, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
