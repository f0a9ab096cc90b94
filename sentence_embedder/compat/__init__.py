"""Lets ``import sentence_transformers`` mean this package, in programs that cannot be changed.

>>> import sentence_embedder.compat
>>> sentence_embedder.compat.install()
>>> from sentence_transformers import SentenceTransformer
>>> SentenceTransformer is sentence_embedder.SentenceTransformer
True
>>> sentence_embedder.compat.uninstall()

From the command line, for a script or a module as it is: ``python -m sentence_embedder.compat script.py …``, or
``python -m sentence_embedder.compat -m module …``.
"""

from __future__ import annotations

import sys

from sentence_embedder.compat.alias import API_LEVEL, ROOT, Alias, AliasFinder
from sentence_embedder.lock import Lock

__all__ = ["API_LEVEL", "install", "uninstall"]

_lock = Lock()


def install() -> None:
    """From now on ``import sentence_transformers``, and whatever is below it, finds what is in this package, also
    where sentence-transformers is installed. A second call changes nothing.

    It belongs at the top level of a program, above the first import that needs it: processes that multiprocessing
    starts run the top level again, and so have it as well.

    Raises:
        RuntimeError: sentence-transformers is imported already, and there would be two classes of the same name.
    """
    with _lock:
        theirs = sys.modules.get(ROOT)
        if theirs is not None and not isinstance(theirs, Alias):
            where = getattr(theirs, "__file__", None) or "from an unknown place"
            raise RuntimeError(
                f"expected a program that has not imported {ROOT} yet, found version "
                f"{getattr(theirs, '__version__', 'unknown')} imported ({where}): "
                "call sentence_embedder.compat.install() above the first import that needs it"
            )
        _remove_finders()
        sys.meta_path.insert(0, AliasFinder())


def uninstall() -> None:
    """From now on ``import sentence_transformers`` finds what is installed under that name, if anything is. What
    was imported before stays what it is. Without ``install`` before it this does nothing.
    """
    with _lock:
        _remove_finders()
        for name, module in list(sys.modules.items()):
            if isinstance(module, Alias):
                del sys.modules[name]


def _remove_finders() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, AliasFinder)]
