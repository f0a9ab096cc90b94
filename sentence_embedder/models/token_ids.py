"""Texts → token ids, by a tokenizer of Hugging Face transformers whose state is left alone."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sentence_embedder.features import TokenizedTexts
from sentence_embedder.models.stand_ins.tokenizer import StandInTokenizer
from sentence_embedder.models.tokenizer_backend import has_plain_backend, one_call_at_a_time
from sentence_embedder.transient import Transient

_NO_LIMIT = 2**62
"""Tokenizers without a limit of their own report one above this, which no text reaches."""

UNLIMITED = _NO_LIMIT + 1
"""A limit that is none."""

_SURROGATES = re.compile("[\\ud800-\\udfff]")

_SHORT = 256
"""So many characters take less time to tokenise than a thread takes to wake."""

_CHARACTERS_A_TOKEN = 32
_SHORTEST_CUT = 4096
"""Longer texts are looked at only up to 32 characters for each token that is kept, if that is enough."""

Columns = Mapping[str, Sequence[Sequence[int]]]
"""Name of a feature → for each text its numbers."""


def encodable(text: str) -> str:
    """The text, with U+FFFD for each half of a surrogate pair, which no tokenizer takes: damaged text has them."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


@dataclass(frozen=True)
class Tokenized:
    """Texts as token ids.

    Args:
        columns: Their numbers.
        cut: Which of them had more tokens than are kept.
    """

    columns: Columns
    cut: Sequence[int]


class TokenIds:
    """Turns texts into token ids, cut to a limit, not padded.

    A tokenizer of the ``tokenizers`` library keeps its truncation and padding as state, which every call of
    transformers sets anew. Here a copy is made, set once, and used by any number of threads. It is made again
    when the tokenizer it was copied from has changed. Others are called as they are, by one thread at a time.
    """

    def __init__(self) -> None:
        self._copies: Transient[_Copy] = Transient()

    def tokenized(
        self, tokenizer: Any, limit: int | None, firsts: Sequence[str], seconds: Sequence[str] | None
    ) -> Tokenized:
        """The token ids of texts, or of pairs of texts.

        Args:
            tokenizer: A tokenizer of transformers.
            limit: How many tokens of a text are kept, special tokens included; None for its own limit.
            firsts: The texts.
            seconds: For each the text that follows it, if there are such.
        """
        limit = limit_of(tokenizer, limit)
        backend = self._backend(tokenizer, limit)
        if backend is None:
            columns = _called(tokenizer, limit, firsts, seconds)
            return Tokenized(columns, _cut_when_called(tokenizer, limit, firsts, seconds, columns))
        if seconds is not None:
            encodings = backend.encode_batch_fast(list(zip(firsts, seconds, strict=True)))
        elif limit is None:
            encodings = _encoded_whole(backend, firsts)
        else:
            encodings = _encoded(backend, limit, firsts)
        columns = {"input_ids": [encoding.ids for encoding in encodings]}
        if "token_type_ids" in tokenizer.model_input_names:
            columns["token_type_ids"] = [encoding.type_ids for encoding in encodings]
        are_shortened = seconds is None and limit is not None and tokenizer.truncation_side == "right"
        return Tokenized(columns, _cut_rows(encodings, limit, firsts if are_shortened else ()))

    def special_tokens(self, tokenizer: Any, limit: int | None, text: str) -> Sequence[int]:
        """For each token of a text whether the tokenizer added it, 1 or 0."""
        limit = limit_of(tokenizer, limit)
        backend = self._backend(tokenizer, limit)
        if backend is not None:
            mask: list[int] = backend.encode(text).special_tokens_mask
        else:
            with one_call_at_a_time():
                encoded = tokenizer(text, **_truncation(limit), return_special_tokens_mask=True)
            mask = encoded["special_tokens_mask"]
        return mask

    def offsets(self, tokenizer: Any, limit: int | None, text: str) -> Sequence[tuple[int, int]]:
        """Where each token of a text begins and ends in it, in characters; an empty place for one that was added.

        Raises:
            ValueError: The tokenizer does not know.
        """
        limit = limit_of(tokenizer, limit)
        backend = self._backend(tokenizer, limit)
        if backend is not None:
            offsets: Sequence[tuple[int, int]] = backend.encode(text).offsets
            return offsets
        try:
            with one_call_at_a_time():
                encoded = tokenizer(text, **_truncation(limit), return_offsets_mapping=True)
        except NotImplementedError as error:
            name = type(tokenizer).__name__
            raise ValueError(f"offsets of tokens: expected a fast tokenizer, found a {name}") from error
        found: Sequence[tuple[int, int]] = encoded["offset_mapping"]
        return found

    def _backend(self, tokenizer: Any, limit: int | None) -> Any | None:
        """The copy of what the tokenizer wraps, with this limit; None if there is more to it, or none is kept."""
        if not has_plain_backend(tokenizer):
            return None
        backend = tokenizer.backend_tokenizer
        # A stand-in nobody changes, and a lone text waits for what is told here of others.
        content = () if isinstance(tokenizer, StandInTokenizer) else _content_of(backend)
        if content is None:
            return None
        state = (
            content,
            limit,
            tokenizer.truncation_side,
            getattr(tokenizer, "split_special_tokens", False),
        )
        return self._copies.get(
            make=lambda: _Copy.of(backend, state),
            holds=lambda copied: copied.original is backend and copied.state == state,
        ).backend


_State = tuple[tuple[Any, ...], int | None, str, bool]
"""What a copy depends on: the content, the limit, the side on which is cut, whether special tokens are split."""


@dataclass(frozen=True)
class _Copy:
    """A copy of a tokenizer of the ``tokenizers`` library, and what it depends on; it shares the model, which is
    large.
    """

    backend: Any
    original: Any
    state: _State

    @staticmethod
    def of(original: Any, state: _State) -> _Copy:
        _, limit, side, split_special_tokens = state
        backend = _twin(original)
        backend.encode_special_tokens = split_special_tokens
        if limit is not None:
            backend.enable_truncation(limit, strategy="longest_first", direction=side)
        return _Copy(backend, original, state)


def _content_of(backend: Any) -> tuple[Any, ...] | None:
    """What somebody may have changed in a tokenizer; None if one of its steps is written in Python, and so cannot
    be told from others.
    """
    steps = (backend.normalizer, backend.pre_tokenizer, backend.post_processor)
    try:
        return backend.get_vocab_size(with_added_tokens=True), repr(steps), backend.get_added_tokens_decoder()
    except Exception:  # noqa: BLE001  # tokenizers raises nothing narrower
        return None


def _twin(original: Any) -> Any:
    """A tokenizer that does the same, without limit and padding: its model is that of the original, which would
    take long to copy.
    """
    twin, added = type(original)(original.model), original.get_added_tokens_decoder()
    for step in ("normalizer", "pre_tokenizer", "post_processor"):
        setattr(twin, step, getattr(original, step))
    twin.add_tokens([added[idx] for idx in sorted(added)])
    if twin.get_added_tokens_decoder() == added:
        return twin
    twin = copy.deepcopy(original)  # with ids that only a file can give to tokens
    twin.no_padding()
    twin.no_truncation()
    return twin


def texts_of(
    tokenizer: Any,
    columns: Mapping[str, NDArray[np.int32]],
    lengths: Sequence[int],
    cut: Sequence[int],
    text_keys: Sequence[str | None] | None = None,
) -> TokenizedTexts:
    """Texts of which a tokenizer has made token ids, to be padded as by it; arguments as for ``TokenizedTexts``."""
    return TokenizedTexts(
        columns=columns,
        lengths=np.array(lengths, dtype=np.int64),
        pad_values={
            **dict.fromkeys(columns, 0),
            "input_ids": tokenizer.pad_token_id or 0,
            "token_type_ids": getattr(tokenizer, "pad_token_type_id", 0),
        },
        padding_side=tokenizer.padding_side,
        text_keys=text_keys,
        cut=np.array(cut, dtype=np.int64),
    )


def limit_of(tokenizer: Any, limit: int | None) -> int | None:
    """How many tokens of a text are kept, where None means the tokenizer's own limit; None if it has none."""
    limit = tokenizer.model_max_length if limit is None else limit
    return None if limit is None or limit > _NO_LIMIT else limit


def _truncation(limit: int | None) -> dict[str, Any]:
    return {"truncation": False} if limit is None else {"truncation": "longest_first", "max_length": limit}


def _called(tokenizer: Any, limit: int | None, firsts: Sequence[str], seconds: Sequence[str] | None) -> Columns:
    """What a tokenizer answers that is called the usual way; of no texts, which many do not take, nothing."""
    if not firsts:
        return {"input_ids": []}
    with one_call_at_a_time():
        encoded: Columns = tokenizer(
            list(firsts),
            None if seconds is None else list(seconds),
            padding=False,
            **_truncation(limit),
            return_attention_mask=False,
        )
    return encoded


def _cut_rows(encodings: Sequence[Any], limit: int | None, texts: Sequence[str]) -> list[int]:
    """Which texts had more tokens than are kept: some lie over, or the end of the text was not looked at.

    Args:
        encodings: What the tokenizer made of them.
        limit: How many tokens are kept.
        texts: Those texts that were looked at up to ``_beginning`` only; none if all were looked at whole.
    """
    full = [row for row, encoding in enumerate(encodings) if limit is not None and len(encoding) == limit]

    def is_shortened(text: str) -> bool:
        return limit is not None and bool(text[len(_beginning(text, limit)) :].strip())

    return [row for row in full if encodings[row].overflowing or (texts and is_shortened(texts[row]))]


def _cut_when_called(
    tokenizer: Any, limit: int | None, firsts: Sequence[str], seconds: Sequence[str] | None, columns: Columns
) -> list[int]:
    """Which texts a tokenizer has cut that is called the usual way: those that fill the limit are counted again."""
    full = [row for row, ids in enumerate(columns["input_ids"]) if len(ids) == limit]
    if not full:
        return []
    pairs = None if seconds is None else [seconds[row] for row in full]
    whole = _called(tokenizer, None, [firsts[row] for row in full], pairs)["input_ids"]
    return [row for row, ids in zip(full, whole, strict=True) if limit is not None and len(ids) > limit]


def _encoded_whole(backend: Any, texts: Sequence[str]) -> list[Any]:
    """The encodings of texts. A short one alone is not left to the tokenizer's threads; Python's wait meanwhile."""
    if len(texts) == 1 and len(texts[0]) <= _SHORT:
        return [backend.encode(texts[0])]
    return list(backend.encode_batch_fast(list(texts)))


def _encoded(backend: Any, limit: int, texts: Sequence[str]) -> list[Any]:
    """The encodings of texts of any length, without reading much more of them than is kept."""
    if backend.truncation["direction"] != "right":
        return _encoded_whole(backend, texts)
    beginnings = [_beginning(text, limit) for text in texts]
    encodings = _encoded_whole(backend, beginnings)
    # Words do not change with what follows them: a beginning that fills the limit settles the matter.
    for row, (text, beginning) in enumerate(zip(texts, beginnings, strict=True)):
        if len(beginning) < len(text) and len(encodings[row].ids) < limit:
            encodings[row] = backend.encode(text)
    return encodings


def _beginning(text: str, limit: int) -> str:
    """A text up to a space behind which nothing is likely to be kept; all of it if it is short or has none."""
    end = max(limit * _CHARACTERS_A_TOKEN, _SHORTEST_CUT)
    if len(text) <= end:
        return text
    space = text.rfind(" ", 0, end)
    return text[:space] if space > 0 else text
