"""The name of a model → the folder that it is in, downloaded if need be."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from sentence_embedder.formats import MODULES_NAME, is_of_a_module
from sentence_embedder.hub.errors import HubError, HubUnavailableError, as_hub_errors, status_of, was_closed_here
from sentence_embedder.hub.model_source import ModelSource
from sentence_embedder.threads import Threads

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

_Answer = TypeVar("_Answer")

_NEEDED = (
    *("*.json", "*.jinja", "*.py", "README.md"),
    *("*.txt", "*.model", "*.tiktoken", "*.codes", "*.spm", "*.vocab", "*.tokenizer"),  # of tokenizers
)
_SAFE_WEIGHTS = ("*model.safetensors", "*model-?????-of-?????.safetensors")
_PICKLED_WEIGHTS = ("*pytorch_model.bin", "*pytorch_model-?????-of-?????.bin")
_OTHER_WEIGHTS = ("*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.gguf", "*optimizer.pt", "*scheduler.pt")
"""What other programs read, and what is left of training."""

_COPIES = ("onnx/*", "openvino/*", "coreml/*", "*/onnx/*", "*/openvino/*")
"""Folders with the same model in forms that are not read here."""

_SECONDS_TO_ANSWER = 10.0
_SECONDS_BETWEEN_TRIES = (0.5, 1.0, 2.0)
_MOST_SECONDS = 60
"""Whoever is asked to wait for longer than this is told, rather than left waiting."""

_PASSING = (429, 500, 502, 503, 504)
_MOST_AT_ONCE = 8
_MOST_MOVES = 3

IncompleteFolders = Callable[[Path], Sequence[str]]
"""A model folder → those of the folders in it that lack a file without which they cannot be loaded."""


def locate(source: ModelSource, incomplete_folders: IncompleteFolders) -> Path:
    """The folder that a model is in, fetched from the Hub if need be.

    A model that is whole in the cache costs no request, unless the source says ``refresh``.

    Raises:
        FileNotFoundError: The name is a path, and there is nothing.
        NotADirectoryError: The name is a path, and there is a file.
        HubError: The Hub has no such model, or does not give it, or cannot be reached.
    """
    path = Path(source.name)
    if not path.exists():  # or a folder that is really called "~"
        with suppress(RuntimeError):  # of somebody who has no home
            path = path.expanduser()
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
        if cached is not None and not source.refresh and not incomplete_folders(cached):
            return cached
        if not offline:
            return _download(source, incomplete_folders)
    if source.refresh:
        raise HubError(f"{source.name}: refresh=True, but HF_HUB_OFFLINE says that nothing may be fetched")
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

    modules = cached_path(MODULES_NAME)
    if isinstance(modules, str):
        return Path(modules).parent
    # Without modules.json it may be a plain transformer, or a model of which another program fetched the
    # transformer alone. Only the Hub, or its word that there is no such file, can tell the two apart.
    if modules is None and not offline:
        return None
    config = cached_path("config.json")
    return Path(config).parent if isinstance(config, str) else None


def _download(source: ModelSource, incomplete_folders: IncompleteFolders) -> Path:
    for _ in range(_MOST_MOVES):
        # Asked first, and once: without a network the downloads below retry for long, or give what happens to be in
        # the cache.
        info = _info(source)
        folder = _fetched(source, str(info.sha), [file.rfilename for file in info.siblings or ()])
        if folder.name == info.sha:
            break
        logger.info("%s has changed while it was fetched", source.name)
    else:
        raise HubUnavailableError(
            f"{source.name}: the Hub did not give the files of one commit: it fails, or somebody is pushing: try "
            "again later, or give a commit as revision"
        )
    lacking = incomplete_folders(folder)
    if lacking:
        names = ", ".join(name or "the model folder itself" for name in lacking)
        raise HubError(f"{source.name}: expected a model on the Hub, found no settings or no weights in {names}")
    return folder


def _info(source: ModelSource) -> ModelInfo:
    """What the Hub says of a revision: its commit, and the files in it."""
    from huggingface_hub import HfApi

    client = HfApi(token=source.token)
    return _patiently(
        source,
        lambda: client.model_info(source.name, revision=source.revision, timeout=_SECONDS_TO_ANSWER),
    )


def _patiently(source: ModelSource, ask: Callable[[], _Answer]) -> _Answer:
    """The answer of a Hub that may fail for a moment."""
    from huggingface_hub import errors

    for at_least in _SECONDS_BETWEEN_TRIES:
        try:
            return ask()
        except errors.HfHubHTTPError as error:
            asked = error.response.headers.get("Retry-After", "")
            seconds = max(at_least, int(asked) if asked.isdigit() else 0)
            if status_of(error) not in _PASSING or seconds > _MOST_SECONDS:
                raise
            logger.info("%s: the Hub answered %s: asking again in %s s", source.name, status_of(error), seconds)
        except (RuntimeError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # of its HTTP client
            if not was_closed_here(error):
                raise
            seconds = at_least
        time.sleep(seconds)
    return ask()


def _fetched(source: ModelSource, commit: str, files: Sequence[str]) -> Path:
    """The folder of a commit with all its files that are needed; of another, if the revision has moved on."""
    from huggingface_hub import errors, hf_hub_download

    def fetch(name: str, revision: str | None) -> Path:
        place: dict[str, Any] = {"revision": revision, "token": source.token, "cache_dir": _cache_folder(source)}
        path = _patiently(source, lambda: hf_hub_download(source.name, name, **place))
        return Path(path).parents[name.count("/")]

    wanted = [name for name in _needed(files) if name != MODULES_NAME]
    # After an error, and after Ctrl-C, nobody waits for files of many gigabytes.
    with Threads(min(_MOST_AT_ONCE, len(wanted)), "download") as threads:
        folders = list(threads.map(lambda name: fetch(name, commit), wanted))
    # By its own name the revision comes last, and with it modules.json, or the cache's note that there is none:
    # what an interrupted download leaves behind is not taken for a model.
    if MODULES_NAME in files:
        return fetch(MODULES_NAME, source.revision)
    with suppress(errors.EntryNotFoundError):
        return fetch(MODULES_NAME, source.revision)
    if not folders:
        raise HubError(f"{source.name}: expected a model on the Hub, found an empty repository")
    return folders[0]


def _needed(files: Sequence[str]) -> list[str]:
    """Those files of a repository that loading reads: pickles only of folders without safetensors."""

    def matching(patterns: Sequence[str]) -> list[str]:
        return [name for name in files if any(fnmatch(name, pattern) for pattern in patterns)]

    copies = set(matching(_COPIES))
    safe = matching(_SAFE_WEIGHTS)
    with_safe_weights = {PurePosixPath(name).parent for name in safe}
    pickled = [name for name in matching(_PICKLED_WEIGHTS) if PurePosixPath(name).parent not in with_safe_weights]
    others = {*safe, *matching(_PICKLED_WEIGHTS), *matching(_OTHER_WEIGHTS)}
    # A module of somebody's own reads whatever is in its folder.
    of_modules = [name for name in files if is_of_a_module(name) and name not in others]
    needed = dict.fromkeys((*matching(_NEEDED), *of_modules, *safe, *pickled))
    return [name for name in needed if name not in copies]


def _cache_folder(source: ModelSource) -> str | None:
    return source.cache_folder or os.getenv("SENTENCE_TRANSFORMERS_HOME")
