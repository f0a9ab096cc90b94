"""A folder ⇄ the modules and settings of a model."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError
from torch import nn

from sentence_embedder.atomic_folder import replacing
from sentence_embedder.files import PICKLED_WEIGHTS_NAME, SAFE_WEIGHTS_NAME, check_inside, read_json, write_json
from sentence_embedder.formats import (
    MODULES_NAME,
    TRANSFORMER_CONFIG_NAMES,
    ModelConfig,
    ModuleEntry,
    WeightsIndex,
    is_of_a_module,
)
from sentence_embedder.loading import undisturbed
from sentence_embedder.models import (
    BoW,
    CLIPModel,
    Dropout,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
    WordWeights,
)
from sentence_embedder.models.checkpoint import copy_code
from sentence_embedder.models.module import class_name_of, save_module
from sentence_embedder.models.transformer import read_transformer_config
from sentence_embedder.module_classes import class_named, import_homes, is_known, own_class
from sentence_embedder.record import FormatError
from sentence_embedder.uninterrupted import uninterrupted

logger = logging.getLogger(__name__)

_CONFIG_NAME = "config_sentence_transformers.json"
_CARD_NAME = "README.md"
_MODEL_TYPE = "SentenceTransformer"

_ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
_TRANSFORMER_ARGUMENTS = frozenset(["model_args", "tokenizer_args", "config_args"])
_ROOT_NAMES = (
    *(MODULES_NAME, _CONFIG_NAME, "sentence_*_config.json", "router_config.json"),
    *("config.json", "generation_config.json", "*processor_config.json", "chat_template.*"),
    *("model.safetensors", "model-?????-of-?????.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model-?????-of-?????.bin", "pytorch_model.bin.index.json"),
    *("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
)
"""What the files of a model are called that lie in its folder itself."""

_MOST_MODULES = 1_000
_DEEPEST = 4
_WITHOUT_CONFIG = (Normalize, StaticEmbedding)
_WITHOUT_WEIGHTS = (BoW, Dropout, Normalize, Pooling, WordWeights)


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


@dataclass(frozen=True, kw_only=True)
class LoadArguments:
    """How a model is loaded.

    Args:
        model_args: Keyword arguments for loading a transformer's weights.
        tokenizer_args: Keyword arguments for loading its tokenizer.
        config_args: Keyword arguments for loading its configuration.
        trust_remote_code: Whether code that came with the model may run.
        local_files_only: Whether nothing may be fetched: the base model of an adapter, say.
    """

    model_args: Mapping[str, Any] = field(default_factory=dict)
    tokenizer_args: Mapping[str, Any] = field(default_factory=dict)
    config_args: Mapping[str, Any] = field(default_factory=dict)
    trust_remote_code: bool = False
    local_files_only: bool = False

    def for_transformer(self) -> dict[str, dict[str, Any]]:
        """The keyword arguments of ``Transformer.load``."""
        # Explicit in every call: where it is left out, transformers asks on the terminal.
        rights = {"trust_remote_code": self.trust_remote_code, "local_files_only": self.local_files_only}
        return {
            "model_args": {**rights, **self.model_args},
            "tokenizer_args": {**rights, **self.tokenizer_args},
            "config_args": {**rights, **self.config_args},
        }


def load(folder: Path, arguments: LoadArguments) -> SavedModel:
    """The model that a folder holds: one of sentence-transformers, or a plain transformer.

    Args:
        folder: The folder.
        arguments: How it is loaded.

    Raises:
        FileNotFoundError: The folder holds no model, or lacks a file of it.
        FormatError: A file does not hold what it should, or names a class that is not known here.
    """
    if not (folder / MODULES_NAME).exists():
        return undisturbed(lambda: SavedModel(modules=_plain_checkpoint(folder, arguments)))
    entries = _read_entries(folder)
    if arguments.trust_remote_code:
        # Others may load: a module that loads a model while it is imported would be waited for, and wait.
        uninterrupted(lambda: import_homes([entry.type for entry in entries], folder))
    return undisturbed(lambda: _loaded(folder, entries, arguments))


def _loaded(folder: Path, entries: Sequence[ModuleEntry], arguments: LoadArguments) -> SavedModel:
    config = _read_config(folder)
    modules = _Modules(folder, arguments)
    card = folder / _CARD_NAME
    return SavedModel(
        modules={
            entry.name: modules.load(entry.type, PurePosixPath(entry.path), f"{folder / MODULES_NAME}: type")
            for entry in entries
        },
        config=config,
        entries={entry.name: entry for entry in entries},
        card=card.read_text(encoding="utf-8", errors="replace") if card.exists() else None,
    )


@dataclass(frozen=True)
class _Modules:
    """The modules in a model folder.

    Args:
        folder: The folder.
        arguments: How they are loaded.
    """

    folder: Path
    arguments: LoadArguments

    def load(self, type_name: str, path: PurePosixPath, where: str) -> nn.Module:
        """The module in a folder inside the model folder.

        Args:
            type_name: The dotted name of its class.
            path: The folder.
            where: The file that names it, for messages.
        """
        module_class = class_named(
            type_name, self.folder, where, trust_remote_code=self.arguments.trust_remote_code
        )
        folder = self.folder / path
        if module_class is Transformer and read_transformer_config(folder).is_clip:
            module_class = CLIPModel
        if module_class in (Transformer, CLIPModel):
            of_checkpoint: nn.Module = module_class.load(folder, **self.arguments.for_transformer())
            return of_checkpoint
        if module_class is Router:
            return Router.load(folder, load_module=lambda *part: self._part(*part, router=path))
        names_classes = "own_class" in inspect.signature(module_class.load).parameters
        if names_classes and self.arguments.trust_remote_code:
            with_classes: nn.Module = module_class.load(folder, own_class=own_class)
            return with_classes
        if is_known(type_name):
            module: nn.Module = module_class.load(folder)
            return module
        return self._foreign(module_class, path)

    def _part(self, type_name: str, name: str, *, router: PurePosixPath) -> nn.Module:
        where = f"{self.folder / router}: types"
        check_inside(name, where)
        # One spelling for each folder, and few levels: links and other spellings could nest without end.
        if PurePosixPath(name).parts != (name,):
            raise FormatError(where, "the name of a folder for each module", name)
        if len(router.parts) >= _DEEPEST:
            raise FormatError(where, f"routers at most {_DEEPEST} deep", str(router / name))
        return self.load(type_name, router / name, where)

    def _foreign(self, module_class: Any, path: PurePosixPath) -> nn.Module:
        """A module whose class was written for some version of sentence-transformers."""
        of_load = inspect.signature(module_class.load).parameters
        transformer_args = self.arguments.for_transformer()
        module: nn.Module
        if len(of_load) > 1:  # of 5.0 and later
            offered = {
                "subfolder": "" if path == PurePosixPath() else str(path),
                "local_files_only": True,
                "trust_remote_code": True,
                "model_kwargs": transformer_args["model_args"],
                "tokenizer_kwargs": transformer_args["tokenizer_args"],
                "processor_kwargs": transformer_args["tokenizer_args"],
                "config_kwargs": transformer_args["config_args"],
                "backend": "torch",
            }
            module = module_class.load(str(self.folder), **_taken(offered, of_load))
            return module
        of_class = inspect.signature(module_class).parameters
        if _TRANSFORMER_ARGUMENTS & of_class.keys() or {"model_kwargs", "config_kwargs"} <= of_class.keys():
            # A Transformer of its own.
            settings = read_transformer_config(self.folder / path).to_dict()
            merged = {name: {**settings.get(name, {}), **given} for name, given in transformer_args.items()}
            offered = {**settings, **merged}
            if "model_kwargs" in of_class:  # the newer names
                offered |= {f"{name.removesuffix('args')}kwargs": given for name, given in merged.items()}
                offered["processor_kwargs"] = merged["tokenizer_args"]
            module = module_class(str(self.folder / path), **_taken(offered, of_class))
        else:
            module = module_class.load(str(self.folder / path))
        return module


def _taken(offered: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Those of the arguments that a function takes."""
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {name: value for name, value in offered.items() if takes_any or name in parameters}


def save(folder: Path, model: SavedModel, *, safe_serialization: bool = True) -> None:
    """Write a model into a folder, which is made if need be, so that sentence-transformers 2.7 and later read it.

    The folder holds the model that was there, or this one, whatever happens: see ``atomic_folder.replacing``. What
    is in it beside a model stays.

    Args:
        folder: The folder.
        model: The model.
        safe_serialization: Whether weights are written as safetensors, rather than as the pickles that are
            all that 2.7 reads of modules other than the Transformer.

    Raises:
        OSError: It could not be written: the disk is full, say.
    """
    try:
        with replacing(folder, _files_of_model(folder)) as partial:
            _write(partial, model, safe_serialization=safe_serialization)
    except SafetensorError as error:  # which is no OSError, though the disk is full
        raise OSError(f"{folder}: the model could not be written: {error}") from error


def _write(folder: Path, model: SavedModel, *, safe_serialization: bool) -> None:
    entries = []
    for idx, (name, module) in enumerate(model.modules.items()):
        entry = ModuleEntry(idx=idx, name=name, path=_path_of(idx, module), type=class_name_of(module))
        known = model.entries.get(name)
        if known is not None:
            entry = replace(entry, kwargs=known.kwargs, extra=known.extra)
        save_module(module, folder / entry.path, safe_serialization=safe_serialization)
        copy_code(module, folder)
        entries.append(entry)
    write_json(folder / MODULES_NAME, [entry.to_dict() for entry in entries])
    write_json(folder / _CONFIG_NAME, model.config.to_dict())
    if model.card is not None:
        (folder / _CARD_NAME).write_text(model.card, encoding="utf-8")


def _files_of_model(folder: Path) -> Callable[[PurePosixPath], bool]:
    """Which paths in a folder belong to the model in it: a reader would take them for those of another."""
    try:
        modules = {PurePosixPath(entry.path) for entry in _read_entries(folder)} - {PurePosixPath()}
    except (OSError, ValueError):  # no model, or none that can be read
        modules = set()

    def belongs(inside: PurePosixPath) -> bool:
        return inside in modules or (len(inside.parts) == 1 and _is_root_name(inside.name))

    return belongs


def is_model_file(path: str) -> bool:
    """Whether a file belongs to a model by its path inside the folder of one, whichever modules that has."""
    return is_of_a_module(path) if "/" in path else _is_root_name(path)


def _is_root_name(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _ROOT_NAMES)


def incomplete_folders(folder: Path) -> Sequence[str]:
    """Those folders inside a model folder that lack a file without which they cannot be loaded, as modules.json
    spells them; the model folder itself, ``""``, if it is no model at all.
    """
    if not (folder / MODULES_NAME).exists():
        return [""] if _is_incomplete(folder, Transformer) else []
    return [path for path, module_class in _known_modules(folder) if _is_incomplete(folder / path, module_class)]


def undecided_files(folder: Path) -> Sequence[str]:
    """Those files that a model folder lacks and that a model may do without, but then makes other embeddings: the
    settings of the whole, and of each Transformer that modules.json names.
    """
    if not (folder / MODULES_NAME).exists():
        return []
    of_model = [] if (folder / _CONFIG_NAME).exists() else [_CONFIG_NAME]
    return of_model + [
        str(PurePosixPath(path, TRANSFORMER_CONFIG_NAMES[0]))
        for path, module_class in _known_modules(folder)
        if module_class is Transformer
        and not any((folder / path / name).exists() for name in TRANSFORMER_CONFIG_NAMES)
    ]


def _known_modules(folder: Path) -> list[tuple[str, type[Any]]]:
    """Path and class of the modules that modules.json names, of those whose class is of this package."""
    return [
        (entry.path, class_named(entry.type, folder, "", trust_remote_code=False))
        for entry in _read_entries(folder)
        if is_known(entry.type)
    ]


def _is_incomplete(folder: Path, module_class: type[Any]) -> bool:
    names = (SAFE_WEIGHTS_NAME, PICKLED_WEIGHTS_NAME, _ADAPTER_WEIGHTS_NAME)
    has_weights = any((folder / name).exists() or _has_parts(folder / f"{name}.index.json") for name in names)
    config_name = getattr(module_class, "config_file_name", "config.json")
    if module_class is Router:
        return not any((folder / name).exists() for name in (config_name, "config.json"))
    config_names = (config_name, "adapter_config.json") if module_class is Transformer else (config_name,)
    has_config = any((folder / name).exists() for name in config_names)
    lacks_config = module_class not in _WITHOUT_CONFIG and not has_config
    return lacks_config or (module_class not in _WITHOUT_WEIGHTS and not has_weights)


def _has_parts(index: Path) -> bool:
    """Whether there is an index of weights, and every file that it names."""
    if not index.exists():
        return False
    parts = WeightsIndex.from_dict(read_json(index), str(index)).weight_map.values()
    return all((index.parent / name).exists() for name in frozenset(parts))


def _plain_checkpoint(folder: Path, arguments: LoadArguments) -> dict[str, nn.Module]:
    """The modules of a checkpoint of transformers that nobody has made a model of."""
    if not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
        raise FileNotFoundError(
            f"{folder}: expected modules.json (a sentence-transformers model) or config.json (a transformer), "
            "found neither"
        )
    if _is_clip(folder / "config.json"):
        return {"0": CLIPModel.load(folder, **arguments.for_transformer())}
    transformer = Transformer.load(folder, **arguments.for_transformer())
    hf_config = transformer.model_seen.config
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


def _is_clip(path: Path) -> bool:
    """Whether the configuration of a checkpoint, if it has one, is that of a CLIP, with its texts and images."""
    config = read_json(path) if path.exists() else None
    return isinstance(config, Mapping) and config.get("model_type") == "clip"


def _read_config(folder: Path) -> ModelConfig:
    path = folder / _CONFIG_NAME
    config = ModelConfig.from_dict(read_json(path), str(path)) if path.exists() else ModelConfig()
    if config.model_type not in (None, _MODEL_TYPE):
        raise FormatError(f"{path}: model_type", f"{_MODEL_TYPE!r}: other families are not read", config.model_type)
    return config


def _read_entries(folder: Path) -> list[ModuleEntry]:
    path = folder / MODULES_NAME
    rows = read_json(path)
    if not isinstance(rows, list):
        raise FormatError(str(path), "a JSON array", rows)
    if len(rows) > _MOST_MODULES:
        raise FormatError(str(path), f"at most {_MOST_MODULES:,} modules", len(rows))
    entries = [ModuleEntry.from_dict(row, f"{path}[{idx}]") for idx, row in enumerate(rows)]
    for entry in entries:
        check_inside(entry.path, f"{path}: path")
        if not entry.name or "." in entry.name or sum(entry.name == other.name for other in entries) > 1:
            raise FormatError(f"{path}: name", "a name of its own for each module, without dots", entry.name)
    return entries


def _path_of(idx: int, module: nn.Module) -> str:
    is_root = idx == 0 and isinstance(module, Transformer)
    return "" if is_root else f"{idx}_{class_name_of(module).rpartition('.')[2]}"
