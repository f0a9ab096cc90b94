"""Runs in the environment of a sentence-transformers: its modules, names and signatures → a JSON file.

``python record_surface.py OUT.json``
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import sys
import types
import warnings
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

PARTS = ("util", "models", "losses", "evaluation", "readers", "datasets", "quantization")


def main() -> None:
    import sentence_transformers

    warnings.simplefilter("ignore")
    surface = {
        "version": sentence_transformers.__version__,
        "modules": sorted(_modules(sentence_transformers)),
        "names": {
            "": _public(sentence_transformers),
            **{part: _public(import_module(f"sentence_transformers.{part}")) for part in PARTS},
        },
        "SentenceTransformer": _members(sentence_transformers.SentenceTransformer),
    }
    Path(sys.argv[1]).write_text(json.dumps(surface, separators=(",", ":"), ensure_ascii=False) + "\n")


def _modules(package: Any) -> set[str]:
    """The dotted names of all modules below the package, the historical ones too."""
    found = {name for _, name, _ in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")}
    try:
        table = import_module("sentence_transformers.util.deprecated_import").DEPRECATED_MODULE_PATHS
    except ImportError:
        table = {}
    return {name.partition(".")[2] for name in found | set(table)}


def _public(module: Any) -> dict[str, Any]:
    """Name → signature, None for what has none; of what a module exports, or defines if it does not say."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items() if _is_of(module, value) and not name.startswith("_")
    ]
    return {name: _signature(getattr(module, name)) for name in sorted(names)}


def _is_of(module: Any, value: Any) -> bool:
    home = getattr(value, "__module__", None) or ""
    return isinstance(value, (type, types.FunctionType)) and f"{home}.".startswith(f"{module.__name__}.")


def _members(owner: type) -> dict[str, Any]:
    """Method → signature, property → None; those of sentence-transformers, nn.Module's aside."""
    members = {}
    for name in sorted(dir(owner)):
        home = next(base for base in owner.__mro__ if name in vars(base))
        if not home.__module__.startswith("sentence_transformers.") or name.startswith("__"):
            continue
        if not name.startswith("_") or name in ("_first_module", "_last_module", "_text_length"):
            value = vars(home)[name]
            if isinstance(value, property) or callable(getattr(owner, name)):
                members[name] = None if isinstance(value, property) else _signature(getattr(owner, name))
    return members


def _signature(value: Any) -> Any:
    """Parameters as (name, kind, default), each a string; no default is None."""
    if not callable(value) or (isinstance(value, type) and issubclass(value, Enum)):
        return None
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:
        return None
    return [
        (p.name, p.kind.name, None if p.default is p.empty else _written(p.default))
        for p in parameters
        if p.name != "self"
    ]


def _written(default: Any) -> str:
    if isinstance(default, (type, types.FunctionType)):
        return str(default.__qualname__)
    return repr(default) if " at 0x" not in repr(default) else type(default).__name__


if __name__ == "__main__":
    main()
