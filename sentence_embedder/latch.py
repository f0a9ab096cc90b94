"""Latch: what threads wait for, and a Ctrl-C can end the wait for at any moment."""

from __future__ import annotations

import contextlib
import threading


class Latch:
    """Keeps threads waiting until it is opened, once for all.

    An ``Event``, a ``Condition``, a ``Barrier`` and a ``Future`` of the standard library take and free their locks
    in steps of Python. A Ctrl-C between two of them leaves a lock taken: whoever has what is waited for then waits
    for that lock, for ever. Here a lock is taken and freed in one step each, in the middle of which nothing comes.

    Example:
        >>> latch = Latch()
        >>> latch.open()
        >>> latch.wait()
        True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.is_open = False

    def open(self) -> None:
        """Let all go on who wait, and who come later; if it is open already, nothing happens."""
        if not self.is_open:
            with contextlib.suppress(RuntimeError):  # another thread was quicker
                self._lock.release()
            self.is_open = True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open.

        Args:
            timeout: For how many seconds at most; None for ever. Only one thread may wait with an end to it.

        Returns:
            Whether it is open.
        """
        if timeout is None:
            with self._lock:
                return True
        is_open = self._lock.acquire(timeout=max(0.0, timeout))
        if is_open:
            with contextlib.suppress(RuntimeError):  # it has just been opened once more
                self._lock.release()
        return is_open
