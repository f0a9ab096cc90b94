"""Lock: one thread at a time, and a Ctrl-C leaves it free."""

from __future__ import annotations

import _thread


class Lock(_thread.RLock):  # type: ignore[misc]  # final to typeshed alone
    """What one thread has at a time, which can take it again, for ``with``.

    Since Python 3.14 a Ctrl-C can come after a lock of the standard library was taken, and before the block begins
    that frees it in the end: it then stays taken, and whoever wants it waits for ever. Here it is given back; not
    so where ``torch.compile`` has put its own evaluation of frames in place of Python's, which leaves the same gap
    behind ``__enter__``.

    Example:
        >>> lock = Lock()
        >>> with lock:
        ...     pass
    """

    def __enter__(self) -> bool:  # type: ignore[override]
        try:
            return self.acquire()
        except BaseException:
            try:  # noqa: SIM105  # a Ctrl-C could come before a context begins
                self.release()
            except RuntimeError:  # it was still waited for
                pass
            raise
