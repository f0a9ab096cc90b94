"""Failures of workers, and how they come home."""

from __future__ import annotations

import pickle
import traceback
from dataclasses import dataclass


class PoolError(RuntimeError):
    """A pool could not do what it was asked to.

    Args:
        message: What happened.
        rows: The places of the texts that it happened to, if it happened to some.
    """

    def __init__(self, message: str, rows: range | None = None) -> None:
        super().__init__(message)
        self.rows = rows

    def __reduce__(self) -> tuple[type[PoolError], tuple[str, range | None]]:
        return type(self), (str(self), self.rows)


class WorkerLostError(Exception):
    """A worker process has ended, or is no longer heard."""


@dataclass(frozen=True)
class Failure:
    """An exception in a worker, in a form that can be sent whatever it is.

    Args:
        summary: Its class and message.
        traceback: Where it was raised.
        pickled: The exception itself, if it can be pickled.
    """

    summary: str
    traceback: str
    pickled: bytes | None

    @staticmethod
    def of(error: BaseException) -> Failure:
        """The failure that an exception is."""
        summary = "".join(traceback.format_exception_only(error)).strip()
        return Failure(summary, "".join(traceback.format_exception(error)), _pickled(error))

    def error(self, where: str, rows: range | None = None) -> PoolError:
        """The exception for the caller; its cause is the one in the worker, if that could be sent.

        Args:
            where: Which worker.
            rows: The places of the texts that it worked on.
        """
        what = "could not start" if rows is None else f"failed on texts {first_to_last(rows)}"
        error = PoolError(f"{where} {what}: {self.summary}\n\nThere:\n{self.traceback}", rows)
        error.__cause__ = None if self.pickled is None else _unpickled(self.pickled)
        return error


def first_to_last(rows: range) -> str:
    """Places of texts in words.

    Example:
        >>> first_to_last(range(20, 30))
        '20 to 29'
    """
    return f"{rows.start} to {rows.stop - 1}"


def _pickled(error: BaseException) -> bytes | None:
    """An exception as bytes that can be read again; None for one that cannot be."""
    try:
        pickled = pickle.dumps(error)
    except Exception:  # noqa: BLE001  # whatever its class does there
        return None
    return pickled if isinstance(_unpickled(pickled), BaseException) else None


def _unpickled(pickled: bytes) -> BaseException | None:
    try:
        error = pickle.loads(pickled)  # noqa: S301  # from a process that this one has started
    except Exception:  # noqa: BLE001  # whatever its class does there
        return None
    return error if isinstance(error, BaseException) else None
