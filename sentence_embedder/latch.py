"""Latch: what threads wait for, and a Ctrl-C can end the wait for at any moment."""

from __future__ import annotations

import threading


class Latch:
    """Keeps threads waiting until it is opened, once for all.

    An ``Event``, a ``Condition``, a ``Barrier`` and a ``Future`` of the standard library take and free their locks
    in steps of Python. A Ctrl-C between two of them leaves a lock taken: whoever has what is waited for then waits
    for that lock, for ever. Once a latch is open, any thread may release its lock, even if it is free already: a
    thread that was interrupted cannot keep it.

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
        self.is_open = True
        try:  # noqa: SIM105  # a Ctrl-C could come before a context begins
            self._lock.release()
        except RuntimeError:  # another thread was quicker
            pass

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is open.

        Args:
            timeout: For how many seconds at most; None for ever.

        Returns:
            Whether it is open.
        """
        try:
            self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        finally:  # also if it was interrupted when it had just been taken
            if self.is_open:
                try:  # noqa: SIM105  # as above
                    self._lock.release()
                except RuntimeError:
                    pass
        return self.is_open
