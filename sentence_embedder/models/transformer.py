"""Transformer: from texts to one embedding a token, with a model and tokenizer of Hugging Face transformers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sentence_embedder.argument_names import also_named
from sentence_embedder.deferred import Deferred, Pending, loaded, pending_of, seen
from sentence_embedder.features import Features, TokenizedTexts
from sentence_embedder.files import check_inside, read_json, write_json
from sentence_embedder.formats import TRANSFORMER_CONFIG_NAMES, TransformerConfig
from sentence_embedder.models.checkpoint import save_model, save_tokenizer
from sentence_embedder.models.checkpoint_settings import inert
from sentence_embedder.models.deferred_checkpoint import DeferredTokenizer, load_checkpoint
from sentence_embedder.models.positions import Positions
from sentence_embedder.models.stand_ins.model import StandInModel
from sentence_embedder.models.token_ids import UNLIMITED, TokenIds, Tokenized, encodable, limit_of, texts_of
from sentence_embedder.record import FormatError
from sentence_embedder.whole_number import whole_or_none

if TYPE_CHECKING:
    from typing_extensions import Self

_TEXTS_AT_ONCE = 1024


class Transformer(nn.Module):
    """A transformer of any architecture that ``AutoModel`` loads, and its tokenizer.

    Args:
        model_name_or_path: A folder, or the name of a model on the Hugging Face Hub.
        max_seq_length: Longest input in tokens, special tokens included; what is longer is cut. By default
            the lower of the limits of model and tokenizer.
        model_args: Keyword arguments for ``AutoModel.from_pretrained``. Weights are computed in float32
            whatever they were saved in, unless this has a ``dtype``.
        cache_dir: Folder for downloads.
        tokenizer_args: Keyword arguments for ``AutoTokenizer.from_pretrained``.
        do_lower_case: Lower the text before it is tokenised.
        tokenizer_name_or_path: The tokenizer, if it is elsewhere.
        config_args: Keyword arguments for ``AutoConfig.from_pretrained``.

    Raises:
        WeightsError: The checkpoint lacks weights that the embeddings depend on.
    """

    @also_named(model_kwargs="model_args", config_kwargs="config_args", processor_kwargs="tokenizer_args")
    def __init__(
        self,
        model_name_or_path: str,
        max_seq_length: int | None = None,
        model_args: Mapping[str, Any] | None = None,
        cache_dir: str | None = None,
        tokenizer_args: Mapping[str, Any] | None = None,
        do_lower_case: bool = False,
        tokenizer_name_or_path: str | None = None,
        *,
        config_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._config = TransformerConfig()
        self._token_ids = TokenIds()
        self.do_lower_case = do_lower_case
        name = str(model_name_or_path)
        model, self._tokenizer = load_checkpoint(
            name,
            cache_dir,
            model_args=model_args or {},
            config_args=config_args or {},
            tokenizer_args=tokenizer_args or {},
            tokenizer_name=tokenizer_name_or_path,
        )
        self._modules["auto_model"] = model  # not by setting an attribute, which looks at it
        self.max_seq_length = (
            _own_limit(self.model_seen.config, self.tokenizer_seen) if max_seq_length is None else max_seq_length
        )

    @classmethod
    def load(
        cls,
        input_path: str | Path,
        *,
        model_args: Mapping[str, Any] | None = None,
        tokenizer_args: Mapping[str, Any] | None = None,
        config_args: Mapping[str, Any] | None = None,
    ) -> Transformer:
        """The transformer that a folder holds, with its settings.

        Args:
            input_path: The folder.
            model_args: As for the constructor; takes precedence over what the folder says, like the two
                that follow.
            tokenizer_args: See above.
            config_args: See above.
        """
        folder = Path(input_path)
        config = read_transformer_config(folder)
        otherwise = config.computes_otherwise
        if otherwise:
            expected = "the last hidden state of texts, as they are"
            raise FormatError(f"{folder}: {', '.join(otherwise)}", expected, otherwise)
        transformer = cls(
            str(folder),
            max_seq_length=config.max_seq_length,
            model_args={**config.model_args, **(model_args or {})},
            tokenizer_args={**config.tokenizer_args, **(tokenizer_args or {})},
            do_lower_case=config.do_lower_case,
            tokenizer_name_or_path=_tokenizer_place(folder, config.tokenizer_name_or_path),
            config_args={**config.config_args, **(config_args or {})},
        )
        transformer._config = config
        return transformer

    @property
    def auto_model(self) -> Any:
        """The model of transformers."""
        if "auto_model" not in self._modules:
            raise AttributeError("auto_model")
        model: Any = self._modules["auto_model"]
        return loaded(model)

    @auto_model.setter
    def auto_model(self, model: nn.Module) -> None:
        self._modules["auto_model"] = model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        held = self._tokenizer
        return held.loaded() if isinstance(held, DeferredTokenizer) else held

    @tokenizer.setter
    def tokenizer(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def max_seq_length(self) -> int | None:
        """The longest input in tokens, special tokens included; what is longer is cut. None for no limit."""
        return self._max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, limit: int | None) -> None:
        limit = whole_or_none(limit, "max_seq_length")
        if limit is not None and limit < 1:
            raise ValueError(f"max_seq_length: expected 1 or more, or None, found {limit}")
        self._max_seq_length = limit

    @property
    def model_seen(self) -> Any:
        """The model, or as long as nobody has asked for it what stands in for it: has its weights, under the same
        names, and what of its configuration decides the embeddings. It is for looking only: who wants to change a
        model asks for ``auto_model``.
        """
        model: Any = self._modules["auto_model"]
        return seen(model)

    @property
    def tokenizer_seen(self) -> Any:
        """The tokenizer, or what stands in for it likewise."""
        held = self._tokenizer
        return held.seen if isinstance(held, DeferredTokenizer) else held

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """The model, of its own class, and whatever else somebody has put in."""
        return ((name, loaded(module)) for name, module in super().named_children())

    def train(self, mode: bool = True) -> Self:
        """As of any module, but that a model in evaluation mode is not loaded to be told so."""
        self.training = mode
        for module in self._modules.values():
            if module is not None:
                module.train(mode)
        return self

    def __copy__(self) -> Transformer:
        # Shallow, as any module is copied: both hold the same model, loaded or not.
        twin = type(self).__new__(type(self))
        twin.__dict__.update(vars(self))
        return twin

    def __getstate__(self) -> dict[str, Any]:
        # Deeply copied or pickled it stays deferred: pickling looks at each module.
        model: Any = self._modules.get("auto_model")
        return {**vars(self), "_modules": {**self._modules, "auto_model": pending_of(model) or model}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        model = state["_modules"]["auto_model"]
        if isinstance(model, Pending):
            state["_modules"]["auto_model"] = Deferred(model)
        super().__setstate__(state)  # type: ignore[no-untyped-call]

    def save(self, output_path: str | Path, *, safe_serialization: bool = True) -> None:
        """Write model, tokenizer and settings into a folder, which is made if need be.

        Args:
            output_path: The folder.
            safe_serialization: Whether weights are written as safetensors, rather than as a pickle.
        """
        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(folder, self.auto_model, safe_serialization=safe_serialization)
        save_tokenizer(folder, self.tokenizer)
        write_json(folder / TRANSFORMER_CONFIG_NAMES[0], self.get_config_dict())

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as they are written to disk."""
        # The tokenizer is saved beside the model, wherever it came from.
        return replace(
            self._config,
            max_seq_length=self.max_seq_length,
            do_lower_case=self.do_lower_case,
            tokenizer_name_or_path=None,
        ).to_dict()

    def get_word_embedding_dimension(self) -> int:
        """Width of the token embeddings."""
        config = self.model_seen.config
        width: int = config.hidden_size if hasattr(config, "hidden_size") else config.encoder.hidden_size
        return width

    def tokenize(self, texts: Sequence[Any], padding: str | bool = True) -> Features:
        """The features of a batch of texts.

        Args:
            texts: Each a text, a pair of texts, or ``{key: text}``.
            padding: To how many tokens they are padded; see ``TokenizedTexts.least_width``.

        Returns:
            ``input_ids``, ``attention_mask`` and whatever else the tokenizer makes, int64 tensors of shape
            (texts, tokens); ``text_keys`` if the texts came with keys.

        Raises:
            TypeError: A text is missing.
            ValueError: There is no such padding, or none of texts of several lengths.
        """
        batch = [texts] if isinstance(texts, str) else texts
        tokenized = self.tokenize_ahead(batch)
        limit = limit_of(self.tokenizer_seen, self.max_seq_length)
        return tokenized.batch(range(len(batch)), tokenized.least_width(padding, limit))

    def tokenize_ahead(self, texts: Sequence[Any]) -> TokenizedTexts:
        """The token ids of any number of texts, cut to the longest input, not yet padded.

        The tokenizer is left as it is, so threads can share it.

        Raises:
            TypeError: A text is missing.
            ValueError: An item is no text, no pair and no ``{key: text}``; or a text has more tokens than the model
                has places for, as ``max_seq_length`` is above that.
        """
        tokenizer, positions = self.tokenizer_seen, Positions.of(self.model_seen)
        keys, firsts, seconds = _as_columns(texts)
        parts: dict[str, list[NDArray[np.int32]]] = {"input_ids": []}
        lengths: list[int] = []
        cut: list[int] = []
        for start in range(0, len(firsts), _TEXTS_AT_ONCE):
            chunk = slice(start, start + _TEXTS_AT_ONCE)
            tokenized = self._tokenized(firsts[chunk], seconds[chunk], self._token_ids, self.max_seq_length)
            if positions is not None:
                positions.check(tokenized.columns["input_ids"], self.max_seq_length)
            lengths += map(len, tokenized.columns["input_ids"])
            cut += [start + row for row in tokenized.cut]
            for name, rows in tokenized.columns.items():
                parts.setdefault(name, []).append(np.fromiter(chain.from_iterable(rows), dtype=np.int32))
        columns = {name: _joined(arrays) for name, arrays in parts.items()}
        return texts_of(tokenizer, columns, lengths, cut, keys if any(key is not None for key in keys) else None)

    def token_offsets(self, text: str) -> NDArray[np.int64]:
        """Where each token of a text begins and ends in it, in characters, shape (tokens, 2).

        They are those of the text as it is given, whatever is stripped and lowered. Tokens that the tokenizer adds
        have an empty place.

        Raises:
            ValueError: The tokenizer does not know.
        """
        (cleaned,) = self._cleaned([text])
        found = self._token_ids.offsets(self.tokenizer_seen, self.max_seq_length, cleaned)
        offsets = np.array(found, dtype=np.int64).reshape(-1, 2)
        # A character may become several when it is lowered.
        kept = text.strip()
        widths = [len(char.lower()) for char in kept] if self.do_lower_case else [1] * len(kept)
        ends = np.concatenate([[0], np.cumsum(widths)])
        shift = len(text) - len(text.lstrip())
        starts, stops = np.searchsorted(ends, offsets[:, 0], "right") - 1, np.searchsorted(ends, offsets[:, 1])
        is_empty = offsets[:, 0] >= offsets[:, 1]
        return np.where(is_empty[:, None], 0, np.stack([starts, stops], axis=1) + shift)

    def count_tokens(self, texts: Sequence[Any]) -> NDArray[np.int64]:
        """How many tokens texts have before they are cut, those that the tokenizer adds included, shape (texts,).

        Args:
            texts: Each a text, a pair of texts, or ``{key: text}``.
        """
        _, firsts, seconds = _as_columns(texts)
        # By token ids of its own: those of ``tokenize`` keep a tokenizer that is set to their limit.
        tokenized = self._tokenized(firsts, seconds, TokenIds(), UNLIMITED)
        return np.array([len(ids) for ids in tokenized.columns["input_ids"]], dtype=np.int64)

    def prompt_length(self, prompt: str) -> int:
        """How many tokens a prompt takes at the start of a text.

        The token that the tokenizer may put behind the prompt when it stands alone is not counted: in a text
        it stands behind the whole text.
        """
        (text,) = self._cleaned([prompt])
        added = self._token_ids.special_tokens(self.tokenizer_seen, self.max_seq_length, text)
        return len(added) - 1 if added and added[-1] else len(added)

    def _tokenized(
        self, firsts: Sequence[str], seconds: Sequence[str | None], token_ids: TokenIds, limit: int | None
    ) -> Tokenized:
        """The token ids of texts and of pairs of texts, mixed in any way."""
        pairs = [row for row, second in enumerate(seconds) if second is not None]
        if not pairs:
            return token_ids.tokenized(self.tokenizer_seen, limit, self._cleaned(firsts), None)
        # The tokenizer takes texts or pairs, not a mixture.
        singles = [row for row, second in enumerate(seconds) if second is None]
        mixed: dict[str, list[Sequence[int]]] = {}
        cut: list[int] = []
        for rows, have_second in ((singles, False), (pairs, True)):
            tokenized = token_ids.tokenized(
                self.tokenizer_seen,
                limit,
                self._cleaned([firsts[row] for row in rows]),
                self._cleaned([seconds[row] or "" for row in rows]) if have_second else None,
            )
            cut += [rows[row] for row in tokenized.cut]
            for name, numbers in tokenized.columns.items():
                column = mixed.setdefault(name, [()] * len(firsts))
                for row, ids in zip(rows, numbers, strict=True):
                    column[row] = ids
        return Tokenized(mixed, sorted(cut))

    def forward(self, features: Features) -> Features:
        """Adds ``token_embeddings`` (texts, tokens, dim) and, if the model gives them, ``all_layer_embeddings``."""
        return forward_through(self.auto_model, features)

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.get_config_dict().items())
        model = self.model_seen
        architecture = model.architecture if isinstance(model, StandInModel) else type(model).__name__
        return f"Transformer({settings}, architecture={architecture!r})"

    def _cleaned(self, texts: Sequence[str]) -> list[str]:
        stripped = [encodable(text.strip()) for text in texts]
        return [text.lower() for text in stripped] if self.do_lower_case else stripped


def _as_columns(texts: Sequence[Any]) -> tuple[list[str | None], list[str], list[str | None]]:
    """Texts, pairs and ``{key: text}`` as columns: keys, first texts, second texts; None where there is none.

    Raises:
        TypeError: A text is missing.
        ValueError: An item is none of these.
    """
    keys: list[str | None] = []
    firsts: list[str] = []
    seconds: list[str | None] = []
    for row, item in enumerate(texts):
        key, first, second = (None, item, None) if isinstance(item, str) else _unpacked(row, item)
        keys.append(None if key is None else str(key))
        firsts.append(str(first))
        seconds.append(None if second is None else str(second))
    return keys, firsts, seconds


def _unpacked(row: int, item: Any) -> tuple[Any, Any, Any]:
    """Key, first text and second text of what is no single text; errors as above."""
    key, first, second = None, item, None
    if isinstance(item, Mapping) and len(item) == 1:
        ((key, first),) = item.items()
    elif isinstance(item, (list, tuple)) and len(item) == 2:
        first, second = item
    elif isinstance(item, (Mapping, list, tuple)):
        raise ValueError(f"row {row}: expected a text, a pair of texts or {{key: text}}, found {item!r:.80}")
    if first is None or (second is None and isinstance(item, (list, tuple))):
        raise TypeError(f"row {row}: expected a text, a pair of texts or {{key: text}}, found {item!r:.80}")
    return key, first, second


def _joined(arrays: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, dtype=np.int32), *arrays])


def _own_limit(config: Any, tokenizer: Any) -> int | None:
    """The lower of the model's and the tokenizer's limit, if both have one."""
    positions = getattr(config, "max_position_embeddings", None)
    limit = getattr(tokenizer, "model_max_length", None)
    return None if positions is None or limit is None or positions < 1 else min(positions, limit)


def _tokenizer_place(folder: Path, name: str | None) -> str | None:
    """A tokenizer that a folder names: in a folder inside it, or else on the Hub."""
    if name is None or not (folder / name).is_dir():
        return name
    return str(folder / name)


def read_transformer_config(folder: Path) -> TransformerConfig:
    """The settings in a folder, under whichever of their names, without what would run code."""
    paths = [folder / name for name in TRANSFORMER_CONFIG_NAMES]
    path = next((path for path in paths if path.exists()), None)
    config = TransformerConfig() if path is None else TransformerConfig.from_dict(read_json(path), str(path))
    if config.tokenizer_name_or_path is not None:
        check_inside(config.tokenizer_name_or_path, f"{path}: tokenizer_name_or_path")
    return replace(
        config,
        model_args=inert(config.model_args, f"{path}: model_args"),
        tokenizer_args=inert(config.tokenizer_args, f"{path}: tokenizer_args"),
        config_args=inert(config.config_args, f"{path}: config_args"),
    )


def forward_through(model: Any, features: Features) -> Features:
    """What a Transformer makes of Features when this is its model."""
    accepted = _input_names(type(model))
    inputs = {
        name: value
        for name, value in features.items()
        if name in ("input_ids", "attention_mask", "token_type_ids", "inputs_embeds", "position_ids")
        and (accepted is None or name in accepted)
    }
    output = model(**inputs, return_dict=True)
    made = {"token_embeddings": output[0]}
    if model.config.output_hidden_states:
        made["all_layer_embeddings"] = output.hidden_states
    return {**features, **made}


_accepted_names: dict[type, frozenset[str] | None] = {}


def _input_names(model_class: type[nn.Module]) -> frozenset[str] | None:
    """The names that a model's ``forward`` takes; None if it takes any, as wrappers do."""
    if model_class not in _accepted_names:
        parameters = inspect.signature(model_class.forward).parameters.values()
        named = frozenset(p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))
        _accepted_names[model_class] = named if "input_ids" in named else None
    return _accepted_names[model_class]
