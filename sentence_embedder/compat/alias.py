"""The modules that ``import sentence_transformers…`` finds: other names for what is in this package."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import sentence_embedder
from sentence_embedder.compat import absent_classes, module_paths

ROOT = "sentence_transformers"

API_LEVEL = "5.7.0"
"""``sentence_transformers.__version__``: the version whose calls are there.

Others decide by it what to call: from 5.0 on ``encode_query`` and ``encode_document``, from 6.0 on what a
MultiVectorEncoder has, which is not there. 5.7 is the last before that.
"""

_NOT_THEIRS = {"AbsentClassError", "EncodePool", "PoolError", "__version__"}

_IN_ITS_MODULES = {
    "BatchSamplers",
    "GroupByLabelBatchSampler",
    "MultiDatasetBatchSamplers",
    "NoDuplicatesBatchSampler",
    "ProportionalBatchSampler",
    "RoundRobinBatchSampler",
    "SentenceTransformerDataCollator",
    "SentenceTransformerModelCardCallback",
}
"""Absent classes that the package itself never had."""

_FILE = Path(__file__)


class Alias(ModuleType):
    """A module of which every name is that of an object elsewhere."""

    def __getattr__(self, name: str) -> Any:
        path = _below_root(f"{self.__name__}.{name}")
        if not name.startswith("__"):  # Python itself looks for those
            if self.__name__ == ROOT and name in self.__all__:
                value = _named(name)
                self.__dict__[name] = value
                return value
            if module_paths.is_known(path):
                return import_module(f"{ROOT}.{path}")
        reason = module_paths.why_missing(path)
        raise AttributeError(
            f"module {self.__name__!r} has no attribute {name!r}" + (f": {reason}" if reason else ""),
            name=name,
            obj=self,
        )

    def __setattr__(self, name: str, value: object) -> None:
        # Importing ``losses.MSELoss``, a module, would hide ``losses.MSELoss``, the class.
        if isinstance(value, Alias) and name in self.__all__:
            return
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.__all__})


class AliasFinder(MetaPathFinder, Loader):
    """Finds the modules of sentence-transformers in this package, and nowhere else."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """What stands for a module of sentence-transformers; None for modules of others, and where nothing stands
        for it and somebody only asks whether it is there.

        Raises:
            ModuleNotFoundError: It is to be imported, and nothing stands for it. What is installed is not looked
                at: with a class from here and another from there nothing would work.
        """
        del path, target
        if fullname.partition(".")[0] != ROOT:
            return None
        below = _below_root(fullname)
        if not module_paths.is_known(below):
            if _is_probe():
                return None
            reason = module_paths.why_missing(below) or "there is none in any version that it stands for"
            message = f"No module named {fullname!r} (sentence_embedder.compat): {reason}"
            raise ModuleNotFoundError(message, name=fullname)
        spec = ModuleSpec(fullname, self, origin=str(_FILE), is_package=module_paths.is_package(below))
        spec.has_location = True
        return spec

    def create_module(self, spec: ModuleSpec) -> Alias:
        """A module with no names yet."""
        alias = Alias(spec.name, sentence_embedder.__doc__)
        alias.__all__ = []
        return alias

    def exec_module(self, module: ModuleType) -> None:
        """Give it its names; the package itself imports what they name when they are used."""
        path = _below_root(module.__name__)
        if not path:
            module.__dict__.update(
                __version__=API_LEVEL,
                __MODEL_HUB_ORGANIZATION__="sentence-transformers",
                __all__=sorted(
                    {*sentence_embedder.__all__, *_public(absent_classes)} - _NOT_THEIRS - _IN_ITS_MODULES
                ),
            )
            return
        if path in module_paths.PICKED:
            names = {name: _named(name) for name in module_paths.PICKED[path]}
        else:
            homes = [import_module(f"{sentence_embedder.__name__}.{home}") for home in module_paths.HOMES[path]]
            names = {name: getattr(home, name) for home in homes for name in _public(home)}
        module.__dict__.update(names, __all__=sorted(names))


def _is_probe() -> bool:
    """Whether ``importlib.util.find_spec`` asks the finder, which an error does not answer, and not an import."""
    frame: FrameType | None = sys._getframe(2)  # of the import system, which goes through the finders
    asker = frame.f_back if frame is not None else None
    return asker is not None and asker.f_globals.get("__name__") == "importlib.util"


def _below_root(name: str) -> str:
    return name.partition(".")[2]


def _named(name: str) -> Any:
    """What this package, its modules, or the classes that it lacks, call by a name."""
    if name in sentence_embedder.__all__:
        return getattr(sentence_embedder, name)
    if hasattr(absent_classes, name):
        return getattr(absent_classes, name)
    return getattr(import_module("sentence_embedder.models"), name)


def _public(home: ModuleType) -> list[str]:
    """What a module exports or, if it does not say, the classes and functions that are defined in it."""
    names: list[str] | None = getattr(home, "__all__", None)
    if names is not None:
        return names
    return [
        name
        for name, value in vars(home).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == home.__name__
    ]
