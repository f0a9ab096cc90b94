"""The public surface: names, signatures and the order of arguments that users rely on."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import sentence_embedder
from sentence_embedder import SentenceTransformer, datasets, models, util

DOCUMENTED: dict[str, list[str]] = {
    "__init__": [
        *("model_name_or_path", "modules", "device", "prompts", "default_prompt_name", "cache_folder"),
        *("trust_remote_code", "revision", "token", "use_auth_token", "truncate_dim"),
    ],
    "encode": [
        *("sentences", "prompt_name", "prompt", "batch_size", "show_progress_bar", "output_value", "precision"),
        *("convert_to_numpy", "convert_to_tensor", "device", "normalize_embeddings"),
    ],
    "encode_multi_process": [
        *("sentences", "pool", "prompt_name", "prompt", "batch_size", "chunk_size", "normalize_embeddings"),
    ],
    "evaluate": ["evaluator", "output_path"],
    "get_max_seq_length": [],
    "get_sentence_embedding_dimension": [],
    "push_to_hub": [
        *("repo_id", "token", "private", "safe_serialization", "commit_message", "local_model_path", "exist_ok"),
        *("replace_model_card", "train_datasets"),
    ],
    "save": ["path", "model_name", "create_model_card", "train_datasets", "safe_serialization"],
    "set_pooling_include_prompt": ["include_prompt"],
    "smart_batching_collate": ["batch"],
    "start_multi_process_pool": ["target_devices"],
    "tokenize": ["texts"],
    "truncate_sentence_embeddings": ["truncate_dim"],
}
"""Method → its arguments by position, as sentence-transformers 2.7 documents them."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "encode": {
        "prompt_name": None,
        "prompt": None,
        "batch_size": 32,
        "show_progress_bar": None,
        "output_value": "sentence_embedding",
        "precision": "float32",
        "convert_to_numpy": True,
        "convert_to_tensor": False,
        "device": None,
        "normalize_embeddings": False,
    },
    "push_to_hub": {
        "token": None,
        "private": None,
        "safe_serialization": True,
        "commit_message": "Add new SentenceTransformer model.",
        "local_model_path": None,
        "exist_ok": False,
        "replace_model_card": False,
        "train_datasets": None,
    },
    "save": {"model_name": None, "create_model_card": True, "train_datasets": None, "safe_serialization": True},
}

NEWER: dict[str, set[str]] = {
    "__init__": {
        *("similarity_fn_name", "local_files_only", "model_kwargs", "tokenizer_kwargs", "config_kwargs"),
        *("processor_kwargs", "backend", "acceleration", "dtype", "refresh", "model_card_data"),
    },
    "encode": {"truncate_dim", "pool", "chunk_size", "out", "truncation", "on_nonfinite", "deterministic"},
    "encode_chunks": {"convert_to_tensor", "normalize_embeddings", "truncate_dim"},
    "push_to_hub": {"revision", "create_pr", "use_auth_token"},
    "save": {"replace_model_card"},
    "encode_iter": {
        *("chunk_size", "precision", "convert_to_tensor", "device", "normalize_embeddings", "truncate_dim"),
        *("truncation", "on_nonfinite", "deterministic"),
    },
}
"""Method → its keyword-only arguments."""


def _parameters(method: str) -> list[inspect.Parameter]:
    return list(inspect.signature(getattr(SentenceTransformer, method)).parameters.values())[1:]


@pytest.mark.parametrize("method", DOCUMENTED)
def test_arguments_stand_in_the_documented_order(method: str) -> None:
    """Positional arguments are those that 2.7 documents, in that order."""
    positional = [p.name for p in _parameters(method) if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]

    assert positional == DOCUMENTED[method]


@pytest.mark.parametrize("method", DEFAULTS)
def test_defaults_are_the_documented_ones(method: str) -> None:
    """So are their defaults."""
    defaults = {p.name: p.default for p in _parameters(method) if p.name in DEFAULTS[method]}

    assert defaults == DEFAULTS[method]


@pytest.mark.parametrize("method", NEWER)
def test_what_is_newer_is_keyword_only(method: str) -> None:
    """Arguments that 2.7 does not have come by name."""
    keyword_only = {p.name for p in _parameters(method) if p.kind is inspect.Parameter.KEYWORD_ONLY}

    assert keyword_only == NEWER[method]


@pytest.mark.parametrize("name", ["device", "max_seq_length", "tokenizer", "similarity_fn_name", "_target_device"])
def test_properties(name: str) -> None:
    """What was a property is one."""
    assert isinstance(getattr(SentenceTransformer, name), property)


@pytest.mark.parametrize(
    "name",
    [
        *("encode_query", "encode_document", "similarity", "similarity_pairwise", "save_pretrained"),
        *(
            "get_embedding_dimension",
            "load",
            "get_backend",
            "encode_iter",
            "_first_module",
            "_last_module",
            "_text_length",
        ),
    ],
)
def test_newer_and_private_methods_that_others_call(name: str) -> None:
    """Methods that later versions document, and private ones that other libraries call, are there."""
    assert callable(getattr(SentenceTransformer, name))


def test_the_module_of_the_class_is_recognised() -> None:
    """KeyBERT and BERTopic know a model by these words in the name of its class."""
    assert "sentence_transformers" in str(SentenceTransformer)


@pytest.mark.parametrize(
    "module", [sentence_embedder, datasets, models, util], ids=lambda module: str(module.__name__)
)
def test_all_names_exist(module: Any) -> None:
    """What a module says it exports is there: constants, classes and functions, each in alphabetical order."""
    assert all(hasattr(module, name) for name in module.__all__)
    assert [*module.__all__] == sorted(
        module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )


def test_submodules_come_with_the_package() -> None:
    """``sentence_embedder.util`` and the like need no import of their own."""
    program = "import sentence_embedder as s; print(s.util.cos_sim([1.0], [1.0]).item(), s.models.Pooling(3))"

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed == "1.0 Pooling(3, 'mean', include_prompt=True)\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A name that does not exist is the usual error."""
    with pytest.raises(AttributeError, match="no attribute 'SentenceTransfomer'"):
        _ = sentence_embedder.SentenceTransfomer
