"""Journal: embeddings of a file as far as they are, in a folder that outlives whoever writes it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.atomic_folder import flush_entries

_SETTINGS, _STATE, _ROWS, _WHOLE, _LOCK = "settings.json", "state.json", "rows", "whole", "lock"


class Journal:
    """Embeddings on their way to a file: a hidden folder beside it.

    ``rows`` has the embeddings, ``state.json`` says how many of them count. That file is replaced as a whole when
    the rows are on the disk, so whoever is killed between two chunks, or within one, has lost that chunk alone.

    Args:
        output: The file that will be.
    """

    def __init__(self, output: Path) -> None:
        self.output = output.resolve()
        self.folder = self.output.with_name(f".{self.output.name}.encoding")
        self._settings: dict[str, Any] = {}
        self._state: dict[str, Any] = {"rows": 0}

    @contextmanager
    def opened(self, settings: Mapping[str, Any], *, overwrite: bool) -> Iterator[bool]:
        """Begin, or go on with what was begun in the same way.

        Args:
            settings: All that decides what will be in the file.
            overwrite: Whether a file that is there, and what was begun in another way, may go. What was begun in
                the same way is gone on with all the same.

        Yields:
            Whether the file is whole already: a process was killed after its last step but one.

        Raises:
            FileExistsError: There is a file, or something begun in another way; or another process writes.
        """
        wanted = json.loads(json.dumps(settings))
        self._check(wanted, overwrite)
        with self._locked():
            found = _read(self.folder / _SETTINGS)
            if found != wanted:
                (self.folder / _STATE).unlink(missing_ok=True)
                _replace(self.folder / _SETTINGS, wanted)
            self._state = _read(self.folder / _STATE) or {"rows": 0}
            try:
                yield self._is_placed()
            except BaseException:
                if not self.rows:  # there is nothing to go on with
                    shutil.rmtree(self.folder)
                raise
            shutil.rmtree(self.folder)

    def check_name(self, *, overwrite: bool) -> None:
        """Raise an error for what cannot be written, before a model is loaded for it: a FileExistsError for a file
        that nothing is under way to, an IsADirectoryError for a folder.
        """
        if self.output.is_dir():
            raise IsADirectoryError(f"{self.output}: expected a file, found a folder: give another name")
        if self.output.exists() and not self.folder.exists() and not overwrite:
            raise self._is_there()

    def _is_there(self) -> FileExistsError:
        return FileExistsError(f"{self.output}: is there already: give --overwrite to replace it, or another name")

    def _check(self, settings: dict[str, Any], overwrite: bool) -> None:
        """Raise a FileExistsError if what is there may not go."""
        if overwrite:
            return
        found = _read(self.folder / _SETTINGS)
        names = sorted(name for name in settings.keys() | (found or {}).keys())
        differing = [name for name in names if found and settings.get(name) != found.get(name)]
        if differing:
            raise FileExistsError(
                f"{self.output}: was begun with another {', '.join(differing)}: give --overwrite to begin anew, or "
                "another name"
            )
        self._state = _read(self.folder / _STATE) or {"rows": 0}
        if self.output.exists() and not (found and self._is_placed()):
            raise self._is_there()

    def _is_placed(self) -> bool:
        return bool(self._state.get("finished")) and not (self.folder / _WHOLE).exists() and self.output.exists()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Make the folder, and let one process in at a time, where the system has locks that end with a process."""
        try:
            import fcntl
        except ImportError:  # Windows
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
            return
        lock = None
        while lock is None:
            try:
                lock = self._opened_lock(lambda file: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
            except BlockingIOError as error:
                raise FileExistsError(f"{self.output}: another process is writing it: wait for its end") from error
        with lock:
            yield

    def _opened_lock(self, take: Callable[[TextIO], None]) -> TextIO | None:
        """The lock in the folder, which is made, taken; None if whoever had it has just ended, and removed both."""
        path = self.folder / _LOCK
        self.folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError), ExitStack() as until_taken:
            lock = until_taken.enter_context(path.open("w"))
            take(lock)
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                until_taken.pop_all()
                return lock
        return None

    @property
    def rows(self) -> int:
        """How many embeddings are safe."""
        return int(self._state["rows"])

    @property
    def cut(self) -> int:
        """Of how many texts only a part was read."""
        return int(self._state.get("cut", 0))

    def add(self, chunks: Iterator[tuple[NDArray[Any], int]]) -> Iterator[int]:
        """Write chunks of embeddings behind those that are safe.

        Args:
            chunks: Arrays (texts, dim), all of one width and format, and of how many of the texts only a part was
                read.

        Yields:
            After each, how many embeddings it has.
        """
        path = self.folder / _ROWS
        path.touch()
        with path.open("r+b") as file:
            file.truncate(self._bytes)
            file.seek(self._bytes)
            for chunk, cut in chunks:
                state = {
                    "rows": self.rows + len(chunk),
                    "width": chunk.shape[1],
                    "dtype": chunk.dtype.str,
                    "cut": self.cut + cut,
                }
                file.write(np.ascontiguousarray(chunk).data.cast("B") if chunk.size else b"")
                _flush(file)
                _replace(self.folder / _STATE, state)
                self._state = state
                yield len(chunk)

    @property
    def _bytes(self) -> int:
        return self.rows * self._width * self._dtype.itemsize if self.rows else 0

    @property
    def _width(self) -> int:
        return int(self._state["width"])

    @property
    def _dtype(self) -> np.dtype[Any]:
        found: np.dtype[Any] = np.dtype(self._state["dtype"])
        return found

    def embeddings(self) -> NDArray[Any]:
        """All embeddings, read from the disk as they are used."""
        shape = (self.rows, self._width)
        if not self._bytes:
            return np.empty(shape, self._dtype)
        return np.memmap(self.folder / _ROWS, self._dtype, mode="r", shape=shape)

    def place(self, write: Callable[[Path], None]) -> None:
        """Make the whole file, and give it its name.

        Args:
            write: Writes it to a path.
        """
        whole = self.folder / _WHOLE
        if not (self._state.get("finished") and whole.exists()):
            write(whole)
            with whole.open("r+b") as file:
                _flush(file)
            self._state = {**self._state, "finished": True}
            _replace(self.folder / _STATE, self._state)
        whole.replace(self.output)
        flush_entries(self.output.parent)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return content


def _replace(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that is the old one or the new one, whatever happens."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        _flush(file)
    unfinished.replace(path)
    flush_entries(path.parent)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
