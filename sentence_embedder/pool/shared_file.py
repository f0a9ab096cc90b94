"""SharedFile: a file in memory that processes share."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STANDARD_ERROR = 2


class SharedFile:
    """A file in memory, without a name, that processes share.

    It is no block of ``/dev/shm``, whose size is often limited, and it is gone as soon as no process has it open
    any more, however they end.

    Args:
        descriptor: The open file, which is closed with this object.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)
        # When the process ends, the system closes it: a thread may just be handing its number to a worker, and must
        # not hand over what has got that number since.
        self._close.atexit = False

    @staticmethod
    def create(name: str) -> SharedFile | None:
        """A new file, empty; None where the system has no such files, or gives none.

        Args:
            name: What it is called in lists of open files.
        """
        if not hasattr(os, "memfd_create"):
            return None
        try:
            return SharedFile(os.memfd_create(name, os.MFD_CLOEXEC))
        except OSError:
            return None

    @property
    def path(self) -> str:
        """Where this process finds it."""
        return f"/dev/fd/{self._descriptor}"

    def write(self, array: NDArray[Any]) -> bool:
        """Replace what it holds by an array; False if there is no room for it."""
        left = array.data.cast("B") if array.size else memoryview(b"")
        written = 0
        try:
            while left:
                count = os.pwrite(self._descriptor, left, written)
                written += count
                left = left[count:]
        except OSError:
            self.clear()
            return False
        return True

    def read(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """The array that was written, of this shape and format; then it is empty."""
        array: NDArray[Any] = np.empty(shape, dtype)
        left = array.data.cast("B") if array.size else memoryview(b"")
        done = 0
        while left:
            count = os.preadv(self._descriptor, [left], done)
            if count == 0:
                raise EOFError(f"expected {array.nbytes} bytes, found {done}")
            done += count
            left = left[count:]
        self.clear()
        return array

    def clear(self) -> None:
        """Give back the memory that it takes."""
        os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Close it; other processes that have it keep it."""
        self._close()

    def __reduce__(self) -> tuple[Callable[[Any], SharedFile], tuple[Any]]:
        # Only a process that is being started can be handed an open file.
        return _received, (reduction.DupFd(self._descriptor),)


def open_standard_streams() -> None:
    """Open the descriptors of standard input, output and error on nothing where they are closed, as in daemons of
    old: a pipe or a shared file that got one of these numbers would get what anybody writes there.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _received(duplicate: Any) -> SharedFile:
    return SharedFile(duplicate.detach())
