"""A checkpoint of Hugging Face transformers: model and tokenizer, loaded and saved quietly."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from sentence_embedder.files import (
    PICKLED_WEIGHTS_NAME,
    SAFE_WEIGHTS_NAME,
    WeightsError,
    check_inside,
    give_usual_mode,
    read_json,
    remove_weights,
    write_json,
    write_weights,
)
from sentence_embedder.forks import ProcessLock
from sentence_embedder.formats import AdapterConfig, CheckpointConfig, WeightsIndex
from sentence_embedder.loading import loads_undisturbed, one_at_a_time
from sentence_embedder.models.stand_ins.tokenizer import StandInTokenizer
from sentence_embedder.record import FormatError, Record

logger = logging.getLogger(__name__)

_ENCODERS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "t5gemma": "T5GemmaEncoderModel",
    "udop": "UdopEncoderModel",
}
"""Kind of encoder-decoder → the class that is its encoder alone."""

_HARMLESS_MISSING = re.compile(r"(^|\.)pooler\.")
"""Weights that nothing here reads: checkpoints of language models come without a pooler."""

_HARMLESS_UNEXPECTED = re.compile(
    r"(^|\.)(pooler|cls|lm_head|classifier|qa_outputs|score|decoder|predictions|discriminator_predictions"
    r"|generator_predictions|generator_lm_head|vocab_transform|vocab_layer_norm|vocab_projector|seq_relationship"
    r"|head|mlm|mask_predictions|lm_predictions|sop_classifier|pred_layer|lm_loss|classification_head)\."
    r"|(^|\.)(position_ids|token_type_ids|inv_freq|masked_bias|relative_position_index|final_logits_bias)$"
    r"|(^|\.)attn\.(attention\.)?bias$"
)
"""Weights of heads that make no embeddings, and numbers that a model computes by itself."""

PLACE_ARGUMENTS = frozenset({"token", "revision", "trust_remote_code", "local_files_only"})
"""Arguments that say from where, and with what right, a checkpoint is taken."""

_CHECKED_SETTINGS = (
    *("config.json", "tokenizer_config.json", "special_tokens_map.json", "adapter_config.json"),
    *("processor_config.json", "preprocessor_config.json"),
)
_AUDIO_TOKENIZER = "audio_tokenizer"
"""A key of a processor, and the beginning of a file's name: a second model, from wherever it says."""

_ADAPTER_CONFIG_NAME = "adapter_config.json"
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


@loads_undisturbed
def load_model(
    name: str,
    cache_dir: str | None,
    model_args: Mapping[str, Any],
    config_args: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Any:
    """The model of a checkpoint, in evaluation mode; computed in float32 unless the arguments have a ``dtype``.

    Args:
        name: A folder, or a name on the Hub.
        cache_dir: Folder for downloads.
        model_args: Keyword arguments for ``AutoModel.from_pretrained``.
        config_args: Keyword arguments for ``AutoConfig.from_pretrained``.
        weights: Name → tensor, if they have been read already.

    Raises:
        WeightsError: The checkpoint lacks weights that the embeddings depend on.
    """
    import transformers

    # Repositories are given with the weights' arguments; the configuration comes from the same place.
    place = {key: model_args[key] for key in PLACE_ARGUMENTS if key in model_args}
    dtype = {} if {"dtype", "torch_dtype"} & model_args.keys() else {"dtype": torch.float32}
    check_settings(Path(name))
    config_name = _with_config(name)
    with _quiet_transformers(), _as_weights_errors(name):
        auto_config: Any = transformers.AutoConfig
        config = auto_config.from_pretrained(config_name, **{"cache_dir": cache_dir, **place, **config_args})
        _check_sizes(config.to_dict(), f"{name}: config.json")
        if not model_args.get("trust_remote_code"):
            _make_inert(config)
        if config.model_type == "t5gemma":
            config.is_encoder_decoder = False  # or its encoder alone is refused
        model_class: Any = getattr(transformers, _ENCODERS.get(config.model_type, "AutoModel"))
        options = {"config": config, "cache_dir": cache_dir, **dtype, **model_args, "output_loading_info": True}
        if weights is not None:
            known: Any = transformers.MODEL_MAPPING
            model, loaded = known[type(config)].from_pretrained(None, state_dict=dict(weights), **options)
        else:
            model, loaded = model_class.from_pretrained(name, **options)
    missing = sorted(key for key in loaded["missing_keys"] if not _HARMLESS_MISSING.search(key))
    unexpected = sorted(key for key in loaded["unexpected_keys"] if not _HARMLESS_UNEXPECTED.search(key))
    if missing or unexpected:
        raise WeightsError(
            f"{name}: expected the weights of a {type(model).__name__}, found none for {missing} and some that "
            f"it does not have: {unexpected}"[:2000]
        )
    return model.eval()


@loads_undisturbed
def load_decoder(name: str, dtype: torch.dtype) -> Any:
    """The language model of a checkpoint, as a decoder that attends to what an encoder gives; in evaluation mode.

    Weights that the checkpoint lacks are made up at random: as a rule those of this attention, and the head.

    Args:
        name: A folder, or a name on the Hub.
        dtype: In which format it is computed.

    Raises:
        ValueError: There is no such decoder of its architecture.
    """
    import transformers

    check_settings(Path(name))
    with _quiet_transformers(), _as_weights_errors(name):
        auto_config: Any = transformers.AutoConfig
        config = auto_config.from_pretrained(name)
        _check_sizes(config.to_dict(), f"{name}: config.json")
        _make_inert(config)
        config.is_decoder = config.add_cross_attention = True
        known: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        decoder_class: Any = known.get(type(config), None)
        if decoder_class is None or "encoder_hidden_states" not in signature(decoder_class.forward).parameters:
            raise ValueError(
                f"{name}: expected an architecture with a decoder that attends to an encoder, such as bert or "
                f"roberta, found {config.model_type}"
            )
        return decoder_class.from_pretrained(name, config=config, dtype=dtype).eval()


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
            _check_sizes(settings, str(folder / name))
        if _AUDIO_TOKENIZER in settings:
            raise FormatError(f"{folder / name}: {_AUDIO_TOKENIZER}", "no model from elsewhere", settings)
    if (folder / f"{_AUDIO_TOKENIZER}_config.json").exists():
        raise FormatError(str(folder / f"{_AUDIO_TOKENIZER}_config.json"), "no model from elsewhere", "one")
    for name in (name for name in _INDEX_NAMES if (folder / name).exists()):
        index = WeightsIndex.from_dict(read_json(folder / name), str(folder / name))
        for part in index.weight_map.values():
            check_inside(part, f"{folder / name}: weight_map")
    if (folder / _ADAPTER_CONFIG_NAME).exists() and find_spec("peft") is None:
        raise ImportError(f"{folder}: expected the package peft: pip install 'sentence-embedder[peft]'")


def _check_sizes(settings: Mapping[str, Any], where: str) -> None:
    """Raise a FormatError if a configuration, or one inside it, asks for more than there is."""
    CheckpointConfig.from_dict(settings, where)
    for name, part in settings.items():
        if isinstance(part, Mapping) and name.endswith(("config", "encoder", "decoder")):
            _check_sizes(part, f"{where}: {name}")


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


def _make_inert(config: Any) -> None:
    """Take out of a configuration what would make transformers fetch or run code."""
    if not _is_part_of_transformers(getattr(config, "_attn_implementation", None)):
        config._attn_implementation = None
    for name in ("auto_map", "_experts_implementation_internal"):
        if getattr(config, name, None) is not None:
            setattr(config, name, None if name.startswith("_") else {})
    for name in getattr(config, "sub_configs", ()):
        part = getattr(config, name, None)
        if part is not None:
            _make_inert(part)


def _with_config(name: str) -> str:
    """The checkpoint with the configuration: itself, or for an adapter alone that which it adapts."""
    adapter = Path(name) / _ADAPTER_CONFIG_NAME
    if not adapter.exists() or (Path(name) / "config.json").exists():
        return name
    adapted = AdapterConfig.from_dict(read_json(adapter), str(adapter)).base_model_name_or_path
    check_settings(Path(adapted))
    return adapted


@contextmanager
def _as_weights_errors(name: str) -> Iterator[None]:
    """What transformers, safetensors and torch raise about weights, with the name of the checkpoint."""
    try:
        yield
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"{name}: expected the weights of its config.json, found others: {error}"[:2000]
        ) from error
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(f"{name}: expected a config.json of transformers, found another: {error!r}") from error
    except ValueError as error:
        if name in str(error):
            raise
        raise ValueError(f"{name}: {error}") from error
    except (OSError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"{name}: could not be loaded: {error!r}") from error


@loads_undisturbed
def load_tokenizer(name: str, cache_dir: str | None, tokenizer_args: Mapping[str, Any]) -> Any:
    """The tokenizer of a checkpoint; arguments as for ``load_model``."""
    from transformers import AutoTokenizer

    check_settings(Path(name))
    try:
        with _quiet_transformers():
            return AutoTokenizer.from_pretrained(name, **{"cache_dir": cache_dir, **tokenizer_args})
    except (OSError, ImportError):
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"{name}: expected a tokenizer, found something else: {error}") from error


@loads_undisturbed
def load_processor(name: str, processor_args: Mapping[str, Any]) -> Any:
    """The tokenizer and image processor of a checkpoint.

    Raises:
        ImportError: Pillow is not installed.
    """
    from transformers import AutoProcessor

    if find_spec("PIL") is None:
        raise ImportError(f"{name}: expected the package pillow: pip install 'sentence-embedder[vision]'")
    check_settings(Path(name))
    auto_processor: Any = AutoProcessor
    with _quiet_transformers(), _as_weights_errors(name):
        return auto_processor.from_pretrained(name, **{"use_fast": False, **processor_args})


@contextmanager
def recording_layers(model: torch.nn.Module) -> Iterator[list[Sequence[torch.Tensor]]]:
    """Let a model of transformers give the hidden states of all its layers as long as this is open.

    Yields:
        A list that gets the hidden states of each forward pass: what goes into the first layer, and what comes out
        of each.
    """
    recorded: list[Sequence[torch.Tensor]] = []

    def ask(_: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "output_hidden_states": True}

    # When it is asked for the first time, transformers puts hooks at the layers, which it leaves there: with them a
    # model is neither pickled nor accelerated.
    before = {part: (set(part._forward_hooks), _HOOKED in vars(part)) for part in model.modules()}
    asking = model.register_forward_pre_hook(ask, with_kwargs=True)
    taking = model.register_forward_hook(lambda _, __, output: recorded.append(output.hidden_states))
    try:
        yield recorded
    finally:
        asking.remove()
        taking.remove()
        for part, (own, was_hooked) in before.items():
            for hook in part._forward_hooks.keys() - own:
                del part._forward_hooks[hook]
            if not was_hooked:
                vars(part).pop(_HOOKED, None)


_HOOKED = "_output_capturing_hooks_installed"
"""What transformers calls the mark of a model at whose layers it has put hooks."""


def has_plain_backend(tokenizer: Any) -> bool:
    """Whether a tokenizer does nothing with a text but ask the ``tokenizers`` library."""
    if isinstance(tokenizer, StandInTokenizer):
        return True
    from transformers import PreTrainedTokenizerFast

    names = ("__call__", "_encode_plus")
    return isinstance(tokenizer, PreTrainedTokenizerFast) and all(
        getattr(type(tokenizer), name) is getattr(PreTrainedTokenizerFast, name) and name not in vars(tokenizer)
        for name in names
    )


_calling = ProcessLock()


def one_call_at_a_time() -> AbstractContextManager[Any]:
    """Within this context no other thread calls a tokenizer: a call sets its truncation and padding anew."""
    return _calling.here()


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


@loads_undisturbed
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
        # Of an adapted model only the adapter is written, which is always safetensors.
        if safe_serialization or getattr(model, "_hf_peft_config_loaded", False):
            model.save_pretrained(folder)
            for path in folder.glob("*.safetensors"):
                give_usual_mode(path)
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
    with one_at_a_time():
        # Its level stays: Ctrl-C in the middle of changing a level leaves logging's lock with the thread for ever.
        its_logger, has_bars = log.get_logger("transformers"), log.is_progress_bar_enabled()
        handlers, propagate = its_logger.handlers, its_logger.propagate
        try:
            its_logger.handlers, its_logger.propagate = [_ErrorsAlone(its_logger)], False
            log.disable_progress_bar()
            yield
        finally:
            its_logger.handlers, its_logger.propagate = handlers, propagate
            if has_bars:
                log.enable_progress_bar()


class _ErrorsAlone(logging.Handler):
    """Hands on what is an error, to whom the logger hands everything.

    Args:
        given: The logger, as it is now.
    """

    def __init__(self, given: logging.Logger) -> None:
        super().__init__(logging.ERROR)
        self._as_given = logging.Logger(given.name)
        self._as_given.handlers, self._as_given.propagate = given.handlers, given.propagate
        self._as_given.parent = given.parent

    def emit(self, record: logging.LogRecord) -> None:
        self._as_given.callHandlers(record)


def _make_tokenizer_portable(folder: Path) -> None:
    settings_path, tokenizer_path = folder / "tokenizer_config.json", folder / "tokenizer.json"
    settings = read_json(settings_path)
    portable = {**settings}
    if settings.get("tokenizer_class") == "TokenizersBackend":  # the name of transformers 5
        portable["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):  # likewise
        portable["additional_special_tokens"] = portable.pop("extra_special_tokens")
    if portable != settings:
        write_json(settings_path, portable)
    if not tokenizer_path.exists():
        return
    tokenizer = read_json(tokenizer_path)
    merges = tokenizer["model"].get("merges") or []
    # tokenizers before 0.20 read a merge as "a b", not as ["a", "b"]; a part with a space only fits the latter.
    if all(isinstance(merge, list) and not any(" " in part for part in merge) for merge in merges) and merges:
        tokenizer["model"]["merges"] = [" ".join(merge) for merge in merges]
        write_json(tokenizer_path, tokenizer)
