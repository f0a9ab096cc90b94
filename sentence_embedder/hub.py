"""The Hugging Face Hub: the name of a model → a folder. The only importer of huggingface_hub."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

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

_LANGUAGE_MODELS = frozenset(
    [
        *(f"albert-{size}-v{version}" for size in ("base", "large", "xlarge", "xxlarge") for version in (1, 2)),
        *(f"bert-base-{kind}" for kind in ("cased", "uncased", "chinese", "cased-finetuned-mrpc")),
        *(f"bert-base-german-{kind}" for kind in ("cased", "dbmdz-cased", "dbmdz-uncased")),
        *(f"bert-base-multilingual-{kind}" for kind in ("cased", "uncased")),
        *(
            f"bert-large-{case}{kind}"
            for case in ("cased", "uncased")
            for kind in ("", "-whole-word-masking", "-whole-word-masking-finetuned-squad")
        ),
        *("camembert-base", "ctrl", "openai-gpt", "transfo-xl-wt103", "distilgpt2", "distilroberta-base"),
        *(f"distilbert-base-{case}{kind}" for case in ("cased", "uncased") for kind in ("", "-distilled-squad")),
        *("distilbert-base-german-cased", "distilbert-base-multilingual-cased"),
        "distilbert-base-uncased-finetuned-sst-2-english",
        *(f"gpt2{size}" for size in ("", "-medium", "-large", "-xl")),
        *("roberta-base", "roberta-large", "roberta-large-mnli"),
        *("roberta-base-openai-detector", "roberta-large-openai-detector"),
        *(f"t5-{size}" for size in ("small", "base", "large", "3b", "11b")),
        *(f"xlm-clm-{kind}-1024" for kind in ("ende", "enfr")),
        *(f"xlm-mlm-{kind}" for kind in ("100-1280", "17-1280", "en-2048", "ende-1024", "enfr-1024")),
        *(f"xlm-mlm-{kind}" for kind in ("enro-1024", "tlm-xnli15-1024", "xnli15-1024")),
        *("xlm-roberta-base", "xlm-roberta-large"),
        *(f"xlm-roberta-large-finetuned-conll02-{language}" for language in ("dutch", "spanish")),
        *(f"xlm-roberta-large-finetuned-conll03-{language}" for language in ("english", "german")),
        *("xlnet-base-cased", "xlnet-large-cased"),
    ]
)
"""The names without an owner that mean a plain language model; every other belongs to sentence-transformers."""


class HubError(OSError):
    """A model could not be had from the Hugging Face Hub; the message says why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from.

    Args:
        name: A folder, or a name on the Hub.
        revision: A branch, tag or commit; by default the main branch.
        token: A token for private models; True for the one that is stored on this machine, False for none.
        cache_folder: Where downloads are kept; by default where ``SENTENCE_TRANSFORMERS_HOME`` says, or else
            in the Hub's own cache.
        local_files_only: Whether only what is in the cache may be used.
    """

    name: str
    revision: str | None = None
    token: bool | str | None = field(default=None, repr=False)
    cache_folder: str | None = None
    local_files_only: bool = False


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
    if _is_path(source.name):
        raise FileNotFoundError(f"{source.name}: expected a model folder, found nothing: is the path right?")
    return _fetch(_qualified(source), incomplete_folders)


def _is_path(name: str) -> bool:
    return name.count("/") > 1 or "\\" in name or name.startswith((".", "/", "~")) or name.endswith("/")


def _qualified(source: ModelSource) -> ModelSource:
    if "/" in source.name or source.name.lower() in _LANGUAGE_MODELS:
        return source
    return replace(source, name=f"sentence-transformers/{source.name}")


def _fetch(source: ModelSource, incomplete_folders: IncompleteFolders) -> Path:
    from huggingface_hub import constants

    offline = source.local_files_only or constants.HF_HUB_OFFLINE
    with _as_hub_errors(source):
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


@contextmanager
def _as_hub_errors(source: ModelSource) -> Iterator[None]:
    """Every error of the client as a HubError that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except errors.GatedRepoError as error:
        reason = "its owner must grant access: ask for it on the model's page, then pass token="
        raise HubError(f"{source.name}: {reason}") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{source.name}: the Hub has the model, but no revision {source.revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        reason = "the Hub has no such model, or it is private: check the spelling, or pass token="
        raise HubError(f"{source.name}: {reason}; nor is there a folder of that name") from error
    except errors.HFValidationError as error:
        raise HubError(f"{source.name}: neither a folder nor a name that the Hub allows") from error
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # of its HTTP client
        reason = "the Hub did not give it; is there a network? local_files_only=True uses what is in the cache"
        raise HubError(f"{source.name}: {reason} ({type(error).__name__})") from error
