"""KnownTokenizer: what is known of a kind of tokenizer."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sentence_embedder.models.stand_ins.known_values import (
    Fits,
    a,
    check,
    check_keys,
    exactly,
    none_or,
    whole,
)
from sentence_embedder.models.stand_ins.tokenizer import StandInTokenizer
from sentence_embedder.models.stand_ins.tokenizer_files import TokenizerFiles


@dataclass(frozen=True, kw_only=True)
class KnownTokenizer(ABC):
    """What is known of a kind of tokenizer.

    Args:
        name: What the names of its classes begin with.
        roles: Name of a special token in the settings → the token.
        inputs: What the model reads.
        post_processors: Token → id, of special tokens → what may put them around texts, as in ``tokenizer.json``.
            The first is what its own classes make of the others, which give the same tokens.
        spaced: Special tokens that take the space before them.
        unused: Other tokens that may be special, too.
        normalized: Special tokens that may be looked for in what a normalizer makes of a text, and not in itself.
    """

    model: ClassVar[str]
    """The type of its model in ``tokenizer.json``."""

    name: str
    roles: Mapping[str, str]
    inputs: Sequence[str]
    post_processors: Callable[[Mapping[str, int]], Sequence[Mapping[str, Any]]]
    spaced: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()
    normalized: frozenset[str] = frozenset()

    def read(self, files: TokenizerFiles) -> StandInTokenizer:
        """The tokenizer that files describe.

        Raises:
            UnknownError: Something is not as it is known to be; whatever else files that are broken lead to.
        """
        from tokenizers import Tokenizer

        config = files.config
        check_keys(config, {**self._common_settings(), **self._settings()}, "tokenizer_config.json")
        check("tokenizer_class" in config, "tokenizer_class")
        is_own = config["tokenizer_class"].startswith(self.name)
        check("model_input_names" in config or is_own or [*self.inputs] == _UNSAID_INPUTS, "model_input_names")
        # A tokenizer of no architecture does not fill unless it is told with what; transformers looks for that
        # beside the settings only if these have no tokens.
        told = config if "added_tokens_decoder" in config else {**config, **files.special_tokens}
        check("pad_token" in told or is_own, "pad_token")
        check_keys(files.tokenizer.get("truncation") or {}, _TRUNCATION, "truncation")
        check_keys(files.tokenizer.get("padding") or {}, _padding(self.roles["pad_token"]), "padding")
        special = self._special_tokens(files.tokenizer)
        self._check_settings_of_tokens(files, is_own=is_own)
        check(files.tokenizer["post_processor"] in self.post_processors(special), "post_processor")
        self._check_parts(files)
        backend = Tokenizer.from_str(files.content)
        if is_own:
            own = {"post_processor": self.post_processors(special)[0], **self._own_parts(files.tokenizer)}
            _set_parts(backend, {name: part for name, part in own.items() if files.tokenizer[name] != part})
        limit = config.get("model_max_length", int(1e30))
        return StandInTokenizer(backend, limit, special[self.roles["pad_token"]], tuple(self.inputs))

    def _common_settings(self) -> Mapping[str, Fits]:
        """Keys of ``tokenizer_config.json`` that all have → their values."""
        return {
            **_SETTINGS,
            "tokenizer_class": exactly(
                f"{self.name}Tokenizer", f"{self.name}TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"
            ),
            **{role: _is_role(token) for role, token in self.roles.items()},
            "model_input_names": exactly([*self.inputs]),
        }

    @abstractmethod
    def _settings(self) -> Mapping[str, Fits]:
        """Keys that those of its kind have → their values."""

    def _vocabulary(self, model: Mapping[str, Any]) -> Mapping[str, int]:
        """Token → id."""
        vocabulary: Mapping[str, int] = model["vocab"]
        return vocabulary

    @abstractmethod
    def _check_parts(self, files: TokenizerFiles) -> None:
        """Raise unless the steps from a text to its tokens are those that the settings lead to."""

    @abstractmethod
    def _own_parts(self, tokenizer: Mapping[str, Any], /) -> Mapping[str, Any]:
        """Of what ``tokenizer.json`` says, the steps that its own classes take in place of those."""

    def _special_tokens(self, tokenizer: Mapping[str, Any]) -> Mapping[str, int]:
        """Token → id, of the special tokens in ``tokenizer.json``."""
        vocabulary, added = self._vocabulary(tokenizer["model"]), tokenizer["added_tokens"]
        known = {token["content"]: token for token in added}
        special = {token: vocabulary[token] for token in known}
        ids = frozenset(special.values())
        roles = frozenset(self.roles.values())
        check(roles <= known.keys() <= roles | self.unused, "added_tokens")
        check(len(added) == len(known), "added_tokens")
        check(sum(idx in ids for idx in vocabulary.values()) == len(ids) == len(known), "special tokens")
        for name, token in known.items():
            marks = {"lstrip": name in self.spaced, "normalized": False, "rstrip": False, "single_word": False}
            either = {"normalized": token["normalized"] is True} if name in self.normalized else {}
            check(exactly({**marks, **either, "special": True, "id": special[name], "content": name})(token), name)
        return special

    def _check_settings_of_tokens(self, files: TokenizerFiles, *, is_own: bool) -> None:
        """Raise unless the settings say of special tokens what ``tokenizer.json`` does."""
        added = files.tokenizer["added_tokens"]
        by_id = {str(token["id"]): _without(token, "id") for token in added}
        if "added_tokens_decoder" in files.config:
            decoder = files.config["added_tokens_decoder"]
            for idx, token in decoder.items():
                check(token == by_id[idx], "added_tokens_decoder")
            # Its own classes look there for tokens and their marks, and not into tokenizer.json.
            check(not is_own or decoder.keys() == by_id.keys(), "added_tokens_decoder")
        marked = {token["content"]: _without(token, "id", "special") for token in added}
        for role, expected in self.roles.items():
            own = marked[expected]
            check(files.config.get(role, expected) in (expected, {**own, "__type": "AddedToken"}), role)
            check(files.special_tokens.get(role, expected) in (expected, own), role)
        check(files.special_tokens.keys() <= self.roles.keys(), "special_tokens_map.json")


def model_type(model: Mapping[str, Any]) -> str:
    """The type of a model in ``tokenizer.json``, which older versions leave out."""
    if "type" in model:
        named: str = model["type"]
        return named
    return "Unigram" if isinstance(model["vocab"], list) else "BPE" if "merges" in model else "WordPiece"


def _is_role(token: str) -> Fits:
    return lambda value: type(value) is dict or (type(value) is str and value == token)


def _without(token: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in token.items() if key not in keys}


def _set_parts(backend: Any, parts: Mapping[str, Any]) -> None:
    """Give a ``tokenizers.Tokenizer`` other steps, which are written as in ``tokenizer.json``."""
    from tokenizers import Tokenizer

    empty = {"added_tokens": [], "model": {"type": "BPE", "vocab": {}, "merges": []}}
    others = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    with_parts = Tokenizer.from_str(json.dumps({"version": "1.0", **others, **empty, **parts}))
    for name in parts:
        setattr(backend, name, getattr(with_parts, name))


_UNSAID_INPUTS = ["input_ids", "attention_mask"]
"""What a tokenizer of no architecture gives unless it is told what."""

_SETTINGS: Mapping[str, Fits] = {
    # What decides the tokens.
    "model_max_length": whole(1, int(1e30)),
    "padding_side": exactly("right"),
    "truncation_side": exactly("right"),
    "pad_token_type_id": exactly(0),
    "added_tokens_decoder": a(dict),
    "additional_special_tokens": exactly([]),
    "extra_special_tokens": exactly([], {}),
    "model_specific_special_tokens": exactly({}),
    # What does not.
    **dict.fromkeys(("name_or_path", "special_tokens_map_file", "tokenizer_file"), none_or(a(str))),
    "truncation_strategy": exactly("longest_first"),
    **dict.fromkeys(("clean_up_tokenization_spaces", "is_local", "local_files_only"), a(bool)),
    "max_length": none_or(whole(1)),
    "stride": exactly(0),
    "pad_to_multiple_of": none_or(whole(1)),
    "backend": exactly("tokenizers"),
}
"""Keys of ``tokenizer_config.json`` that all have → their values."""

_TRUNCATION: Mapping[str, Fits] = {
    "direction": exactly("Right"),
    "max_length": whole(1),
    "strategy": exactly("LongestFirst"),
    "stride": exactly(0),
}
"""How a tokenizer was set to cut when it was saved."""


def _padding(token: str) -> Mapping[str, Fits]:
    """How it was set to fill, of which transformers takes something over."""
    return {
        "direction": exactly("Right"),
        "pad_id": whole(),
        "pad_to_multiple_of": none_or(whole(1)),
        "pad_token": exactly(token),
        "pad_type_id": exactly(0),
        "strategy": lambda value: value == "BatchLongest" or (type(value) is dict and [*value] == ["Fixed"]),
    }
