"""Checkpoints: folders from which training goes on, each whole or not there."""

from __future__ import annotations

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentence_embedder.atomic_folder import PARTIAL, flush, flush_entries
from sentence_embedder.files import read_json, write_json
from sentence_embedder.training.state_file import has_state, read_state, write_state

logger = logging.getLogger(__name__)

_STATE_FOLDER = "training_state"
_BEFORE = ".before"
_MARK = "training.json"
"""What says that a folder was made by a training, and by which: only such folders are ever removed."""


class CheckpointError(OSError):
    """A checkpoint could not be written, or not be read."""


@dataclass
class Checkpoints:
    """The checkpoints of a training, in a folder of the user's.

    Each is a folder named after its step: a model that can be loaded, and the state of the training.

    Args:
        folder: The folder.
        limit: How many are kept; 0 for all.
        training: The name of the training, for those that it has made.
    """

    folder: Path
    limit: int = 0
    training: str = field(default_factory=lambda: uuid.uuid4().hex)

    def check_free(self, steps: Iterable[int]) -> None:
        """Raise a CheckpointError if a checkpoint will have the name of a folder that no training made."""
        for step in steps:
            path = self.folder / str(step)
            if path.exists() and not _is_made_here(path):
                raise CheckpointError(
                    f"{path}: expected nothing, or a checkpoint, found something else: give another checkpoint_path"
                )

    def write(self, step: int, save_model: Callable[[Path], None], state: Any) -> Path:
        """Write a checkpoint, then remove the oldest that are too many.

        Args:
            step: After which step it is.
            save_model: Writes the model into a folder.
            state: The state of the training.

        Raises:
            CheckpointError: It could not be written; those that were there are as they were.
        """
        partial, path = self.folder / f".{step}{PARTIAL}", self.folder / str(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _remove(partial)
            (partial / _STATE_FOLDER).mkdir(parents=True, exist_ok=True)
            write_json(partial / _STATE_FOLDER / _MARK, {"training": self.training, "written": self._now()})
            save_model(partial)
            write_state(partial / _STATE_FOLDER, state)
            flush(partial)
            self._put(partial, path)
        except BaseException as error:
            _remove(partial)
            if not isinstance(error, Exception):  # Ctrl-C
                raise
            kept = _checkpoints(self.folder)
            raise CheckpointError(
                f"{path}: the checkpoint could not be written: {error}. "
                + (f"The last one is {kept[-1]}" if kept else "There is none before it")
            ) from error
        self._remove_oldest()
        return path

    def _now(self) -> float:
        """The time, later than that of all checkpoints, whatever has become of the clock."""
        return max([time.time(), *(_written(path)[0] + 1e-3 for path in _checkpoints(self.folder))])

    def _put(self, partial: Path, path: Path) -> None:
        """Give a finished checkpoint its name; a checkpoint that had it goes."""
        before = path.with_name(f".{path.name}{_BEFORE}")
        _remove(before)
        if path.exists() or path.is_symlink():
            if not _is_made_here(path):
                raise FileExistsError(f"{path} is no checkpoint")
            path.rename(before)
        try:
            partial.rename(path)
        except BaseException:
            if before.exists() and not path.exists():
                before.rename(path)
            raise
        _remove(before)
        flush_entries(self.folder)

    def _remove_oldest(self) -> None:
        for path in self.existing()[: -self.limit] if self.limit > 0 else ():
            gone = path.with_name(f".{path.name}{_BEFORE}")
            try:
                # Under its name it is whole or not there.
                _remove(gone)
                path.rename(gone)
                _remove(gone)
            except OSError as error:
                logger.warning("%s: the checkpoint is not needed any more, and cannot be removed: %s", path, error)

    def existing(self) -> list[Path]:
        """The checkpoints that this training has made, the oldest first."""
        return [path for path in _checkpoints(self.folder) if self._is_own(path)]

    def _is_own(self, path: Path) -> bool:
        return _mark(path).get("training") == self.training

    def newest(self) -> Path | None:
        """The checkpoint that was written last, by whichever training; one that was being replaced is put back."""
        for before in self.folder.glob(f".*{_BEFORE}") if self.folder.exists() else ():
            path = before.with_name(before.stem[1:])
            if path.name.isdigit() and has_state(before / _STATE_FOLDER) and not path.exists():
                before.rename(path)
        found = _checkpoints(self.folder)
        return found[-1] if found else None

    def read(self, path: Path) -> Any:
        """The state in a checkpoint, whose training this one becomes.

        Raises:
            CheckpointError: There is none, or it cannot be read.
        """
        if not _is_made_here(path) or not has_state(path / _STATE_FOLDER):
            raise CheckpointError(f"{path}: expected a checkpoint that fit has written, found none")
        try:
            state = read_state(path / _STATE_FOLDER)
            self.training = str(_mark(path)["training"])
        except Exception as error:
            raise CheckpointError(f"{path}: the checkpoint cannot be read: {error}. Take an older one") from error
        return state

    def clean(self) -> None:
        """Remove what this training left unfinished when it was killed."""
        for left in self.folder.glob(".*") if self.folder.exists() else ():
            is_left = left.suffix in (PARTIAL, _BEFORE) and left.stem[1:].isdigit()
            if is_left and _is_made_here(left) and self._is_own(left):
                _remove(left)


def _checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in a folder, in the order in which they were written."""
    if not folder.exists():
        return []
    found = [path for path in folder.iterdir() if path.name.isdigit() and not path.is_symlink()]
    whole = [path for path in found if _is_made_here(path) and has_state(path / _STATE_FOLDER)]
    return sorted(whole, key=_written)


def _written(path: Path) -> tuple[float, int]:
    return float(_mark(path).get("written", 0)), int(path.name)


def _is_made_here(path: Path) -> bool:
    return (path / _STATE_FOLDER / _MARK).exists()


def _mark(path: Path) -> dict[str, Any]:
    found = read_json(path / _STATE_FOLDER / _MARK)
    return found if isinstance(found, dict) else {}


def _remove(path: Path) -> None:
    """Remove a folder that a training has made, if it is there; the mark goes last, as it allows another try."""
    if not _is_made_here(path):
        return
    for inside in list(path.rglob("*")):
        if inside.name != _MARK and (inside.is_symlink() or not inside.is_dir()):
            inside.unlink()
    shutil.rmtree(path)
