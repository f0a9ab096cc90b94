"""A checkpoint whose model and tokenizer are loaded by transformers when somebody looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sentence_embedder.deferred import Deferred, Pending
from sentence_embedder.loading import loads_undisturbed, undisturbed
from sentence_embedder.models.checkpoint import PLACE_ARGUMENTS, load_model, load_tokenizer
from sentence_embedder.models.checkpoint_settings import check_settings
from sentence_embedder.models.stand_ins.model import StandInModel
from sentence_embedder.models.stand_ins.stand_in import read_stand_in, settings_in
from sentence_embedder.models.stand_ins.tokenizer import StandInTokenizer


@dataclass(frozen=True)
class Settings:
    """The settings of a checkpoint as they were when they were read.

    Args:
        name: The folder, as the caller spelt it.
        files: Name → content.
    """

    name: str
    files: Mapping[str, bytes]

    @contextmanager
    def in_folder(self) -> Iterator[str]:
        """A folder with them: their own, as long as nobody has changed it."""
        if settings_in(Path(self.name)) == self.files:
            yield self.name
            return
        with TemporaryDirectory(prefix="settings-") as temporary:
            for name, content in self.files.items():
                (Path(temporary) / name).write_bytes(content)
            yield temporary


class DeferredTokenizer:
    """A tokenizer that is loaded when somebody asks for it.

    Args:
        settings: What it is made of.
        stand_in: What can be seen of it until then.
        arguments: Keyword arguments for ``AutoTokenizer.from_pretrained``.
    """

    def __init__(self, settings: Settings, stand_in: StandInTokenizer, arguments: Mapping[str, Any]) -> None:
        self._settings = settings
        self._stand_in = stand_in
        self._arguments = arguments
        self._loaded: Any = None

    @property
    def seen(self) -> Any:
        """The tokenizer, if it is loaded, or else its stand-in."""
        return self._stand_in if self._loaded is None else self._loaded

    def loaded(self) -> Any:
        """The tokenizer."""
        if self._loaded is None:
            undisturbed(self._load)
        return self._loaded

    def _load(self) -> None:
        if self._loaded is not None:  # by another thread, meanwhile
            return
        try:
            with self._settings.in_folder() as folder:
                tokenizer = load_tokenizer(folder, None, self._arguments)
        except AttributeError as error:  # which nn.Module would take for an attribute that is not there
            raise RuntimeError(f"{self._settings.name}: the tokenizer could not be loaded: {error}") from error
        tokenizer.name_or_path = tokenizer.init_kwargs["name_or_path"] = self._settings.name
        self._loaded = tokenizer


@loads_undisturbed
def load_checkpoint(
    name: str,
    cache_dir: str | None,
    *,
    model_args: Mapping[str, Any],
    config_args: Mapping[str, Any],
    tokenizer_args: Mapping[str, Any],
    tokenizer_name: str | None = None,
) -> tuple[Any, Any]:
    """Model and tokenizer of a checkpoint, both deferred if there can be a stand-in for them.

    Args:
        name: A folder, or a name on the Hub.
        cache_dir: Folder for downloads.
        model_args: Keyword arguments for ``AutoModel.from_pretrained``.
        config_args: Keyword arguments for ``AutoConfig.from_pretrained``.
        tokenizer_args: Keyword arguments for ``AutoTokenizer.from_pretrained``.
        tokenizer_name: The tokenizer, if it is elsewhere.

    Raises:
        WeightsError: The checkpoint lacks weights that the embeddings depend on.
    """
    arguments = [*model_args, *config_args, *tokenizer_args]
    is_plain = tokenizer_name in (None, name) and PLACE_ARGUMENTS.issuperset(arguments)
    stand_in = read_stand_in(Path(name)) if is_plain else None
    if stand_in is None:
        model = load_model(name, cache_dir, model_args, config_args)
        return model, load_tokenizer(tokenizer_name or name, cache_dir, tokenizer_args)
    check_settings(Path(name))
    settings = Settings(name, stand_in.settings)
    load = partial(_load_model, settings, _kept(model_args), _kept(config_args))
    return (
        Deferred(Pending(stand_in.model, load)),
        DeferredTokenizer(settings, stand_in.tokenizer, _kept(tokenizer_args)),
    )


def _kept(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Of arguments that say where a checkpoint is taken from, those that matter when it is here: no token, say."""
    return {name: value for name, value in arguments.items() if name in ("trust_remote_code", "local_files_only")}


def _load_model(
    settings: Settings, model_args: Mapping[str, Any], config_args: Mapping[str, Any], stand_in: StandInModel
) -> Any:
    weights = stand_in.state_dict()
    device = next(iter(weights.values())).device
    # Copied or unpickled in inference mode, weights are marked by it.
    on_cpu = {name: weight.clone() if weight.is_inference() else weight.cpu() for name, weight in weights.items()}
    with settings.in_folder() as folder:
        model = load_model(folder, None, model_args, config_args, on_cpu)
    model.name_or_path = model.config.name_or_path = settings.name
    return model.to(device)
