"""Progress bars: counted in what the user handed in, with the time that is left."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """What a loop needs of a progress bar."""

    def update(self, n: float | None = 1) -> object:
        """Say that n more are done."""

    def close(self) -> None:
        """Say that no more will come."""


class _NoProgress:
    def update(self, n: float | None = 1) -> None:
        del n

    def close(self) -> None:
        pass


def progress_bar(total: int, *, unit: str, shown: bool, description: str | None = None) -> Progress:
    """A tqdm bar for so many units, or one that does nothing.

    Args:
        total: How many there are.
        unit: What they are, in the singular.
        shown: Whether anything is shown.
        description: What is being done.
    """
    if not shown:
        return _NoProgress()
    from tqdm.auto import tqdm

    bar: Progress = tqdm(total=total, unit=f" {unit}s", desc=description)
    return bar
