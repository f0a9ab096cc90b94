"""A checkpoint of Hugging Face transformers: model and tokenizer, loaded and saved quietly."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError

from sentence_embedder.files import (
    PICKLED_WEIGHTS_NAME,
    WeightsError,
    give_usual_mode,
    read_json,
    remove_weights,
    write_json,
    write_weights,
)
from sentence_embedder.formats import AdapterConfig
from sentence_embedder.loading import loads_undisturbed, one_at_a_time
from sentence_embedder.models.checkpoint_settings import (
    ADAPTER_CONFIG_NAME,
    check_settings,
    check_sizes,
    make_inert,
)

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
        check_sizes(config.to_dict(), f"{name}: config.json")
        if not model_args.get("trust_remote_code"):
            make_inert(config)
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
        check_sizes(config.to_dict(), f"{name}: config.json")
        make_inert(config)
        config.is_decoder = config.add_cross_attention = True
        known: Any = transformers.MODEL_FOR_CAUSAL_LM_MAPPING
        decoder_class: Any = known.get(type(config), None)
        if decoder_class is None or "encoder_hidden_states" not in signature(decoder_class.forward).parameters:
            raise ValueError(
                f"{name}: expected an architecture with a decoder that attends to an encoder, such as bert or "
                f"roberta, found {config.model_type}"
            )
        return decoder_class.from_pretrained(name, config=config, dtype=dtype).eval()


def _with_config(name: str) -> str:
    """The checkpoint with the configuration: itself, or for an adapter alone that which it adapts."""
    adapter = Path(name) / ADAPTER_CONFIG_NAME
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
