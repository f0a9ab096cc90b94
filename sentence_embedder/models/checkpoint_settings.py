"""What the settings in a checkpoint's files may say: a stranger's do no harm."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sentence_embedder.files import PICKLED_WEIGHTS_NAME, SAFE_WEIGHTS_NAME, check_inside, read_json
from sentence_embedder.formats import CheckpointConfig, WeightsIndex
from sentence_embedder.record import FormatError, Record

logger = logging.getLogger(__name__)

ADAPTER_CONFIG_NAME = "adapter_config.json"
"""What the settings of an adapter are called, in its folder."""

_CHECKED_SETTINGS = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "adapter_config.json"),
    *("processor_config.json", "preprocessor_config.json"),
)
_AUDIO_TOKENIZER = "audio_tokenizer"
"""A key of a processor, and the beginning of a file's name: a second model, from wherever it says."""

_INDEX_NAMES = (f"{SAFE_WEIGHTS_NAME}.index.json", f"{PICKLED_WEIGHTS_NAME}.index.json")

_FROM_CALLER_ALONE = frozenset(
    [
        *("trust_remote_code", "code_revision", "auto_map", "custom_generate"),
        *("use_kernels", "kernel_config", "allow_all_kernels", "experts_implementation", "fusion_config"),
        *("_attn_implementation_internal", "_experts_implementation_internal"),
        *("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token"),
        *("use_auth_token", "gguf_file", "variant", "config", "state_dict", "generation_config"),
        *("adapter_kwargs", "adapter_name", "weights_only", "use_safetensors", "ignore_mismatched_sizes"),
        *("device_map", "max_memory", "offload_folder", "offload_buffers", "offload_state_dict"),
        *("distributed_config", "device_mesh", "tp_plan", "tp_size", "key_mapping", "output_loading_info"),
        *("tokenizer_file", "vocab_file", "merges_file", "added_tokens_file", "special_tokens_map_file"),
        *("tokenizer_type", "_from_auto", "_from_pipeline", "_commit_hash", "_configuration_file", "tqdm_class"),
    ]
)
"""Arguments of transformers that decide what is fetched, run or written: never what a model's own files say."""

_ATTENTIONS = (None, "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Ways to compute attention that are part of transformers; any other name is that of code to fetch."""


def check_settings(folder: Path) -> None:
    """Check the files of a checkpoint that transformers reads, as far as a hostile one could do harm.

    Args:
        folder: The checkpoint; nothing is checked if it is no folder.

    Raises:
        FormatError: A number is beyond reason, or a part of the weights outside the folder.
        ValueError: A file is not JSON.
        ImportError: It is an adapter, and peft is not installed.
    """
    for name in (name for name in _CHECKED_SETTINGS if (folder / name).exists()):
        settings = read_json(folder / name)
        Record.from_dict(settings, str(folder / name))
        if name == "config.json":
            check_sizes(settings, str(folder / name))
        if _AUDIO_TOKENIZER in settings:
            raise FormatError(f"{folder / name}: {_AUDIO_TOKENIZER}", "no model from elsewhere", settings)
    if (folder / f"{_AUDIO_TOKENIZER}_config.json").exists():
        raise FormatError(str(folder / f"{_AUDIO_TOKENIZER}_config.json"), "no model from elsewhere", "one")
    for name in (name for name in _INDEX_NAMES if (folder / name).exists()):
        index = WeightsIndex.from_dict(read_json(folder / name), str(folder / name))
        for part in index.weight_map.values():
            check_inside(part, f"{folder / name}: weight_map")
    if (folder / ADAPTER_CONFIG_NAME).exists() and find_spec("peft") is None:
        raise ImportError(f"{folder}: expected the package peft: pip install 'sentence-embedder[peft]'")


def check_sizes(settings: Mapping[str, Any], where: str) -> None:
    """Check the numbers of a configuration, and of those inside it.

    Args:
        settings: The configuration.
        where: Where it stands, for messages.

    Raises:
        FormatError: A number is beyond reason.
    """
    CheckpointConfig.from_dict(settings, where)
    for name, part in settings.items():
        if isinstance(part, Mapping) and name.endswith(("config", "encoder", "decoder")):
            check_sizes(part, f"{where}: {name}")


def inert(arguments: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Arguments for transformers that a model's own files give, without those that are the caller's alone.

    Args:
        arguments: Name → value.
        where: Where they stand, for messages.
    """
    dropped = sorted(arguments.keys() & _FROM_CALLER_ALONE)
    if not _is_part_of_transformers(arguments.get("attn_implementation")):
        dropped.append("attn_implementation")
    if dropped:
        logger.warning("%s: %s are ignored: such arguments are taken from the caller alone", where, dropped)
    return {name: value for name, value in arguments.items() if name not in dropped}


def _is_part_of_transformers(attention: object) -> bool:
    return attention in _ATTENTIONS if isinstance(attention, (str, type(None))) else False


def make_inert(config: Any) -> None:
    """Take out of a configuration what would make transformers fetch or run code."""
    if not _is_part_of_transformers(getattr(config, "_attn_implementation", None)):
        config._attn_implementation = None
    for name in ("auto_map", "_experts_implementation_internal"):
        if getattr(config, name, None) is not None:
            setattr(config, name, None if name.startswith("_") else {})
    for name in getattr(config, "sub_configs", ()):
        part = getattr(config, name, None)
        if part is not None:
            make_inert(part)
