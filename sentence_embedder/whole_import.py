"""import_whole: importing what takes long, so that Ctrl-C leaves no half of it behind."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future
from importlib import import_module
from types import ModuleType


def import_whole(name: str) -> ModuleType:
    """A module, imported in a thread that Ctrl-C does not reach: it ends the wait for it, not the import.

    Of a package whose import was broken off, parts stay that the next import stumbles over, until the process ends.

    Args:
        name: The dotted name of the module.

    Raises:
        ImportError: There is no such module, or another one that it needs.
    """
    packages = [name[:end] for end, character in enumerate(f"{name}.") if character == "."]
    # What this thread is importing itself, another one would wait for in vain; other threads get no Ctrl-C.
    is_main = threading.current_thread() is threading.main_thread()
    if name in sys.modules or any(map(_is_underway, packages)) or not is_main:
        return import_module(name)
    imported: Future[ModuleType] = Future()

    def run() -> None:
        try:
            imported.set_result(import_module(name))
        except BaseException as error:  # noqa: BLE001  # it is raised where the module is waited for
            imported.set_exception(error)

    # No daemon: a process that ends in the middle of loading libraries may crash.
    threading.Thread(target=run, name="import").start()
    return imported.result()


def _is_underway(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))
