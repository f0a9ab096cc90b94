"""Settings and tokenizers that are known without transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from sentence_embedder.models import Transformer
from sentence_embedder.models.stand_ins import unigram
from sentence_embedder.models.stand_ins.stand_in import read_stand_in
from tests.models.changed_files import NULL, TEXTS, assert_alike, assert_unknown, change, is_deferred
from tests.usual_tokenizers import MPNET_TOKENS, PRECOMPILED, USUAL_CHECKPOINTS

Changes = Mapping[str, tuple[str, Mapping[str, Any]]]
"""What it is → a file, and what is changed in it."""


def _decoder(name: str, *left_out: str) -> Mapping[str, Any]:
    """The tokens of a usual checkpoint as tokenizer_config.json has them since 2023, but for some."""
    tokens = [{**token} for token in USUAL_CHECKPOINTS[name].tokenizer()[0]["added_tokens"]]
    return {str(token.pop("id")): token for token in tokens if token["content"] not in left_out}


_PLAIN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
_ADDED = [
    {"id": idx, "content": token, **_PLAIN, "special": True}
    for idx, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
]

REFUSED: Mapping[str, Mapping[str, Sequence[Any]]] = {
    "config.json": {
        "layer_norm_eps": (1, NULL, "1e-12", True),
        "initializer_range": (1, NULL),
        "is_decoder": (0, NULL),
        "use_cache": (NULL, 1),
        "hidden_dropout_prob": (-1, 3, NULL),
        "attention_probs_dropout_prob": (3.0, NULL),
        "torch_dtype": ("x", "auto", "torch.float16"),
        "pad_token_id": (120, -1, True),
        "id2label": ({"a": "b"}, []),
        "num_attention_heads": (3, 0, NULL),
        "hidden_size": (32.0, NULL),
    },
    "tokenizer_config.json": {
        "extra_special_tokens": (False, 0),
        "additional_special_tokens": (False, ["cat"]),
        "model_max_length": (0, NULL, 48.0),
        "do_lower_case": (1, NULL),
    },
}
"""File → key → values that transformers refuses, or takes for something else."""

KNOWN: Mapping[str, Any] = {
    "model_type": "bert",
    "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
}

_UNKNOWN_OF_BERT: Changes = {
    "another architecture": ("config.json", {"model_type": "roberta", "pad_token_id": 0}),
    "another activation": ("config.json", {"hidden_act": "relu"}),
    "other positions": ("config.json", {"position_embedding_type": "relative_key"}),
    "a decoder": ("config.json", {"is_decoder": True}),
    "an unknown key": ("config.json", {"chunk_size_feed_forward": 1}),
    "code": ("config.json", {"auto_map": {"AutoModel": "model.Model"}}),
    "quantised": ("config.json", {"quantization_config": {"quant_method": "gptq"}}),
    "hidden states": ("config.json", {"output_hidden_states": True}),
    "another class of tokenizer": ("tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"}),
    "another case": ("tokenizer_config.json", {"do_lower_case": False}),
    "accents": ("tokenizer_config.json", {"strip_accents": True}),
    "Chinese": ("tokenizer_config.json", {"tokenize_chinese_chars": False}),
    "another token": ("tokenizer_config.json", {"sep_token": "[CLS]"}),
    "another side": ("tokenizer_config.json", {"padding_side": "left"}),
    "cut on the left": ("tokenizer_config.json", {"truncation_side": "left"}),
    "inputs": ("tokenizer_config.json", {"model_input_names": ["input_ids", "attention_mask"]}),
    "special tokens apart": ("tokenizer_config.json", {"split_special_tokens": True}),
    "more tokens": ("tokenizer_config.json", {"extra_special_tokens": ["cat"]}),
    "a token of its own": (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"9": {"content": "cat", "special": True}}},
    ),
    "a broad mask": (
        "special_tokens_map.json",
        {
            "mask_token": {
                "content": "[MASK]",
                "lstrip": True,
                "rstrip": False,
                "normalized": False,
                "single_word": False,
            }
        },
    ),
    "other pieces": ("tokenizer.json", {"model/continuing_subword_prefix": "@@"}),
    "short words": ("tokenizer.json", {"model/max_input_chars_per_word": 3}),
    "another normaliser": ("tokenizer.json", {"normalizer": {"type": "Lowercase"}}),
    "another template": ("tokenizer.json", {"post_processor": None}),
    "another split": ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}),
    "added tokens": ("added_tokens.json", {"cat": 9}),
    "an adapter": ("adapter_config.json", {"base_model_name_or_path": "x"}),
    "a template for chats": ("chat_template.json", {"chat_template": "x"}),
    "another token first": (
        "tokenizer.json",
        {"added_tokens": [{"id": 0, "content": "foo", **_PLAIN, "special": True}, *_ADDED]},
    ),
    "one id for two tokens": ("tokenizer.json", {"model/vocab/cat": 1}),
    "a stride": (
        "tokenizer.json",
        {"truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 4, "direction": "Right"}},
    ),
    **{
        f"{key}={value!r}": (name, {key: value})
        for name, keys in REFUSED.items()
        for key, values in keys.items()
        for value in values
    },
}


_MARKS = {"single_word": False, "rstrip": False, "normalized": False}
_AS_IN_ROBERTA = {
    "type": "RobertaProcessing",
    "sep": ["</s>", 2],
    "cls": ["<s>", 0],
    "trim_offsets": True,
    "add_prefix_space": False,
}
_UNUSED = {"content": "<unk>", "lstrip": False, **_MARKS, "special": True}
_UNKNOWN_OF_MPNET: Changes = {
    "other buckets": ("config.json", {"relative_attention_num_buckets": 16}),
    "types": ("config.json", {"type_vocab_size": 1}),
    "another class of tokenizer": ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}),
    "inputs": ("tokenizer_config.json", {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}),
    "another first token": ("tokenizer_config.json", {"cls_token": "[CLS]"}),
    "a narrow mask": ("special_tokens_map.json", {"mask_token": {"content": "<mask>", "lstrip": False, **_MARKS}}),
    "trimmed": ("tokenizer.json", {"post_processor": {**_AS_IN_ROBERTA, "trim_offsets": False}}),
    "another padding": (
        "tokenizer.json",
        {
            "padding": {
                "strategy": "BatchLongest",
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            }
        },
    ),
    "a token that is not special": (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"3": {**_UNUSED, "special": False}}},
    ),
    "a token too much": ("tokenizer_config.json", {"added_tokens_decoder": {}}),
    "a token too much beside others": (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"0": {**_UNUSED, "content": "<s>"}}},
    ),
    "nothing to fill with": (
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "pad_token": None,
        },
    ),
}


_SPLIT = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
_JOINED = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}


def _before(*steps: Mapping[str, Any]) -> Mapping[str, Any]:
    """A change of the normalizer."""
    return {"normalizer": {"type": "Sequence", "normalizers": [*steps]}}


def _words(*steps: Mapping[str, Any]) -> Mapping[str, Any]:
    """A change of what finds words."""
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [*steps]}}


_UNKNOWN_OF_XLM_ROBERTA: Changes = {
    "padding elsewhere": ("config.json", {"pad_token_id": 0}),
    "no padding": ("config.json", {"pad_token_id": NULL}),
    "another class of tokenizer": ("tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer"}),
    "types": ("tokenizer_config.json", {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}),
    "no space before": ("tokenizer_config.json", {"add_prefix_space": False}),
    "other settings of SentencePiece": ("tokenizer_config.json", {"sp_model_kwargs": {"enable_sampling": True}}),
    "a narrow mask": ("tokenizer_config.json", {"mask_token/lstrip": False}),
    "a mask of no class": ("tokenizer_config.json", {"mask_token/__type": None}),
    "a mask that is another": ("tokenizer_config.json", {"mask_token/content": "<unk>"}),
    "a mask that is a number": ("tokenizer_config.json", {"mask_token": 4}),
    "a mask in the middle of words": ("tokenizer.json", {"added_tokens/4/single_word": True}),
    "a number for a mark": ("tokenizer.json", {"added_tokens/4/normalized": 1}),
    "a mask that contradicts": ("tokenizer.json", {"added_tokens/4/normalized": False}),
    "unknown pieces elsewhere": ("tokenizer.json", {"model/unk_id": 2}),
    "no unknown pieces": ("tokenizer.json", {"model/unk_id": NULL}),
    "another unknown piece": ("tokenizer.json", {"model/vocab/3": ["<foo>", 0.0]}),
    "a piece twice": ("tokenizer.json", {"model/vocab/9": ["▁the", -1.0]}),
    "bytes": ("tokenizer.json", {"model/byte_fallback": True}),
    "no model": ("tokenizer.json", {"model": {}}),
    "another model": ("tokenizer.json", {"model/type": "WordLevel"}),
    "another normalizer": ("tokenizer.json", _before({"type": "NFKC"})),
    "another normalizer behind": ("tokenizer.json", _before(PRECOMPILED, {"type": "Lowercase"})),
    "another order": ("tokenizer.json", _before(_JOINED, PRECOMPILED)),
    "other spaces": ("tokenizer.json", _before(PRECOMPILED, {**_JOINED, "content": "_"})),
    "no words": ("tokenizer.json", {"pre_tokenizer": NULL}),
    "other words": ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}),
    "other words before": ("tokenizer.json", _words({"type": "Whitespace"}, _SPLIT)),
    "a space before the first": ("tokenizer.json", _words({**_SPLIT, "prepend_scheme": "first"})),
    "no space said": ("tokenizer.json", _words({"type": "Metaspace", "replacement": "▁"})),
    "another mark for spaces": ("tokenizer.json", _words({**_SPLIT, "replacement": "_"})),
    "not split": ("tokenizer.json", _words({**_SPLIT, "split": False})),
    "a token too much": ("tokenizer_config.json", {"added_tokens_decoder": _decoder("xlm-roberta", "<mask>")}),
    "another template": ("tokenizer.json", {"post_processor/single/0": None}),
    "two types": ("tokenizer.json", {"post_processor/pair/4/Sequence/type_id": 1}),
}
_UNKNOWN_OF_ROBERTA: Changes = {
    "padding elsewhere": ("config.json", {"pad_token_id": 0}),
    "a decoder": ("config.json", {"is_decoder": True}),
    "another class of tokenizer": ("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"}),
    "a space before": ("tokenizer_config.json", {"add_prefix_space": True}),
    "other errors": ("tokenizer_config.json", {"errors": "ignore"}),
    "not trimmed": ("tokenizer_config.json", {"trim_offsets": False}),
    "left out at random": ("tokenizer.json", {"model/dropout": 0.1}),
    "an unknown token": ("tokenizer.json", {"model/unk_token": "<unk>"}),
    "no prefix said": ("tokenizer.json", {"model/continuing_subword_prefix": None}),
    "no prefix": ("tokenizer.json", {"model/continuing_subword_prefix": NULL}),
    "a suffix": ("tokenizer.json", {"model/end_of_word_suffix": "</w>"}),
    "words as they are": ("tokenizer.json", {"model/ignore_merges": True}),
    "bytes": ("tokenizer.json", {"model/byte_fallback": True}),
    "a normalizer": ("tokenizer.json", {"normalizer": {"type": "NFC"}}),
    "other words": ("tokenizer.json", {"pre_tokenizer/use_regex": False}),
    "a space before words": ("tokenizer.json", {"pre_tokenizer/add_prefix_space": True}),
    "tokens too much": ("tokenizer_config.json", {"added_tokens_decoder": {}}),
    "a token too much": ("tokenizer_config.json", {"added_tokens_decoder": _decoder("roberta", "<mask>")}),
    "another template": ("tokenizer.json", {"post_processor/trim_offsets": False}),
    "one token twice": ("tokenizer.json", {"post_processor/sep": ["<s>", 0]}),
}
_UNKNOWN_OF_DISTILBERT: Changes = {
    "another activation": ("config.json", {"activation": "relu"}),
    "a name of BERT": ("config.json", {"hidden_size": 32}),
    "a norm of BERT": ("config.json", {"layer_norm_eps": 1e-5}),
    "no width": ("config.json", {"dim": None}),
    "heads that do not fit": ("config.json", {"n_heads": 5}),
    "weights that are not tied": ("config.json", {"tie_weights_": False}),
    "types": ("tokenizer_config.json", {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}),
    "another class of tokenizer": ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}),
}

UNKNOWN: Mapping[str, Changes] = {
    "bert": _UNKNOWN_OF_BERT,
    "distilbert": _UNKNOWN_OF_DISTILBERT,
    "mpnet": _UNKNOWN_OF_MPNET,
    "roberta": _UNKNOWN_OF_ROBERTA,
    "xlm-roberta": _UNKNOWN_OF_XLM_ROBERTA,
}
"""A usual checkpoint → changes after which it is known no longer."""


class TestUnknown:
    """What is not known is loaded by transformers at once."""

    @pytest.mark.parametrize("place", range(len(MPNET_TOKENS)))
    @pytest.mark.parametrize("key", ["lstrip", "rstrip", "normalized", "single_word", "special", "id", None])
    def test_special_tokens_of_another_kind(self, place: int, key: str | None, mpnet: Path) -> None:
        """A special token that is missing, or is looked for in another way, is not known; whether a normaliser sees
        one that nothing uses does not matter, nor whether it is there.
        """
        path = mpnet / "tokenizer.json"
        content = json.loads(path.read_text(encoding="utf-8"))
        token = content["added_tokens"][place]
        if key is None:
            del content["added_tokens"][place]
        else:
            token[key] = token[key] + 100 if key == "id" else not token[key]
        path.write_text(json.dumps(content), encoding="utf-8")

        is_known = token["content"] == "<unk>" and key in (None, "normalized")
        assert (read_stand_in(mpnet) is not None) is is_known

    @pytest.mark.parametrize(("name", "change"), [(name, change) for name in UNKNOWN for change in UNKNOWN[name]])
    def test_there_is_no_stand_in(
        self, name: str, change: str, checkpoints: Mapping[str, Path], tmp_path: Path
    ) -> None:
        """A checkpoint with anything that is not known, or files that contradict each other, has no stand-in."""
        folder = Path(shutil.copytree(checkpoints[name], tmp_path / "x"))

        assert_unknown(folder, *UNKNOWN[name][change])

    @pytest.mark.parametrize("name", USUAL_CHECKPOINTS)
    def test_what_is_filled_with(self, name: str, checkpoints: Mapping[str, Path], tmp_path: Path) -> None:
        """Where the settings have tokens, transformers does not look beside them for the one that texts are filled
        with.
        """
        folder = Path(shutil.copytree(checkpoints[name], tmp_path / "x"))
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        inputs = settings.get("model_input_names", ["input_ids", "attention_mask"])
        pad = settings["pad_token"]
        own = {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": inputs, "pad_token": None}
        change(folder / "tokenizer_config.json", own)
        change(folder / "special_tokens_map.json", {"pad_token": pad})
        assert read_stand_in(folder) is not None

        change(folder / "tokenizer_config.json", {"added_tokens_decoder": _decoder(name)})

        assert read_stand_in(folder) is None

    @pytest.mark.parametrize(
        ("name", "key", "others"),
        [
            ("config.json", "model_type", {}),
            ("tokenizer_config.json", "model_input_names", {"tokenizer_class": "TokenizersBackend"}),
            ("tokenizer_config.json", "model_input_names", {"tokenizer_class": "PreTrainedTokenizerFast"}),
        ],
    )
    def test_what_must_be_said(self, name: str, key: str, others: Mapping[str, Any], bert: Path) -> None:
        """Where transformers has no default, or another one than BERT, there is no stand-in without a key."""
        settings = {**json.loads((bert / name).read_text()), **others}
        for content, is_known in (({**settings, key: KNOWN[key]}, True), (settings, False)):
            if not is_known:
                content.pop(key, None)
            (bert / name).write_text(json.dumps(content))

            assert (read_stand_in(bert) is not None) is is_known


_CUT = {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
_ALIKE_OF_BERT: Changes = {
    "labels": ("config.json", {"id2label": {"0": "x"}, "label2id": {"x": 0}, "bos_token_id": 3}),
    "an older format of weights": ("config.json", {"torch_dtype": "float16", "use_cache": False}),
    "a limit": ("tokenizer_config.json", {"model_max_length": 7}),
    "no limit": ("tokenizer_config.json", {"model_max_length": None}),
    "ways to cut": (
        "tokenizer_config.json",
        {"max_length": 8, "stride": 0, "truncation_strategy": "longest_first", "pad_to_multiple_of": None},
    ),
    "cleaning": ("tokenizer_config.json", {"clean_up_tokenization_spaces": True, "do_basic_tokenize": True}),
    "no more tokens": ("tokenizer_config.json", {"additional_special_tokens": [], "extra_special_tokens": {}}),
    "padding": (
        "tokenizer.json",
        {
            "padding": {
                "strategy": {"Fixed": 16},
                "direction": "Right",
                "pad_to_multiple_of": 8,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "[PAD]",
            }
        },
    ),
    "cut": ("tokenizer.json", {"truncation": _CUT}),
}


_ALIKE_OF_MPNET: Changes = {
    "as transformers 5 saves it": (
        "tokenizer_config.json",
        {
            "backend": "tokenizers",
            "is_local": False,
            "max_length": 128,
            "model_max_length": 9,
            "name_or_path": None,
            "pad_to_multiple_of": NULL,
            "pad_token_type_id": 0,
            "padding_side": "right",
            "stride": 0,
            "truncation_side": "right",
            "truncation_strategy": "longest_first",
        },
    ),
    "around texts": ("tokenizer.json", {"post_processor": _AS_IN_ROBERTA}),
    "a broad mask": ("special_tokens_map.json", {"mask_token": {"content": "<mask>", "lstrip": True, **_MARKS}}),
    "a mask": ("special_tokens_map.json", {"mask_token": "<mask>", "bos_token": "<s>"}),
    "all tokens": ("tokenizer_config.json", {"added_tokens_decoder": _decoder("mpnet")}),
    "one that a normaliser sees": ("tokenizer.json", {"added_tokens/3/normalized": True}),
    "none that nothing uses": ("tokenizer.json", {"added_tokens/3": None}),
    "its older class": ("tokenizer_config.json", {"tokenizer_class": "MPNetTokenizerFast"}),
    "another decoder": ("tokenizer.json", {"decoder/cleanup": False}),
    "no class": (
        "tokenizer_config.json",
        {"tokenizer_class": "TokenizersBackend", "model_input_names": ["input_ids", "attention_mask"]},
    ),
    "cut": ("tokenizer.json", {"truncation": _CUT}),
}


_NO_CLASS = {"tokenizer_class": "PreTrainedTokenizerFast"}
_NO_CASE = {"do_lower_case": True, "tokenize_chinese_chars": True, "strip_accents": NULL}
_ALIKE_OF_XLM_ROBERTA: Changes = {
    "all tokens": ("tokenizer_config.json", {"added_tokens_decoder": _decoder("xlm-roberta")}),
    "its older class": ("tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizerFast"}),
    "no class": ("tokenizer_config.json", _NO_CLASS),
    "no class, with settings of BERT": ("tokenizer_config.json", {**_NO_CLASS, **_NO_CASE}),
    "settings of BERT": ("tokenizer_config.json", _NO_CASE),
    "a space before": ("tokenizer_config.json", {"add_prefix_space": True}),
    "a mask": ("tokenizer_config.json", {"mask_token": "<mask>"}),
    "its type": ("tokenizer.json", {"model/type": "Unigram", "model/byte_fallback": False}),
    "only the normalizer of SentencePiece": ("tokenizer.json", {"normalizer": PRECOMPILED}),
    "the same in a sequence": ("tokenizer.json", _before(PRECOMPILED)),
    "no normalizer": ("tokenizer.json", {"normalizer": NULL}),
    "as later versions write it": (
        "tokenizer.json",
        {
            **_before(
                PRECOMPILED,
                {"type": "Strip", "strip_left": False, "strip_right": True},
                {**_JOINED, "content": "▁"},
            ),
            "pre_tokenizer": _SPLIT,
            "decoder": _SPLIT,
        },
    ),
    "as version 5 writes it": ("tokenizer.json", _words({"type": "WhitespaceSplit"}, _SPLIT)),
    "cut": ("tokenizer.json", {"truncation": _CUT}),
}
_PAIRS = [pair.split() for pair in USUAL_CHECKPOINTS["roberta"].tokenizer()[0]["model"]["merges"]]
_ALIKE_OF_ROBERTA: Changes = {
    "all tokens": ("tokenizer_config.json", {"added_tokens_decoder": _decoder("roberta")}),
    "its older class": ("tokenizer_config.json", {"tokenizer_class": "RobertaTokenizerFast"}),
    "no class": ("tokenizer_config.json", _NO_CLASS),
    "little said": ("tokenizer_config.json", dict.fromkeys(("add_prefix_space", "errors", "trim_offsets"))),
    "tokens with marks": (
        "tokenizer_config.json",
        {"bos_token": {"content": "<s>", "lstrip": False, **_MARKS, "__type": "AddedToken"}},
    ),
    "a token that a normalizer sees": ("tokenizer.json", {"added_tokens/0/normalized": True}),
    "no type": ("tokenizer.json", dict.fromkeys(("model/type", "model/byte_fallback"))),
    "pairs": ("tokenizer.json", {"model/merges": _PAIRS, "model/ignore_merges": False}),
    "an older split": ("tokenizer.json", dict.fromkeys(("pre_tokenizer/use_regex", "decoder/use_regex"))),
    "another decoder": ("tokenizer.json", {"decoder/trim_offsets": False}),
}
_ALIKE_OF_DISTILBERT: Changes = {
    "its older class": ("tokenizer_config.json", {"tokenizer_class": "DistilBertTokenizerFast"}),
    "no class": ("tokenizer_config.json", {**_NO_CLASS, "model_input_names": ["input_ids", "attention_mask"]}),
    "no inputs": ("tokenizer_config.json", _NO_CLASS),
    "no type": ("tokenizer.json", {"model/type": None}),
    "what decides nothing": (
        "config.json",
        {"qa_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": False, "tie_weights_": True},
    ),
}

ALIKE: Mapping[str, Changes] = {
    "bert": _ALIKE_OF_BERT,
    "distilbert": _ALIKE_OF_DISTILBERT,
    "mpnet": _ALIKE_OF_MPNET,
    "multilingual bert": _ALIKE_OF_XLM_ROBERTA,
    "roberta": _ALIKE_OF_ROBERTA,
    "xlm-roberta": _ALIKE_OF_XLM_ROBERTA,
}
"""A usual checkpoint → changes that are known, too."""


@pytest.mark.parametrize(("name", "change"), [(name, change) for name in ALIKE for change in ALIKE[name]])
def test_known_settings(name: str, change: str, checkpoints: Mapping[str, Path], tmp_path: Path) -> None:
    """Settings that are known mean what they mean to transformers."""
    assert_alike(Path(shutil.copytree(checkpoints[name], tmp_path / "x")), *ALIKE[name][change])


@pytest.mark.parametrize("name", ["multilingual bert", "xlm-roberta"])
def test_before_pieces_were_sound(
    name: str, checkpoints: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a version of transformers that loses the normalizer, its own tokenizer is what there is."""
    for release, is_known in (("5.2.0", False), ("5.3.0", True), ("5.10.0rc1", True)):
        monkeypatch.setattr(unigram, "version", lambda _, release=release: release)

        assert (read_stand_in(checkpoints[name]) is not None) is is_known


@pytest.mark.parametrize(
    "settings",
    [
        {"lowercase": False, "strip_accents": None, "handle_chinese_chars": True},
        {"lowercase": True, "strip_accents": False, "handle_chinese_chars": False},
        {"lowercase": False, "strip_accents": True, "handle_chinese_chars": True},
    ],
)
@pytest.mark.parametrize("name", ["bert", "distilbert", "mpnet"])
def test_other_normalizers(
    name: str, settings: Mapping[str, Any], checkpoints: Mapping[str, Path], tmp_path: Path
) -> None:
    """With and without case, accents and Chinese words, where all files agree on it."""
    folder = Path(shutil.copytree(checkpoints[name], tmp_path / "x"))
    change(
        folder / "tokenizer.json",
        {f"normalizer/{name}": value for name, value in settings.items() if value is not None},
    )
    own = {"lowercase": "do_lower_case", "handle_chinese_chars": "tokenize_chinese_chars"}
    change(folder / "tokenizer_config.json", {own.get(name, name): value for name, value in settings.items()})
    transformer = Transformer(str(folder))
    assert is_deferred(transformer)
    before = transformer.tokenize(TEXTS)["input_ids"]

    assert transformer.tokenizer.backend_tokenizer.normalizer is not None
    assert torch.equal(transformer.tokenize(TEXTS)["input_ids"], before)
