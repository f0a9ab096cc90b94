"""WordPieces: what is known of a tokenizer that cuts words into pieces.

Wu et al. 2016, https://arxiv.org/abs/1609.08144.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
class WordPieces:
    """What is known of a tokenizer that cuts words into pieces.

    Args:
        name: What the names of its classes begin with.
        roles: Name of a special token in the settings → the token.
        inputs: What the model reads.
        post_processors: Token → id, of special tokens → what may put them around texts, as in ``tokenizer.json``.
            The first is what its own classes make of the others, which give the same tokens.
        spaced: Special tokens that take the space before them.
        unused: Other tokens that may be special, too.
    """

    name: str
    roles: Mapping[str, str]
    inputs: Sequence[str]
    post_processors: Callable[[Mapping[str, int]], Sequence[Mapping[str, Any]]]
    spaced: frozenset[str] = frozenset()
    unused: frozenset[str] = frozenset()

    def read(self, files: TokenizerFiles) -> StandInTokenizer:
        """The tokenizer that files describe.

        Raises:
            UnknownError: Something is not as it is known to be; whatever else files that are broken lead to.
        """
        from tokenizers import Tokenizer

        config = files.config
        check_keys(config, self._settings(), "tokenizer_config.json")
        check("tokenizer_class" in config, "tokenizer_class")
        # By default a tokenizer of no architecture does not tell the texts of a pair apart.
        is_own = config["tokenizer_class"].startswith(self.name)
        check("model_input_names" in config or is_own, "model_input_names")
        check("pad_token" in {**config, **files.special_tokens} or is_own, "pad_token")  # nor does it fill
        check_keys(files.tokenizer.get("truncation") or {}, _TRUNCATION, "truncation")
        check_keys(files.tokenizer.get("padding") or {}, _padding(self.roles["pad_token"]), "padding")
        special = self._check_special_tokens(files, is_own=is_own)
        self._check_parts(files, special, is_own=is_own)
        limit = config.get("model_max_length", int(1e30))
        backend = Tokenizer.from_str(self._made_of(files, special) if is_own else files.content)
        return StandInTokenizer(backend, limit, special[self.roles["pad_token"]], tuple(self.inputs))

    def _made_of(self, files: TokenizerFiles, special: Mapping[str, int]) -> str:
        """What its own classes make of ``tokenizer.json``."""
        own = self.post_processors(special)[0]
        if files.tokenizer["post_processor"] == own:
            return files.content
        return json.dumps({**files.tokenizer, "post_processor": own})

    def _settings(self) -> Mapping[str, Fits]:
        """Keys of ``tokenizer_config.json`` → their values."""
        return {
            **_SETTINGS,
            "tokenizer_class": exactly(
                f"{self.name}Tokenizer", f"{self.name}TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"
            ),
            **{role: exactly(token) for role, token in self.roles.items()},
            "model_input_names": exactly([*self.inputs]),
        }

    def _check_special_tokens(self, files: TokenizerFiles, *, is_own: bool) -> Mapping[str, int]:
        """Token → id, of the special tokens, about which all files agree."""
        vocabulary, added = files.tokenizer["model"]["vocab"], files.tokenizer["added_tokens"]
        known = {token["content"]: token for token in added}
        special = {token: vocabulary[token] for token in known}
        ids = frozenset(special.values())
        roles = frozenset(self.roles.values())
        check(roles <= known.keys() <= roles | self.unused, "added_tokens")
        check(len(added) == len(known), "added_tokens")
        check(sum(idx in ids for idx in vocabulary.values()) == len(ids) == len(known), "special tokens")
        for name, token in known.items():
            marks = {**self._marks(name), "special": True, "id": special[name], "content": name}
            either = {"normalized": token["normalized"]} if name in self.unused else {}
            check(exactly({**marks, **either})(token), "added_tokens")
        by_id = {str(token.pop("id")): token for token in ({**token} for token in added)}
        decoder = files.config.get("added_tokens_decoder", {})
        for idx, token in decoder.items():
            check(token == by_id[idx], "added_tokens_decoder")
        # Its own classes then look there, and not into tokenizer.json, for tokens that have no role.
        is_left_out = is_own and "added_tokens_decoder" in files.config
        check(not is_left_out or known.keys() <= roles | {by_id[idx]["content"] for idx in decoder}, "added_tokens")
        for name, token in files.special_tokens.items():
            expected = self.roles[name]
            check(token in (expected, {"content": expected, **self._marks(expected)}), name)
        return special

    def _marks(self, token: str) -> Mapping[str, bool]:
        return {"lstrip": token in self.spaced, "normalized": False, "rstrip": False, "single_word": False}

    def _check_parts(self, files: TokenizerFiles, special: Mapping[str, int], *, is_own: bool) -> None:
        """Raise unless the steps from a text to its tokens are those that the settings lead to."""
        config, tokenizer = files.config, files.tokenizer
        expected: Mapping[str, Mapping[str, Any]] = {
            "normalizer": {
                "type": "BertNormalizer",
                "clean_text": True,
                "handle_chinese_chars": config.get("tokenize_chinese_chars", True),
                "strip_accents": config.get("strip_accents"),
                "lowercase": config.get("do_lower_case", True),
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "model": {
                "type": "WordPiece",
                "unk_token": self.roles["unk_token"],
                "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100,
                "vocab": tokenizer["model"]["vocab"],
            },
        }
        if is_own:
            expected = {**expected, "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}
        for name, part in expected.items():
            check(tokenizer[name] == part, name)
        check(tokenizer["post_processor"] in self.post_processors(special), "post_processor")


def template(special: Mapping[str, int], *, first: str, last: str, between: int) -> Mapping[str, Any]:
    """What puts a token before texts, one behind, and some between them, as in ``tokenizer.json``.

    Args:
        special: Special token → id.
        first: What goes before.
        last: What goes behind.
        between: How many of these go between two texts.
    """

    def token(name: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": kind}}

    def text(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    begun = [token(first, 0), text("A", 0)]
    return {
        "type": "TemplateProcessing",
        "single": [*begun, token(last, 0)],
        "pair": [*begun, *[token(last, 0)] * between, text("B", 1), token(last, 1)],
        "special_tokens": {name: {"id": name, "ids": [special[name]], "tokens": [name]} for name in (first, last)},
    }


_SETTINGS: Mapping[str, Fits] = {
    # What decides the tokens.
    "do_lower_case": a(bool),
    "tokenize_chinese_chars": a(bool),
    "strip_accents": none_or(a(bool)),
    "do_basic_tokenize": exactly(True),
    "never_split": exactly(None),
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
