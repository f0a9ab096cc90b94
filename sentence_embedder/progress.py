"""Progress bars: counted in what the user handed in, with the time that is left."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol


class Progress(Protocol):
    """What a loop needs of a progress bar."""

    def update(self, n: float | None = 1) -> object:
        """Say that n more are done."""


class _NoProgress:
    def update(self, n: float | None = 1) -> None:
        del n


def progress_bar(
    total: int | None, *, unit: str, shown: bool, description: str | None = None, done: int = 0
) -> AbstractContextManager[Progress]:
    """A tqdm bar for so many units, or one that does nothing; closed, whatever happens, at the end of a ``with``.

    Args:
        total: How many there are; None if nobody knows.
        unit: What they are, in the singular.
        shown: Whether anything is shown.
        description: What is being done.
        done: How many were done before: they do not count for the rate.
    """
    if not shown:
        return nullcontext(_NoProgress())
    from tqdm.auto import tqdm

    bar: AbstractContextManager[Progress] = tqdm(total=total, unit=f" {unit}s", desc=description, initial=done)
    return bar


def is_seen() -> bool:
    """Whether somebody can see a progress bar: on a terminal, or in a notebook, whose kernel has none."""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


def write_line(text: str) -> None:
    """Write a line to the standard output, above the bars that are shown."""
    from tqdm.auto import tqdm

    tqdm.write(text)


def _renew_locks_of_bars() -> None:
    """In a forked process nobody holds the lock with which the threads of tqdm's bars write in turn."""
    std: Any = sys.modules.get("tqdm.std")
    kinds = [std.tqdm] if hasattr(std, "tqdm") else []
    if kinds:
        std.TqdmDefaultWriteLock.th_lock = threading.RLock()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if isinstance(vars(kind).get("_lock"), std.TqdmDefaultWriteLock):
            del kind._lock  # a new one is made when it is needed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks_of_bars)
