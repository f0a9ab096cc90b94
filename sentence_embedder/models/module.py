"""The contract of a module: Features in, Features out, and a folder on disk."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import nn

from sentence_embedder.dotted_names import qualified_name
from sentence_embedder.features import Features
from sentence_embedder.files import read_json, read_weights, write_json, write_weights
from sentence_embedder.record import FormatError, Record

_Module = TypeVar("_Module", bound="Module")
_Value = TypeVar("_Value")

_HOME = __name__.rpartition(".")[0]
_MODEL = f"{_HOME.partition('.')[0]}.sentence_transformers"
"""Where the class of models is, which stands a layer above."""
_FROM_MODELS = "transformers_modules."
"""Where classes are that came with a model: in another process they are not."""

OwnClass = Callable[[str, str, str], type[Any]]
"""The dotted name of a class of somebody's own, the key that says so, what belongs there → the class."""


def refuse_own_class(class_name: str, where: str, expected: str) -> type[Any]:
    """The ``OwnClass`` of callers who do not trust a model: an error, with the remedy.

    Raises:
        FormatError: Always.
    """
    remedy = "one of your own runs only with SentenceTransformer(…, trust_remote_code=True): look at it first"
    raise FormatError(where, f"{expected}; {remedy}", class_name)


def check_importable(thing: object, base: type[Any], where: str) -> None:
    """Raise a ValueError if the class of a thing is of another kind, or cannot be found again by its name.

    Args:
        thing: What a module holds, and names on disk by its class alone.
        base: What the class must be derived from.
        where: What it is, for the message.
    """
    kind = type(thing)
    # No import: whatever there is an instance of has been imported.
    is_there = getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind
    if not isinstance(thing, base) or not is_there or kind.__module__.startswith(_FROM_MODELS):
        raise ValueError(
            f"{where}: expected an instance of a class derived from {base.__name__} that can be imported, found "
            f"{thing!r}: the file names only its class, and {qualified_name(kind)} could not be "
            "loaded again. Write such a class at the top of a module that is installed"
        )


def class_name_of(module: nn.Module) -> str:
    """The dotted name of a module's class on disk: ours under the names that every version knows."""
    of_module: Any = getattr(module, "class_name_on_disk", None)
    if callable(of_module):
        name: str = of_module()
        return name
    home, own_name = type(module).__module__, type(module).__name__
    if home.startswith(f"{_HOME}."):
        return f"sentence_transformers.models.{own_name}"
    # What came with a model is in a file beside it again.
    is_from_model = home.startswith(_FROM_MODELS)
    return f"{home.rpartition('.')[2] if is_from_model else home}.{own_name}"


def save_module(module: nn.Module, folder: Path, *, safe_serialization: bool) -> None:
    """Call a module's own ``save``; one that was written for 2.7 takes the folder alone.

    Raises:
        TypeError: It has none.
        ValueError: It is a model itself.
    """
    save = _save_of(module)
    folder.mkdir(parents=True, exist_ok=True)
    takes_format = "safe_serialization" in inspect.signature(save).parameters
    options = {"safe_serialization": safe_serialization} if takes_format else {}
    save(str(folder), **options)


def check_module(module: nn.Module) -> None:
    """Raise now the error that saving a module would end with, as far as it can be foreseen.

    Raises:
        TypeError: It has no ``save``.
        ValueError: What it would write, nobody could load again.
    """
    _save_of(module)
    check = getattr(type(module), "check_can_be_saved", None)
    if callable(check):
        check(module)


def _save_of(module: nn.Module) -> Any:
    save: Any = getattr(module, "save", None)
    if save is None:
        raise TypeError(f"{type(module).__name__}: expected a save(path) method, so that it can be saved")
    if any(kind.__module__ == _MODEL for kind in type(module).__mro__):
        raise ValueError(
            f"{type(module).__name__}: expected its modules in its place, modules=[*model, …]: a model that is a "
            "module of another could not be loaded again"
        )
    return save


def accepted_kwargs(module: nn.Module) -> frozenset[str]:
    """The names of the keyword arguments of ``encode`` that a module's ``forward`` takes, as its class says."""
    return frozenset(getattr(module, "forward_kwargs", ()))


class derived(Generic[_Value]):  # noqa: N801  # used as property is
    """An attribute that is worked out whenever it is asked for, and that others may set all the same."""

    def __init__(self, work_out: Callable[[Any], _Value]) -> None:
        self._work_out = work_out
        self.__doc__ = work_out.__doc__

    def __get__(self, module: Any, kind: Any = None) -> _Value:
        return self._work_out(module)


class Module(nn.Module):
    """A module whose settings are one frozen record, saved as ``config.json`` beside its weights if it has any.

    Each setting is an attribute of the module, too, under the names that sentence-transformers has for it; there it
    is read, not changed.

    A subclass names the record's class, makes itself from a record, and computes. ``forward`` returns new
    Features and leaves those that it was given as they are.

    Args:
        config: The settings.
    """

    config_class: ClassVar[type[Record]]
    config_file_name: ClassVar[str] = "config.json"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_config(cls: type[_Module], config: Any) -> _Module:
        """The module with these settings, its weights not yet loaded."""
        raise NotImplementedError(f"{cls.__name__}.from_config")

    def forward(self, features: Features) -> Features:
        """New Features: those given, and what the module makes of them."""
        raise NotImplementedError(f"{type(self).__name__}.forward")

    def __getattr__(self, name: str) -> Any:
        # Called for what is not found otherwise. What torch keeps (weights, modules) comes before a setting of the
        # same name; and a module that is being copied or unpickled has no settings yet.
        try:
            return super().__getattr__(name)
        except AttributeError:
            config = self.__dict__.get("config")
            if not isinstance(config, Record):
                raise
            name = config.newer_names.get(name, name)
            if name not in vars(config) or name == "extra":
                raise
            value = getattr(config, name)
            return list(value) if isinstance(value, tuple) else value

    @derived
    def config_keys(self) -> list[str]:
        """The names of the settings on disk."""
        return list(self.get_config_dict())

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as they are written to disk."""
        settings: dict[str, Any] = self.config.to_dict()
        return settings

    def check_can_be_saved(self) -> None:
        """Look whether what ``save`` would write could be loaded again.

        Raises:
            ValueError: It could not, or would be another module.
        """

    def save(self, output_path: str | Path, *, safe_serialization: bool = True) -> None:
        """Write the settings and weights into a folder, which is made if need be.

        Args:
            output_path: The folder.
            safe_serialization: Whether weights are written as safetensors, rather than as the pickle that is
                all that sentence-transformers 2.7 reads.

        Raises:
            ValueError: They could not be loaded again; the message says why.
        """
        self.check_can_be_saved()
        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        settings = self.get_config_dict()
        if settings:
            write_json(folder / self.config_file_name, settings)
        if self.state_dict():
            write_weights(folder, self, safe_serialization=safe_serialization)

    @classmethod
    def load(cls: type[_Module], input_path: str | Path) -> _Module:
        """The module that a folder holds.

        Raises:
            FormatError: Its settings are not those of such a module.
            FileNotFoundError, WeightsError: Its weights are missing, or not those of such a module.
        """
        folder = Path(input_path)
        path = folder / cls.config_file_name
        config = cls._read_config(folder)
        # Weights are not made up, only to be replaced; nor is memory taken because a file says so.
        try:
            with torch.device("meta"):
                module = cls.from_config(config)
        except FormatError as error:
            raise error.within(str(path)) from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if not module.state_dict():
            return cls.from_config(config)
        read_weights(folder, module)
        return module

    @classmethod
    def _read_config(cls, folder: Path) -> Any:
        path = folder / cls.config_file_name
        settings = read_json(path) if path.exists() else {}
        return cls.config_class.from_dict(settings, str(path))

    def extra_repr(self) -> str:
        """The settings, inside the parentheses of ``repr``."""
        return ", ".join(f"{key}={value!r}" for key, value in self.get_config_dict().items())
