"""A checkpoint whose model and tokenizer are loaded by transformers when somebody looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sentence_embedder.deferred import Deferred, Pending
from sentence_embedder.loading import loads_alone
from sentence_embedder.models.checkpoint import PLACE_ARGUMENTS, check_settings, load_model, load_tokenizer
from sentence_embedder.models.stand_in import Settings, StandInModel, StandInTokenizer, read_stand_in


@dataclass(frozen=True)
class DeferredTokenizer:
    """A tokenizer that is not loaded yet.

    Args:
        settings: What it is made of.
        stand_in: What can be seen of it.
        arguments: Keyword arguments for ``AutoTokenizer.from_pretrained``.
    """

    settings: Settings
    stand_in: StandInTokenizer
    arguments: Mapping[str, Any]

    def load(self) -> Any:
        """The tokenizer."""
        with self.settings.in_folder() as folder:
            tokenizer = load_tokenizer(str(folder), None, self.arguments)
        tokenizer.name_or_path = tokenizer.init_kwargs["name_or_path"] = str(self.settings.folder)
        return tokenizer


@loads_alone
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
    check_settings(Path(name))
    is_plain = tokenizer_name in (None, name) and PLACE_ARGUMENTS.issuperset(
        [*model_args, *config_args, *tokenizer_args]
    )
    stand_in = read_stand_in(Path(name)) if is_plain else None
    if stand_in is None:
        model = load_model(name, cache_dir, model_args, config_args)
        return model, load_tokenizer(tokenizer_name or name, cache_dir, tokenizer_args)

    load = partial(_load_model, stand_in.settings, _kept(model_args), _kept(config_args))
    tokenizer = DeferredTokenizer(stand_in.settings, stand_in.tokenizer, _kept(tokenizer_args))
    return Deferred(Pending(stand_in.model, load)), tokenizer


def _kept(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Of arguments that say where a checkpoint is taken from, those that matter when it is here: no token, say."""
    return {name: value for name, value in arguments.items() if name in ("trust_remote_code", "local_files_only")}


def _load_model(
    settings: Settings, model_args: Mapping[str, Any], config_args: Mapping[str, Any], stand_in: StandInModel
) -> Any:
    weights = stand_in.state_dict()
    device = next(iter(weights.values())).device
    on_cpu = {name: weight.cpu() for name, weight in weights.items()}
    with settings.in_folder() as folder:
        model = load_model(str(folder), None, model_args, config_args, on_cpu)
    model.name_or_path = model.config.name_or_path = str(settings.folder)
    return model.to(device)
