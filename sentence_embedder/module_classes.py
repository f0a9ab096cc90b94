"""The names of classes on disk → classes: a closed table and, where the caller trusts it, a model's own code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from sentence_embedder import models
from sentence_embedder.dotted_names import import_from_string
from sentence_embedder.models.checkpoint import class_in_folder
from sentence_embedder.record import FormatError


def _class_names() -> dict[str, type[Any]]:
    """Every dotted name that versions of sentence-transformers gave a class on disk → our class."""
    names = {}
    for name in models.__all__:
        module_class = getattr(models, name)
        file_name = module_class.__module__.rpartition(".")[2]
        for dotted in (
            f"models.{name}",  # 2.0 to 5.3
            f"models.{name}.{name}",
            f"base.modules.{file_name}.{name}",  # 5.4 and later, like the next
            f"sentence_transformer.modules.{file_name}.{name}",
        ):
            names[f"sentence_transformers.{dotted}"] = module_class
    return names


_CLASSES: Mapping[str, type[Any]] = _class_names()
"""Name on disk → class. A name that is not here imports nothing, unless the caller trusts the model."""

_OTHER_FAMILIES = {
    "sparse_encoder": "a SparseEncoder",
    "cross_encoder": "a CrossEncoder",
    "multi_vector_encoder": "a MultiVectorEncoder",
    "pylate": "a MultiVectorEncoder of PyLate",
}


def is_known(type_name: str) -> bool:
    """Whether a dotted name on disk is that of a class of this package."""
    return type_name in _CLASSES


def class_named(type_name: str, folder: Path, where: str, *, trust_remote_code: bool) -> type[Any]:
    """The class that a file names.

    Args:
        type_name: Its dotted name on disk: one of sentence-transformers; ``file.Class``, in a file of the model
            folder; or one that can be imported.
        folder: The model folder.
        where: The file that names it, for messages.
        trust_remote_code: Whether classes of others may be imported.

    Raises:
        FormatError: There is no such class, or it may not be imported.
    """
    if type_name in _CLASSES:
        return _CLASSES[type_name]
    parts = type_name.split(".")
    for part, family in _OTHER_FAMILIES.items():
        if part in parts:
            raise FormatError(where, f"a module of a SentenceTransformer; this is one of {family}", type_name)
    if parts[0] == "sentence_transformers":
        known = f"a module of sentence-transformers that is known here ({', '.join(models.__all__)})"
        raise FormatError(where, known, type_name)
    if not trust_remote_code:
        source = f"code in {parts[-2]}.py" if len(parts) > 1 else "code of its own"
        raise FormatError(
            where,
            f"a module of sentence-transformers: this one is {source}, which runs only with "
            "trust_remote_code=True: look at it first",
            type_name,
        )
    return _foreign_class(type_name, folder, where)


def import_homes(type_names: Iterable[str], folder: Path) -> None:
    """Import the modules that classes of somebody's own are in, but for files of the model folder. What
    fails, fails again, and is told, when the class is asked for.

    Args:
        type_names: Dotted names of classes, as for ``class_named``, of a model that the caller trusts.
        folder: The model folder.
    """
    for type_name in type_names:
        home, _, name = type_name.rpartition(".")
        is_elsewhere = type_name not in _CLASSES and type_name.split(".")[0] != "sentence_transformers"
        if is_elsewhere and not (folder / f"{home}.py").exists():
            with contextlib.suppress(Exception):
                import_module(home or name)


def own_class(class_name: str, where: str, expected: str) -> type[Any]:
    """The class of somebody's own that the settings of a module name: for callers who trust the model.

    Args:
        class_name: The dotted name of one that can be imported.
        where: The key that names it, for messages.
        expected: What belongs there otherwise, likewise.

    Raises:
        FormatError: There is no such class.
    """
    expected = f"{expected}, or a class that can be imported"
    try:
        found = import_from_string(class_name)
    except (ImportError, ValueError) as error:
        raise FormatError(where, f"{expected} ({error})", class_name) from error
    if not isinstance(found, type):
        raise FormatError(where, expected, class_name)
    return found


def _foreign_class(type_name: str, folder: Path, where: str) -> type[Any]:
    home, _, name = type_name.rpartition(".")
    expected = f"a class in {home}.py in the model folder, or one that can be imported"
    try:
        if home.isidentifier() and (folder / f"{home}.py").exists():
            found: Any = class_in_folder(type_name, folder)
        else:
            # Versions before 3.1 write the module alone, where it has the name of the class.
            found = getattr(import_module(home or name), name)
            found = getattr(found, name, found)
    except (ImportError, AttributeError, ValueError) as error:
        raise FormatError(where, f"{expected} ({error})", type_name) from error
    if not isinstance(found, type):
        raise FormatError(where, expected, type_name)
    return found
