"""Atomic folders: whoever looks finds the old folder or the new one, whatever happens while it is written."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

PARTIAL = ".partial"
"""How the name of a folder ends that is still being written; it begins with a dot."""

_BEFORE = ".before"
_LEFT = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{12}(?P<kind>\.partial|\.before)", re.DOTALL)

_LONGEST_WAIT = 60.0
"""For so many seconds it is waited for others who clear away beside a folder, or give one another place."""

_POLL = 0.01

_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
"""What a system says that cannot exchange two folders, or make two names for one file."""

Goes = Callable[[PurePosixPath], bool]
"""A path inside the old folder → whether it goes with it; all else is in the new one, too."""


@contextmanager
def replacing(folder: Path, goes: Goes) -> Iterator[Path]:
    """A new folder to be filled, which takes the place of another at the end of the context, in one step.

    After an error, also one that the disk is full, or when the process is killed, the old folder is what it was.
    What a killed process has left beside it is removed the next time.

    Two folders change places in one step on Linux and macOS, on most file systems. Elsewhere the old one is renamed
    first: a process that is killed between the two renames leaves none, and the next one puts the old one back.
    Where the folder cannot change its place, as it is a mount point, the current folder, or in one that may not be
    written, the files are moved into it one by one, each of them whole.

    Args:
        folder: The folder, made if need be; a link to it stays one. Within a folder that is itself being written
            (``PARTIAL``) nothing is done twice: it is filled as it is.
        goes: What of the old folder goes with it.

    Raises:
        NotADirectoryError: There is a file of that name.
        OSError: The folder could not be written.
    """
    if folder.name.startswith(".") and folder.name.endswith(PARTIAL):
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    target = folder.resolve()
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{folder}: expected a folder, or nothing, found a file")
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with _locked(target.parent, wait=_LONGEST_WAIT):
            is_fixed = _is_fixed(target)
            room = target if is_fixed else target.parent
            _clear(room, target.name)
            partial = room / f".{target.name}.{secrets.token_hex(6)}{PARTIAL}"
            partial.mkdir()
            held.enter_context(_locked(partial))
            held.callback(shutil.rmtree, partial, ignore_errors=True)
            if target.exists():
                _take_group(target, partial)
        yield partial
        with _locked(target.parent, wait=_LONGEST_WAIT):
            if is_fixed:
                flush(partial)
                _move_into(target, partial, goes)
            else:
                _take_place(target, partial, goes)


def flush(folder: Path) -> None:
    """Wait until all files of a folder are on the disk."""
    for path in folder.rglob("*"):
        if path.is_symlink():
            continue
        if path.is_dir():
            flush_entries(path)
        elif path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    flush_entries(folder)


def flush_entries(folder: Path) -> None:
    """Wait until the disk knows which files a folder has."""
    if os.name == "nt":  # where folders cannot be opened
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


# ── Taking the place ──────────────────────────────────────────────────────────────────────────────────────────


def _is_fixed(target: Path) -> bool:
    """Whether a folder must stay the one that it is, or none beside it can be made."""
    if not target.exists():
        return False
    with contextlib.suppress(FileNotFoundError):  # the current folder may be gone
        if target in (Path.cwd(), *Path.cwd().parents):
            return True
    has_mounts = any(os.path.ismount(path) for path in (target, *target.rglob("*")))
    return has_mounts or not os.access(target.parent, os.W_OK)


def _take_place(target: Path, partial: Path, goes: Goes) -> None:
    if not target.exists():
        flush(partial)
        partial.rename(target)
    else:
        _keep(target, partial, goes)
        _take_rights(target, partial)
        flush(partial)
        with _locked(target):
            old = _moved_aside(target, partial)
            _keep(old, target, goes)  # what a program that knows nothing of this has put there in between
            shutil.rmtree(old, ignore_errors=True)
    flush_entries(target.parent)


def _moved_aside(target: Path, partial: Path) -> Path:
    """Where the old folder is after the new one has taken its place."""
    if _exchange(target, partial):
        return partial
    before = partial.with_suffix(_BEFORE)
    target.rename(before)
    try:
        partial.rename(target)
    except BaseException:
        before.rename(target)
        raise
    return before


def _move_into(target: Path, partial: Path, goes: Goes) -> None:
    new = {path.relative_to(partial) for path in partial.rglob("*") if not path.is_dir()}
    for inside in sorted(new):
        (target / inside).parent.mkdir(parents=True, exist_ok=True)
        (partial / inside).replace(target / inside)
    for path in [path for path in target.rglob("*") if path.is_symlink() or not path.is_dir()]:
        inside = path.relative_to(target)
        if inside not in new and _goes(inside, goes):
            path.unlink()
    flush_entries(target)


def _keep(old: Path, new: Path, goes: Goes) -> None:
    """Give the new folder what is in the old one beside a model, under a second name if that is possible."""

    def keep(path: Path) -> None:
        inside = path.relative_to(old)
        if _goes(inside, goes):
            return
        place = new / inside
        if path.is_dir() and not path.is_symlink():
            is_new = not place.exists()
            place.mkdir(exist_ok=True)
            for within in path.iterdir():
                keep(within)
            if is_new:
                _take_rights(path, place)
        elif not os.path.lexists(place):
            with contextlib.suppress(FileNotFoundError):  # somebody's file for a moment
                _link(path, place)

    for path in old.iterdir():
        keep(path)


def _take_group(old: Path, new: Path) -> None:
    """Give a folder the group of another, as far as this user may; what is made in it has that group if it would in
    the other.
    """
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(new, -1, old.stat().st_gid)
            new.chmod(new.stat().st_mode | (old.stat().st_mode & stat.S_ISGID))


def _take_rights(old: Path, new: Path) -> None:
    """Give a folder the group, mode and owner of another, as far as this user may; they may forbid to write."""
    _take_group(old, new)
    shutil.copymode(old, new)
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(new, old.stat().st_uid, -1)


def _goes(inside: Path, goes: Goes) -> bool:
    return any(goes(PurePosixPath(part.as_posix())) for part in (inside, *inside.parents[:-1]))


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place, follow_symlinks=False)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in (*_NOT_HERE, errno.EXDEV, errno.EMLINK):
            raise
        shutil.copy2(path, place, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders change places, in one step; whether the system can do that."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        system = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = system.renamex_np(*names, 2)  # RENAME_SWAP
        else:
            here = -100  # AT_FDCWD
            failed = system.renameat2(here, names[0], here, names[1], 2)  # RENAME_EXCHANGE
    except (AttributeError, OSError, TypeError):  # a system without these calls
        return False
    if failed:
        code = ctypes.get_errno()
        if code not in _NOT_HERE:
            raise OSError(code, os.strerror(code), str(one), None, str(other))
    return not failed


# ── Others who write ──────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def _locked(folder: Path, *, wait: float = 0.0) -> Iterator[None]:
    """Within this context others see that something is done with a folder.

    Args:
        folder: The folder.
        wait: For how many seconds to wait for others at most; then it goes on without the lock.
    """
    number, deadline = None, time.monotonic() + wait
    while True:
        try:
            number = _lock(folder)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL)
    try:
        yield
    finally:
        if number is not None:
            _unlock(number)


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as what is returned is open; None if it cannot be locked.

    Raises:
        BlockingIOError: Somebody else has.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        number = os.open(folder, os.O_RDONLY)
    except PermissionError:  # which one may write to, but not list
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(number)
        if isinstance(error, BlockingIOError):
            raise
        return None
    return number


def _unlock(number: int) -> None:
    """Unlock a folder that was locked, also if a process that was forked meanwhile has it open."""
    import fcntl

    try:
        fcntl.flock(number, fcntl.LOCK_UN)
    finally:
        os.close(number)


# ── What killed processes left ────────────────────────────────────────────────────────────────────────────────


def _clear(room: Path, name: str) -> None:
    """Put back or remove what is left of earlier attempts to write a folder, unless they are still on."""
    for path in list(room.iterdir()):
        left = _LEFT.fullmatch(path.name)
        if left is None or left["name"] != name:
            continue
        with contextlib.suppress(OSError):  # which says, among others, that somebody writes it
            number = _lock(path)
            if number is None:
                continue
            _unlock(number)
            if left["kind"] == _BEFORE and not (room / name).exists():
                path.rename(room / name)
            else:
                shutil.rmtree(path, ignore_errors=True)
