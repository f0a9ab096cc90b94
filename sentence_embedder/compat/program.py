"""A script or module that runs as the main program after ``install``, in the processes too that it starts."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from sentence_embedder.compat import install

_VARIABLE = "SENTENCE_EMBEDDER_COMPAT_PROGRAM"
"""What tells processes that multiprocessing starts which program it is."""

_THIS = "sentence_embedder.compat.program"


class _Spec(ModuleSpec):
    """The spec of a main program. multiprocessing imports a module of that name in the processes that it starts:
    this one, which then runs the program.
    """

    def __init__(self, package: str, origin: str) -> None:
        super().__init__(_THIS, None, origin=origin)
        self._package = package

    @property
    def parent(self) -> str:
        """The package that its relative imports start from."""
        return self._package


@dataclass(frozen=True)
class Program:
    """A script, or a module.

    Args:
        target: The path of a script, or the name of a module; of a package it is its ``__main__``.
        is_module: Whether it is a module.
    """

    target: str
    is_module: bool = False

    @staticmethod
    def of_environment() -> Program:
        """The one that this process, or one that has started it, was told to run."""
        kind, _, target = os.environ[_VARIABLE].partition(":")
        return Program(target, is_module=kind == "module")

    def start(self, arguments: list[str]) -> None:
        """Run it as Python would: as ``__main__``, with arguments, and with its own folder on the path.

        Raises:
            SystemExit: There is no such program; or the program says so.
        """
        try:
            path, package, code = self._loaded()
        except (OSError, ImportError) as error:
            sys.exit(f"{sys.executable}: {error}")
        kind, target = ("module", self.target) if self.is_module else ("script", path)
        os.environ[_VARIABLE] = f"{kind}:{target}"
        sys.argv = [path if self.is_module else self.target, *arguments]
        if not self.is_module and not getattr(sys.flags, "safe_path", False):
            sys.path[0] = str(Path(path).parent)  # where python -m has put the working folder
        _execute(path, package, code, "__main__")

    def run_again(self, name: str) -> dict[str, Any]:
        """Run its top level in a process that multiprocessing has started; see ``_Spec``.

        Args:
            name: What it is called there: ``__mp_main__``.

        Returns:
            Its names.
        """
        return _execute(*self._loaded(), name)

    def _loaded(self) -> tuple[str, str, CodeType]:
        """Its file, the package that it belongs to, and what it does."""
        if not self.is_module:
            path = Path(self.target).resolve()
            return str(path), "", compile(path.read_bytes(), path, "exec", dont_inherit=True)
        spec = importlib.util.find_spec(self.target)
        if spec is not None and spec.submodule_search_locations is not None:
            spec = importlib.util.find_spec(f"{self.target}.__main__")
        code = getattr(spec.loader, "get_code", lambda _: None)(spec.name) if spec is not None else None
        if spec is None or code is None:
            raise ImportError(f"No module named {self.target}, or none that can be run")
        return spec.origin or self.target, spec.parent or "", code


def _execute(path: str, package: str, code: CodeType, name: str) -> dict[str, Any]:
    main = ModuleType(name)
    main.__file__ = path
    main.__package__ = package or None
    main.__spec__ = _Spec(package, path)
    sys.modules[name] = main
    exec(code, main.__dict__)  # noqa: S102  # the program that the user wants to run
    return main.__dict__


if __name__ == "__mp_main__":
    install()
    globals().update(Program.of_environment().run_again(__name__))
