"""A folder ⇄ the modules and settings of a model."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from torch import nn

from sentence_embedder import models
from sentence_embedder.files import PICKLED_WEIGHTS_NAME, SAFE_WEIGHTS_NAME, read_json, write_json
from sentence_embedder.formats import ModelConfig, ModuleEntry
from sentence_embedder.models import BoW, Dropout, Normalize, Pooling, StaticEmbedding, Transformer, WordWeights
from sentence_embedder.record import FormatError

logger = logging.getLogger(__name__)

_CONFIG_NAME = "config_sentence_transformers.json"
_MODULES_NAME = "modules.json"
_CARD_NAME = "README.md"
_MODEL_TYPE = "SentenceTransformer"

_CLASSES: tuple[type[Any], ...] = tuple(getattr(models, name) for name in models.__all__)
_WITHOUT_CONFIG = (Normalize, StaticEmbedding)
_WITHOUT_WEIGHTS = (BoW, Dropout, Normalize, Pooling, WordWeights)


def _class_names() -> dict[str, type[Any]]:
    """Every dotted name that versions of sentence-transformers gave a class on disk → our class."""
    names = {}
    for module_class in _CLASSES:
        name = module_class.__name__
        file_name = module_class.__module__.rpartition(".")[2]
        for dotted in (
            f"models.{name}",  # 2.0 to 5.3
            f"models.{name}.{name}",
            f"base.modules.{file_name}.{name}",  # 5.4 and later, like the next
            f"sentence_transformer.modules.{file_name}.{name}",
        ):
            names[f"sentence_transformers.{dotted}"] = module_class
    return names


_CLASS_OF: Mapping[str, type[Any]] = _class_names()
"""Name on disk → class. A closed table: a name in a file never imports anything."""


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """What a model folder holds.

    Args:
        modules: Name → module, in the order of the chain.
        config: Prompts, similarity and the like.
        entries: Name → the module's row of ``modules.json``; without rows for modules that had none.
        card: The text of ``README.md``, if there is one.
    """

    modules: Mapping[str, nn.Module]
    config: ModelConfig = field(default_factory=ModelConfig)
    entries: Mapping[str, ModuleEntry] = field(default_factory=dict)
    card: str | None = None


def load(
    folder: Path,
    *,
    model_args: Mapping[str, Any],
    tokenizer_args: Mapping[str, Any],
    config_args: Mapping[str, Any],
) -> SavedModel:
    """The model that a folder holds: one of sentence-transformers, or a plain transformer.

    Args:
        folder: The folder.
        model_args: Keyword arguments for loading a transformer's weights.
        tokenizer_args: Keyword arguments for loading its tokenizer.
        config_args: Keyword arguments for loading its configuration.

    Raises:
        FileNotFoundError: The folder holds no model, or lacks a file of it.
        FormatError: A file does not hold what it should, or names a class that is not known here.
    """
    transformer_args = {
        "model_args": model_args,
        "tokenizer_args": tokenizer_args,
        "config_args": config_args,
    }
    if not (folder / _MODULES_NAME).exists():
        return SavedModel(modules=_plain_transformer(folder, transformer_args))
    config = _read_config(folder)
    entries = _read_entries(folder)
    modules: dict[str, nn.Module] = {}
    for entry in entries:
        module_class = _class_of(entry, folder)
        arguments = transformer_args if module_class is Transformer else {}
        modules[entry.name] = module_class.load(folder / entry.path, **arguments)
    card = folder / _CARD_NAME
    return SavedModel(
        modules=modules,
        config=config,
        entries={entry.name: entry for entry in entries},
        card=card.read_text(encoding="utf-8", errors="replace") if card.exists() else None,
    )


def save(folder: Path, model: SavedModel, *, safe_serialization: bool = True) -> None:
    """Write a model into a folder, which is made if need be, so that sentence-transformers 2.7 and later read it.

    Args:
        folder: The folder.
        model: The model.
        safe_serialization: Whether weights are written as safetensors, rather than as the pickles that are
            all that 2.7 reads of modules other than the Transformer.
    """
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for idx, (name, module) in enumerate(model.modules.items()):
        entry = ModuleEntry(idx=idx, name=name, path=_path_of(idx, module), type=_type_of(module))
        known = model.entries.get(name)
        if known is not None:
            entry = replace(entry, kwargs=known.kwargs, extra=known.extra)
        _save_module(module, folder / entry.path, safe_serialization)
        entries.append(entry)
    write_json(folder / _MODULES_NAME, [entry.to_dict() for entry in entries])
    write_json(folder / _CONFIG_NAME, model.config.to_dict())
    if model.card is not None:
        (folder / _CARD_NAME).write_text(model.card, encoding="utf-8")


def incomplete_folders(folder: Path) -> Sequence[str]:
    """Those folders inside a model folder that lack a file without which they cannot be loaded, as modules.json
    spells them; the model folder itself, ``""``, if it is no model at all.
    """
    if not (folder / _MODULES_NAME).exists():
        return [""] if _is_incomplete(folder, Transformer) else []
    return [
        entry.path
        for entry in _read_entries(folder)
        if _is_incomplete(folder / entry.path, _class_of(entry, folder))
    ]


def _is_incomplete(folder: Path, module_class: type[Any]) -> bool:
    names = (SAFE_WEIGHTS_NAME, PICKLED_WEIGHTS_NAME)
    has_weights = any((folder / f"{name}{end}").exists() for name in names for end in ("", ".index.json"))
    config_name = getattr(module_class, "config_file_name", "config.json")
    lacks_config = module_class not in _WITHOUT_CONFIG and not (folder / config_name).exists()
    return lacks_config or (module_class not in _WITHOUT_WEIGHTS and not has_weights)


def _plain_transformer(folder: Path, transformer_args: Mapping[str, Any]) -> dict[str, nn.Module]:
    if not (folder / "config.json").exists():
        raise FileNotFoundError(
            f"{folder}: expected modules.json (a sentence-transformers model) or config.json (a transformer), "
            "found neither"
        )
    transformer = Transformer.load(folder, **transformer_args)
    hf_config = transformer.auto_model.config
    architecture = (getattr(hf_config, "architectures", None) or [""])[0]
    is_causal = architecture.endswith("ForCausalLM") and getattr(hf_config, "is_causal", True)
    pooling = Pooling(transformer.get_word_embedding_dimension(), "lasttoken" if is_causal else "mean")
    logger.warning(
        "%s has no modules.json: a plain transformer (%s), of which %s pooling makes embeddings",
        folder,
        architecture or hf_config.model_type,
        pooling.get_pooling_mode_str(),
    )
    return {"0": transformer, "1": pooling}


def _read_config(folder: Path) -> ModelConfig:
    path = folder / _CONFIG_NAME
    config = ModelConfig.from_dict(read_json(path), str(path)) if path.exists() else ModelConfig()
    if config.model_type not in (None, _MODEL_TYPE):
        raise FormatError(f"{path}: model_type", f"{_MODEL_TYPE!r}, the kind that is read here", config.model_type)
    return config


def _read_entries(folder: Path) -> list[ModuleEntry]:
    path = folder / _MODULES_NAME
    rows = read_json(path)
    if not isinstance(rows, list):
        raise FormatError(str(path), "a JSON array", rows)
    entries = [ModuleEntry.from_dict(row, f"{path}[{idx}]") for idx, row in enumerate(rows)]
    for entry in entries:
        place = PurePosixPath(entry.path)
        if place.is_absolute() or ".." in place.parts or "\\" in entry.path or ":" in entry.path:
            raise FormatError(f"{path}: path", "a folder inside the model folder", entry.path)
        if not entry.name or "." in entry.name or sum(entry.name == other.name for other in entries) > 1:
            raise FormatError(f"{path}: name", "a name of its own for each module, without dots", entry.name)
    return entries


def _class_of(entry: ModuleEntry, folder: Path) -> type[Any]:
    if entry.type not in _CLASS_OF:
        known = ", ".join(module_class.__name__ for module_class in _CLASSES)
        raise FormatError(
            f"{folder / _MODULES_NAME}: type", f"a module of sentence-transformers ({known})", entry.type
        )
    return _CLASS_OF[entry.type]


def _type_of(module: nn.Module) -> str:
    """The name of a module's class on disk: ours under the names that every version knows."""
    name = type(module).__name__
    if type(module) in _CLASSES:
        return f"sentence_transformers.models.{name}"
    return f"{type(module).__module__}.{name}"


def _path_of(idx: int, module: nn.Module) -> str:
    is_root = idx == 0 and isinstance(module, Transformer)
    return "" if is_root else f"{idx}_{type(module).__name__}"


def _save_module(module: nn.Module, folder: Path, safe_serialization: bool) -> None:
    """Call a module's own ``save``; one that was written for 2.7 takes the folder alone."""
    save_module: Any = getattr(module, "save", None)
    if save_module is None:
        raise TypeError(f"{type(module).__name__}: expected a save(path) method, so that it can be saved")
    folder.mkdir(parents=True, exist_ok=True)
    takes_format = "safe_serialization" in inspect.signature(save_module).parameters
    options = {"safe_serialization": safe_serialization} if takes_format else {}
    save_module(str(folder), **options)
