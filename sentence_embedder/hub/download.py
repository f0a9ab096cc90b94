"""The name of a model → the folder that it is in, downloaded if need be."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from sentence_embedder.hub.errors import HubError, as_hub_errors
from sentence_embedder.hub.model_source import ModelSource

_MODULES_NAME = "modules.json"
_NEEDED = (
    *("*.json", "*.jinja", "*.py", "README.md"),
    *("*.txt", "*.model", "*.tiktoken", "*.codes", "*.spm", "*.vocab", "*.tokenizer"),  # of tokenizers
)
_SAFE_WEIGHTS = ("*model.safetensors", "*model-?????-of-?????.safetensors")
_PICKLED_WEIGHTS = ("*pytorch_model.bin", "*pytorch_model-?????-of-?????.bin")
_COPIES = ("onnx/*", "openvino/*", "coreml/*", "*/onnx/*", "*/openvino/*")
"""Folders with the same model in forms that are not read here."""

_SECONDS_TO_ANSWER = 10.0

IncompleteFolders = Callable[[Path], Sequence[str]]
"""A model folder → those of the folders in it that lack a file without which they cannot be loaded."""


def locate(source: ModelSource, incomplete_folders: IncompleteFolders) -> Path:
    """The folder that a model is in, fetched from the Hub if need be.

    A model that is whole in the cache costs no request: ``hf download NAME`` brings a newer one.

    Raises:
        FileNotFoundError: The name is a path, and there is nothing.
        NotADirectoryError: The name is a path, and there is a file.
        HubError: The Hub has no such model, or does not give it, or cannot be reached.
    """
    path = Path(source.name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise NotADirectoryError(f"{source.name}: expected a model folder, found a file")
    if source.is_path:
        raise FileNotFoundError(f"{source.name}: expected a model folder, found nothing: is the path right?")
    return _fetch(source.qualified(), incomplete_folders)


def _fetch(source: ModelSource, incomplete_folders: IncompleteFolders) -> Path:
    from huggingface_hub import constants

    offline = source.local_files_only or constants.HF_HUB_OFFLINE
    with as_hub_errors(source):
        cached = _cached_folder(source, offline=offline)
        if cached is not None and not incomplete_folders(cached):
            return cached
        if not offline:
            return _download(source, incomplete_folders)
    found = "a part of it" if cached else "nothing"
    raise HubError(
        f"{source.name}: expected the whole model in the cache, found {found}: load it once without "
        "local_files_only and HF_HUB_OFFLINE, or give the path of a model folder"
    )


def _cached_folder(source: ModelSource, *, offline: bool) -> Path | None:
    """The snapshot in the cache, if it is clear what kind of model it is."""
    from huggingface_hub import try_to_load_from_cache

    def cached_path(file_name: str) -> object:
        return try_to_load_from_cache(
            source.name, file_name, cache_dir=_cache_folder(source), revision=source.revision
        )

    modules = cached_path(_MODULES_NAME)
    if isinstance(modules, str):
        return Path(modules).parent
    # Without modules.json it may be a plain transformer, or a model of which another program fetched the
    # transformer alone. Only the Hub, or its word that there is no such file, can tell the two apart.
    if modules is None and not offline:
        return None
    config = cached_path("config.json")
    return Path(config).parent if isinstance(config, str) else None


def _download(source: ModelSource, incomplete_folders: IncompleteFolders) -> Path:
    from huggingface_hub import HfApi, errors, hf_hub_download, snapshot_download

    place: dict[str, Any] = {"repo_id": source.name, "revision": source.revision, "token": source.token}
    # Asked first, and once: without a network the downloads below retry for long, or give what happens to be
    # in the cache.
    info = HfApi().model_info(**place, timeout=_SECONDS_TO_ANSWER)
    files = [file.rfilename for file in info.siblings or ()]
    place["cache_dir"] = _cache_folder(source)
    wanted = [glob.escape(name) for name in _needed(files) if name != _MODULES_NAME]
    folder = Path(snapshot_download(**place, allow_patterns=wanted))
    # modules.json comes last, or the cache's note that there is none: what an interrupted download leaves
    # behind is not taken for a model.
    with nullcontext() if _MODULES_NAME in files else suppress(errors.EntryNotFoundError):
        hf_hub_download(filename=_MODULES_NAME, **place)
    lacking = incomplete_folders(folder)
    if lacking:
        names = ", ".join(name or "the model folder itself" for name in lacking)
        raise HubError(f"{source.name}: expected a model on the Hub, found no settings or no weights in {names}")
    return folder


def _needed(files: Sequence[str]) -> list[str]:
    """Those files of a repository that loading reads: pickles only of folders without safetensors."""

    def matching(patterns: Sequence[str]) -> list[str]:
        return [name for name in files if any(fnmatch(name, pattern) for pattern in patterns)]

    copies = set(matching(_COPIES))
    safe = matching(_SAFE_WEIGHTS)
    with_safe_weights = {PurePosixPath(name).parent for name in safe}
    pickled = [name for name in matching(_PICKLED_WEIGHTS) if PurePosixPath(name).parent not in with_safe_weights]
    return [name for name in (*matching(_NEEDED), *safe, *pickled) if name not in copies]


def _cache_folder(source: ModelSource) -> str | None:
    return source.cache_folder or os.getenv("SENTENCE_TRANSFORMERS_HOME")
