"""The contract of a module: Features in, Features out, and a folder on disk."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import nn

from sentence_embedder.features import Features
from sentence_embedder.files import read_json, read_weights, write_json, write_weights
from sentence_embedder.record import FormatError, Record

_Module = TypeVar("_Module", bound="Module")

_HOME = __name__.rpartition(".")[0]


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
    is_from_model = home.startswith("transformers_modules.")
    return f"{home.rpartition('.')[2] if is_from_model else home}.{own_name}"


def save_module(module: nn.Module, folder: Path, *, safe_serialization: bool) -> None:
    """Call a module's own ``save``; one that was written for 2.7 takes the folder alone.

    Raises:
        TypeError: It has none.
    """
    save: Any = getattr(module, "save", None)
    if save is None:
        raise TypeError(f"{type(module).__name__}: expected a save(path) method, so that it can be saved")
    folder.mkdir(parents=True, exist_ok=True)
    takes_format = "safe_serialization" in inspect.signature(save).parameters
    options = {"safe_serialization": safe_serialization} if takes_format else {}
    save(str(folder), **options)


def accepted_kwargs(module: nn.Module) -> frozenset[str]:
    """The names of the keyword arguments of ``encode`` that a module's ``forward`` takes, as its class says."""
    return frozenset(getattr(module, "forward_kwargs", ()))


class Module(nn.Module):
    """A module whose settings are one frozen record, saved as ``config.json`` beside its weights if it has any.

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

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as they are written to disk."""
        settings: dict[str, Any] = self.config.to_dict()
        return settings

    def save(self, output_path: str | Path, *, safe_serialization: bool = True) -> None:
        """Write the settings and weights into a folder, which is made if need be.

        Args:
            output_path: The folder.
            safe_serialization: Whether weights are written as safetensors, rather than as the pickle that is
                all that sentence-transformers 2.7 reads.
        """
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
        settings = read_json(path) if path.exists() else {}
        config = cls.config_class.from_dict(settings, str(path))
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

    def extra_repr(self) -> str:
        """The settings, inside the parentheses of ``repr``."""
        return ", ".join(f"{key}={value!r}" for key, value in self.get_config_dict().items())
