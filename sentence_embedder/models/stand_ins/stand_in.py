"""StandIn: a checkpoint without transformers.

Only checkpoints are read of which every file is known, to the last key, to mean what is made of it here: those of
BERT, RoBERTa, XLM-RoBERTa, DistilBERT and MPNet with their usual tokenizers, and so most models of sentence
embeddings. What transformers refuses is not known.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sentence_embedder.files import SAFE_WEIGHTS_NAME, read_tensors
from sentence_embedder.models.stand_ins.architecture import Architecture
from sentence_embedder.models.stand_ins.bert import BERT
from sentence_embedder.models.stand_ins.distilbert import DISTILBERT
from sentence_embedder.models.stand_ins.known_tokenizer import model_type
from sentence_embedder.models.stand_ins.known_values import check, check_keys
from sentence_embedder.models.stand_ins.model import StandInConfig, StandInModel
from sentence_embedder.models.stand_ins.mpnet import MPNET
from sentence_embedder.models.stand_ins.roberta import ROBERTA, XLM_ROBERTA
from sentence_embedder.models.stand_ins.tokenizer import StandInTokenizer
from sentence_embedder.models.stand_ins.tokenizer_files import TokenizerFiles

logger = logging.getLogger(__name__)

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": BERT,
    "distilbert": DISTILBERT,
    "mpnet": MPNET,
    "roberta": ROBERTA,
    "xlm-roberta": XLM_ROBERTA,
}
"""``model_type`` in a configuration → what is known of such checkpoints."""

_CONFIG_NAME = "config.json"
_TOKENIZER_NAME = "tokenizer.json"
_TOKENIZER_CONFIG_NAME = "tokenizer_config.json"
_SPECIAL_TOKENS_NAME = "special_tokens_map.json"

_SETTINGS = (_CONFIG_NAME, _TOKENIZER_NAME, _TOKENIZER_CONFIG_NAME, _SPECIAL_TOKENS_NAME)
_UNKNOWN = (
    *("adapter_config.json", "added_tokens.json", "processor_config.json", "preprocessor_config.json"),
    *("chat_template.jinja", "chat_template.json", "additional_chat_templates", f"{SAFE_WEIGHTS_NAME}.index.json"),
)
"""What may lie beside them and make something else of a checkpoint."""

_LARGEST = 64 * 2**20
"""They are kept in memory: at most so many bytes."""

_COUNTED = frozenset({"embeddings.position_ids"})
"""What older versions saved of numbers that are counted."""


@dataclass(frozen=True)
class StandIn:
    """What stands in for a checkpoint.

    Args:
        model: Has the weights.
        tokenizer: Its tokenizer.
        settings: Name → content, of the files that make the checkpoint itself of the weights.
    """

    model: StandInModel
    tokenizer: StandInTokenizer
    settings: Mapping[str, bytes]


def read_stand_in(folder: Path) -> StandIn | None:
    """What stands in for the checkpoint in a folder; None if something about it is not known, or is broken.

    Args:
        folder: The folder, or what is none.
    """
    settings = settings_in(folder)
    if settings is None or not (folder / SAFE_WEIGHTS_NAME).is_file():
        return None
    try:
        parsed = {name: json.loads(content) for name, content in settings.items()}
        architecture = ARCHITECTURES[parsed[_CONFIG_NAME]["model_type"]]
        config = _config(architecture, parsed[_CONFIG_NAME])
        files = TokenizerFiles(
            config=parsed[_TOKENIZER_CONFIG_NAME],
            tokenizer=parsed[_TOKENIZER_NAME],
            special_tokens=parsed.get(_SPECIAL_TOKENS_NAME, {}),
            content=settings[_TOKENIZER_NAME].decode(),
        )
        kinds = {kind.model: kind for kind in architecture.tokenizers}
        tokenizer = kinds[model_type(files.tokenizer["model"])].read(files)
        return StandIn(_model(architecture, config, folder), tokenizer, settings)
    # A file is missing or broken, or holds something else; tokenizers raises nothing narrower than Exception.
    except Exception as error:  # noqa: BLE001
        logger.debug("%s: transformers is needed: %r", folder, error)
        return None


def settings_in(folder: Path) -> dict[str, bytes] | None:
    """Name → content, of the settings in a folder that are looked at; None if there are others, or none."""
    try:
        paths = [path for path in map(folder.joinpath, _SETTINGS) if path.exists()]
        is_known = not any((folder / name).exists() for name in _UNKNOWN)
        if not paths or not is_known or sum(path.stat().st_size for path in paths) > _LARGEST:
            return None
        return {path.name: path.read_bytes() for path in paths}
    except OSError:
        return None


def _config(architecture: Architecture, data: Mapping[str, Any]) -> StandInConfig:
    check_keys(data, architecture.settings, _CONFIG_NAME)
    kind = architecture.config_class
    keys = {field.name: architecture.names.get(field.name, field.name) for field in fields(kind)}
    config = kind(**{name: data[key] for name, key in keys.items() if key in data})
    check(config.hidden_size % config.num_attention_heads == 0, "hidden_size")
    check((config.pad_token_id or 0) < config.vocab_size, "pad_token_id")
    return config


def _model(architecture: Architecture, config: StandInConfig, folder: Path) -> StandInModel:
    with torch.device("meta"):
        model = architecture.model_class(config)
    weights = read_tensors(folder, model.architecture)
    kept = {name: tensor for name, tensor in weights.items() if name not in _COUNTED}
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check({name: tensor.shape for name, tensor in kept.items()} == expected, SAFE_WEIGHTS_NAME)
    check(all(map(torch.is_floating_point, kept.values())), SAFE_WEIGHTS_NAME)
    model.load_state_dict(_copied(kept), assign=True)
    return model.eval()


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float32, in memory of their own: what safetensors gives is the file itself, which may be written
    anew.
    """
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in weights.items()}
