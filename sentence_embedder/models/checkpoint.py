"""A checkpoint of Hugging Face transformers: model and tokenizer, loaded and saved quietly."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from sentence_embedder.files import (
    PICKLED_WEIGHTS_NAME,
    WeightsError,
    read_json,
    remove_weights,
    write_json,
    write_weights,
)

_ENCODERS = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
"""Kind of encoder-decoder → the class that is its encoder alone."""

_quieting = threading.RLock()


def load_model(
    name: str, cache_dir: str | None, model_args: Mapping[str, Any], config_args: Mapping[str, Any]
) -> Any:
    """The model of a checkpoint, in evaluation mode; computed in float32 unless the arguments have a ``dtype``.

    Args:
        name: A folder, or a name on the Hub.
        cache_dir: Folder for downloads.
        model_args: Keyword arguments for ``AutoModel.from_pretrained``.
        config_args: Keyword arguments for ``AutoConfig.from_pretrained``.

    Raises:
        WeightsError: The checkpoint lacks weights that the embeddings depend on.
    """
    import transformers

    # Repositories are given with the weights' arguments; the configuration comes from the same place.
    place = {key: model_args[key] for key in ("token", "revision", "trust_remote_code") if key in model_args}
    dtype = {} if {"dtype", "torch_dtype"} & model_args.keys() else {"dtype": torch.float32}
    with _quiet_transformers():
        config = transformers.AutoConfig.from_pretrained(name, **{"cache_dir": cache_dir, **place, **config_args})
        model_class: Any = getattr(transformers, _ENCODERS.get(config.model_type, "AutoModel"))
        options = {"config": config, "cache_dir": cache_dir, **dtype, **model_args, "output_loading_info": True}
        model, loaded = model_class.from_pretrained(name, **options)
    # Nothing here reads the pooler: checkpoints of language models come without one.
    missing = sorted(key for key in loaded["missing_keys"] if "pooler." not in key)
    if missing:
        raise WeightsError(f"{name}: expected all weights of a {type(model).__name__}, found none for {missing}")
    return model.eval()


def load_tokenizer(name: str, cache_dir: str | None, tokenizer_args: Mapping[str, Any]) -> Any:
    """The tokenizer of a checkpoint; arguments as for ``load_model``."""
    from transformers import AutoTokenizer

    with _quiet_transformers():
        return AutoTokenizer.from_pretrained(name, **{"cache_dir": cache_dir, **tokenizer_args})


def load_processor(name: str, processor_args: Mapping[str, Any]) -> Any:
    """The tokenizer and image processor of a checkpoint.

    Raises:
        ImportError: Pillow is not installed.
    """
    from transformers import AutoProcessor

    if find_spec("PIL") is None:
        raise ImportError(f"{name}: expected the package pillow: pip install 'sentence-embedder[vision]'")
    auto_processor: Any = AutoProcessor
    with _quiet_transformers():
        return auto_processor.from_pretrained(name, **{"use_fast": False, **processor_args})


def has_plain_backend(tokenizer: Any) -> bool:
    """Whether a tokenizer does nothing with a text but ask the ``tokenizers`` library."""
    from transformers import PreTrainedTokenizerFast

    names = ("__call__", "_encode_plus")
    return isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(type(tokenizer), name) is getattr(PreTrainedTokenizerFast, name) and name not in vars(tokenizer)
        for name in names
    )


def copy_of_backend(tokenizer: Any) -> Any:
    """A copy, which does not pad, of a ``tokenizers.Tokenizer`` or of what a fast tokenizer of transformers wraps.

    Raises:
        TypeError: It is neither of these.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        raise TypeError(
            f"expected a tokenizers.Tokenizer or a fast tokenizer of transformers, found {type(tokenizer).__name__}"
        )
    copied = Tokenizer.from_str(backend.to_str())
    copied.no_padding()
    return copied


def read_backend(path: Path) -> Any:
    """The ``tokenizers.Tokenizer`` in a file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It holds something else.
    """
    from tokenizers import Tokenizer

    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a tokenizer, found no such file")
    try:
        return Tokenizer.from_str(json.dumps(read_json(path)))
    except ValueError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{path}: expected a tokenizer, found something else: {error}") from error


def class_in_folder(reference: str, folder: Path) -> type[Any]:
    """The class ``file.Class`` in a file of a folder, which is executed."""
    from transformers.dynamic_module_utils import get_class_from_dynamic_module

    found: type[Any] = get_class_from_dynamic_module(reference, str(folder), local_files_only=True)
    return found


def copy_code(module: torch.nn.Module, folder: Path) -> None:
    """Copy the files that the classes of a module, and of those inside it, came in beside their model."""
    from transformers.dynamic_module_utils import custom_object_save

    for part in module.modules():
        if type(part).__module__.startswith("transformers_modules.") and hasattr(type(part), "save"):
            custom_object_save(part, folder)


def save_model(folder: Path, model: Any, *, safe_serialization: bool = True) -> None:
    """Write a model's configuration and weights, as safetensors or as a pickle."""
    with _quiet_transformers():
        if safe_serialization:
            model.save_pretrained(folder)
            remove_weights(folder, PICKLED_WEIGHTS_NAME)
        else:
            config = copy.deepcopy(model.config)
            config.architectures = [type(model).__name__]
            config.save_pretrained(folder)
            write_weights(folder, model, safe_serialization=False)


def save_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Write a tokenizer, spelt so that readers of all ages understand it."""
    with _quiet_transformers():
        tokenizer.save_pretrained(folder)
    _make_tokenizer_portable(folder)


def save_processor(folder: Path, processor: Any) -> None:
    """Write a tokenizer and an image processor, so that readers of all ages understand them."""
    # In two files: the one that transformers 5 makes of them, earlier versions fail on.
    save_tokenizer(folder, processor.tokenizer)
    with _quiet_transformers():
        processor.image_processor.save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = read_json(path)
    kind = str(settings.get("image_processor_type", "")).removesuffix("Pil")  # the one without torchvision
    write_json(path, {**settings, "image_processor_type": kind, "processor_class": type(processor).__name__})


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without transformers' progress bars and its table of unused weights; what matters is said here.

    The switches are the process's: the lock keeps a second thread from taking them for its own.
    """
    from transformers.utils import logging as transformers_logging

    log: Any = transformers_logging
    with _quieting:
        verbosity, has_bars = log.get_verbosity(), log.is_progress_bar_enabled()
        log.set_verbosity_error()
        log.disable_progress_bar()
        try:
            yield
        finally:
            log.set_verbosity(verbosity)
            if has_bars:
                log.enable_progress_bar()


def _make_tokenizer_portable(folder: Path) -> None:
    settings_path, tokenizer_path = folder / "tokenizer_config.json", folder / "tokenizer.json"
    settings = read_json(settings_path)
    if settings.get("tokenizer_class") == "TokenizersBackend":  # the name of transformers 5
        write_json(settings_path, {**settings, "tokenizer_class": "PreTrainedTokenizerFast"})
    if not tokenizer_path.exists():
        return
    tokenizer = read_json(tokenizer_path)
    merges = tokenizer["model"].get("merges") or []
    # tokenizers before 0.20 read a merge as "a b", not as ["a", "b"]; a part with a space only fits the latter.
    if all(isinstance(merge, list) and not any(" " in part for part in merge) for merge in merges) and merges:
        tokenizer["model"]["merges"] = [" ".join(merge) for merge in merges]
        write_json(tokenizer_path, tokenizer)
