"""What Ctrl-C must not break off in the middle."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sentence_embedder.threads import Future, start

_Result = TypeVar("_Result")


def uninterrupted(call: Callable[[], _Result]) -> _Result:
    """Do something in a thread, which Ctrl-C does not reach: it ends the wait for the thread, not its work.

    It is for what changes the whole process while it works, and may leave it half changed: the import of a package,
    of which parts stay that the next import stumbles over; the loading of a model, during which transformers lets
    torch make tensors without memory. Threads other than the main one get no Ctrl-C, and do it themselves.

    Args:
        call: What is done.

    Returns:
        What comes of it. It raises what the call raises.
    """
    is_main = threading.current_thread() is threading.main_thread()
    # A module that is being imported here, another thread would wait for, if it needs it, while it is waited for.
    # While the interpreter is taken down, no other thread runs.
    if not is_main or sys.is_finalizing() or _an_import_is_underway():
        return call()
    future = Future(partial(contextvars.copy_context().run, call))
    # No daemon: a process that ends in the middle of loading libraries may crash.
    start(threading.Thread(target=future.run, name="uninterrupted"))
    return future.result()


def _an_import_is_underway() -> bool:
    specs = (getattr(module, "__spec__", None) for module in tuple(sys.modules.values()))
    return any(getattr(spec, "_initializing", False) for spec in specs)
