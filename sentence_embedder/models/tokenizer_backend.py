"""The ``tokenizers.Tokenizer`` that a tokenizer of transformers asks, or that a file holds."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sentence_embedder.files import read_json
from sentence_embedder.forks import ProcessLock
from sentence_embedder.models.stand_ins.tokenizer import StandInTokenizer


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
