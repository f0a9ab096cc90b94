"""The name of a model → the folder that it is in, downloaded if need be."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from sentence_embedder.formats import MODULES_NAME, is_of_a_module
from sentence_embedder.hub.errors import (
    CacheError,
    HubError,
    HubUnavailableError,
    as_hub_errors,
    status_of,
    was_closed_here,
)
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


@dataclass(frozen=True)
class Gaps:
    """How to find what a model folder lacks.

    Args:
        incomplete_folders: A model folder → those of the folders in it that lack a file without which they cannot
            be loaded.
        undecided_files: A model folder → the files that it lacks and that a model may do without: not every model
            has them, and without them it makes other embeddings.
    """

    incomplete_folders: Callable[[Path], Sequence[str]]
    undecided_files: Callable[[Path], Sequence[str]]


def locate(source: ModelSource, gaps: Gaps) -> Path:
    """The folder that a model is in, fetched from the Hub if need be.

    A model that is whole in the cache costs no request, unless the source says ``refresh``.

    Args:
        source: Which model, and from where.
        gaps: How to find what its folder lacks.

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
    return _fetch(source.qualified(), gaps)


def _fetch(source: ModelSource, gaps: Gaps) -> Path:
    from huggingface_hub import constants

    offline = source.local_files_only or constants.HF_HUB_OFFLINE
    with as_hub_errors(source):
        cached = _cached_folder(source, offline=offline)
        if cached is not None and not source.refresh and not gaps.incomplete_folders(cached):
            return _decided(source, cached, gaps, offline=offline)
        if not offline:
            return _download(source, gaps)
    if source.refresh:
        raise HubError(f"{source.name}: refresh=True, but HF_HUB_OFFLINE says that nothing may be fetched")
    found = "a part of it" if cached else "nothing"
    raise HubError(
        f"{source.name}: expected the whole model in the cache, found {found}: load it once without "
        "local_files_only and HF_HUB_OFFLINE, or give the path of a model folder"
    )


def _decided(source: ModelSource, cached: Path, gaps: Gaps, *, offline: bool) -> Path:
    """The folder of a model that can be loaded as it is in the cache, once it is known whether a file that it lacks
    is one that the model does not have, or one that another program did not get to fetch.
    """
    unknown = [name for name in gaps.undecided_files(cached) if _cached_path(source, name) is None]
    if not unknown:
        return cached
    silence: object = "nothing may be fetched"
    if not offline:
        try:
            with as_hub_errors(source):
                return _download(replace(source, revision=cached.name), gaps)  # of the same commit
        except CacheError:  # the model has them, but they cannot be kept
            raise
        except HubError as error:
            silence = error
    names = " and ".join(unknown)
    logger.warning("%s: taken to have no %s, as the cache does not say: %s", source.name, names, silence)
    return cached


def _cached_path(source: ModelSource, file_name: str) -> object:
    """Where a file is in the cache, or its note that the model has none; None if nothing is known."""
    from huggingface_hub import try_to_load_from_cache

    return try_to_load_from_cache(source.name, file_name, cache_dir=_cache_folder(source), revision=source.revision)


def _cached_folder(source: ModelSource, *, offline: bool) -> Path | None:
    """The snapshot in the cache, if it is clear what kind of model it is."""
    modules = _cached_path(source, MODULES_NAME)
    if isinstance(modules, str):
        return Path(modules).parent
    # Without modules.json it may be a plain transformer, or a model of which another program fetched the
    # transformer alone. Only the Hub, or its word that there is no such file, can tell the two apart.
    if modules is None and not offline:
        return None
    config = _cached_path(source, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _download(source: ModelSource, gaps: Gaps) -> Path:
    for _ in range(_MOST_MOVES):
        # Asked first, and once: without a network the downloads below retry for long, or give what happens to be in
        # the cache.
        info = _info(source)
        folder = _fetched(source, str(info.sha), [file.rfilename for file in info.siblings or ()])
        if folder.name == info.sha:
            _note_missing(source, folder, gaps)
            break
        logger.info("%s has changed while it was fetched", source.name)
    else:
        raise HubUnavailableError(
            f"{source.name}: the Hub did not give the files of one commit: it fails, or somebody is pushing: try "
            "again later, or give a commit as revision"
        )
    lacking = gaps.incomplete_folders(folder)
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


def _fetched_file(source: ModelSource, name: str, revision: str | None) -> Path:
    """The folder of a commit with a file of it."""
    from huggingface_hub import hf_hub_download

    place: dict[str, Any] = {"revision": revision, "token": source.token, "cache_dir": _cache_folder(source)}
    path = _patiently(source, lambda: hf_hub_download(source.name, name, **place))
    return Path(path).parents[name.count("/")]


def _note_missing(source: ModelSource, folder: Path, gaps: Gaps) -> None:
    """Let the cache know which files the model of a commit does not have, so that nobody need ask again."""
    from huggingface_hub import errors

    for name in gaps.undecided_files(folder):
        with suppress(errors.EntryNotFoundError):  # of which the cache takes note
            _fetched_file(source, name, folder.name)


def _fetched(source: ModelSource, commit: str, files: Sequence[str]) -> Path:
    """The folder of a commit with all its files that are needed; of another, if the revision has moved on."""
    from huggingface_hub import errors

    wanted = [name for name in _needed(files) if name != MODULES_NAME]
    # After an error, and after Ctrl-C, nobody waits for files of many gigabytes.
    with Threads(min(_MOST_AT_ONCE, len(wanted)), "download") as threads:
        folders = list(threads.map(lambda name: _fetched_file(source, name, commit), wanted))
    # By its own name the revision comes last, and with it modules.json, or the cache's note that there is none:
    # what an interrupted download leaves behind is not taken for a model.
    if MODULES_NAME in files:
        return _fetched_file(source, MODULES_NAME, source.revision)
    with suppress(errors.EntryNotFoundError):
        return _fetched_file(source, MODULES_NAME, source.revision)
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
