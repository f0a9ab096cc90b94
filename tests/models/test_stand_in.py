"""What stands in for a checkpoint until somebody needs transformers."""

from __future__ import annotations

import copy
import io
import json
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import processors

from sentence_embedder import SentenceTransformer
from sentence_embedder.deferred import seen
from sentence_embedder.files import WeightsError
from sentence_embedder.fingerprint import fingerprint_of
from sentence_embedder.models import Transformer, deferred_checkpoint
from sentence_embedder.models.checkpoint import load_model, load_tokenizer
from sentence_embedder.models.stand_ins.model import StandInModel
from sentence_embedder.models.stand_ins.mpnet import MPNetConfig, MPNetStandIn
from sentence_embedder.models.stand_ins.stand_in import ARCHITECTURES, read_stand_in
from sentence_embedder.models.stand_ins.tokenizer import StandInTokenizer
from tests.minilm import minilm_folder
from tests.tiny_models import TINY_MODELS, write_transformer

NULL = "null"
TEXTS = [
    "the cat sat",
    "The red dog runs, in London!",
    "",
    "a [SEP] b <mask> </s>c",
    "naïve 東京 <unk> <UNK>",
]


_MPNET_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")


def _mpnet_tokenizer() -> tuple[Any, Any]:
    """As microsoft/mpnet-base has it: pieces of words as in BERT, special tokens as in RoBERTa."""
    tokenizer, _ = TINY_MODELS["bert"].tokenizer()
    words = [word for word in tokenizer["model"]["vocab"] if not word.startswith("[")]
    vocabulary = {word: place for place, word in enumerate([*_MPNET_TOKENS[:-1], *words, _MPNET_TOKENS[-1]])}
    marks = {"single_word": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["model"]["vocab"] = vocabulary
    tokenizer["added_tokens"] = [
        {"id": vocabulary[name], "content": name, "lstrip": name == "<mask>", **marks} for name in _MPNET_TOKENS
    ]
    tokenizer["post_processor"] = json.loads(
        processors.TemplateProcessing(
            single="<s>:0 $A:0 </s>:0",
            pair="<s>:0 $A:0 </s>:0 </s>:0 $B:1 </s>:1",
            special_tokens=[("<s>", 0), ("</s>", 2)],
        ).__getstate__()
    )
    roles = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "mask": "<mask>"}
    settings = {f"{role}_token": token for role, token in {**roles, "unk": "[UNK]"}.items()}
    known = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True, "name_or_path": "x"}
    return tokenizer, {**settings, **known, "model_max_length": 48, "tokenizer_class": "MPNetTokenizer"}


@pytest.fixture(scope="module")
def checkpoints(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Architecture → a tiny checkpoint of it."""
    mpnet = tmp_path_factory.mktemp("checkpoint") / "mpnet"
    write_transformer(mpnet, replace(TINY_MODELS["mpnet"], tokenizer=_mpnet_tokenizer))
    return {"bert": checkpoint, "mpnet": mpnet}


@pytest.fixture(params=sorted(ARCHITECTURES))
def folder(request: pytest.FixtureRequest, checkpoints: Mapping[str, Path], tmp_path: Path) -> Path:
    """A tiny model of each architecture, a test's own."""
    return Path(shutil.copytree(checkpoints[request.param], tmp_path / request.param))


@pytest.fixture
def bert(checkpoint: Path, tmp_path: Path) -> Path:
    """A tiny BERT, a test's own."""
    return Path(shutil.copytree(checkpoint, tmp_path / "bert"))


@pytest.fixture
def mpnet(checkpoints: Mapping[str, Path], tmp_path: Path) -> Path:
    """A tiny MPNet, a test's own."""
    return Path(shutil.copytree(checkpoints["mpnet"], tmp_path / "mpnet"))


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def both(request: pytest.FixtureRequest, checkpoints: Mapping[str, Path]) -> tuple[Transformer, Transformer]:
    """A tiny model of each architecture, deferred and loaded."""
    name = str(checkpoints[request.param])
    at_once = Transformer(name, max_seq_length=12)
    assert at_once.tokenizer.is_fast
    return Transformer(name, max_seq_length=12), at_once


def _is_deferred(transformer: Transformer) -> bool:
    return isinstance(transformer.model_seen, StandInModel) and type(transformer.tokenizer_seen) is StandInTokenizer


def _filed(model: Any) -> Any:
    """What ``torch.save`` and ``torch.load`` make of a model, as between the processes of a pool."""
    file = io.BytesIO()
    torch.save(model, file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=False)


def _in_inference_mode(folder: Path) -> SentenceTransformer:
    with torch.inference_mode():
        return SentenceTransformer(str(folder), device="cpu")


def _change(path: Path, changes: Mapping[str, Any]) -> None:
    """Give keys of a JSON file other values: None for none at all, NULL for null."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for dotted, value in changes.items():
        *parents, last = dotted.split("/")
        place = content
        for parent in parents:
            place = place[_key(place, parent)]
        key = _key(place, last)
        if value is None:
            if isinstance(place, list) or key in place:
                del place[key]
        else:
            place[key] = None if value == NULL else value
    path.write_text(json.dumps(content), encoding="utf-8")


def _key(place: Any, name: str) -> Any:
    return int(name) if isinstance(place, list) else name


class TestTheSame:
    """What is computed is what transformers computes, and what is loaded is what transformers loads."""

    @pytest.mark.parametrize("name", ["minilm", "mpnet"])
    def test_encode_needs_no_transformers(self, name: str, checkpoints: Mapping[str, Path]) -> None:
        """A process that loads a model and encodes does not import transformers, until it asks for the model."""
        folder, architecture = {
            "minilm": (minilm_folder(), "BertModel"),
            "mpnet": (checkpoints["mpnet"], "MPNetModel"),
        }[name]
        program = (
            "import sys\nfrom sentence_embedder import SentenceTransformer\n"
            f"model = SentenceTransformer({str(folder)!r}, device='cpu')\n"
            "model.eval().to('cpu').encode(['a text', 'another'], prompt='query: ')\n"
            f"assert {architecture!r} in repr(model)\n"
            "print('transformers' in sys.modules, type(model[0].auto_model).__name__)"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

        assert done.stdout.split() == ["False", architecture]

    def test_fingerprint(self, folder: Path) -> None:
        """What is told of it is the same before and after it is loaded, and nothing is loaded for that."""
        model = SentenceTransformer(str(folder), device="cpu")
        before = fingerprint_of(model), repr(model)

        assert _is_deferred(model[0])
        assert model.tokenizer.is_fast
        assert model[0].model_seen.architecture in repr(model[0].auto_model)
        assert (fingerprint_of(model), repr(model)) == before
        with torch.no_grad():
            next(model.parameters()).view(-1)[0] += 1
        assert fingerprint_of(model) != before[0]

    @pytest.mark.parametrize("place", ["its own", "removed", "changed", "added to"])
    def test_the_model_and_tokenizer_of_transformers(self, place: str, folder: Path) -> None:
        """What is loaded later is, to the last attribute, what transformers makes of the folder as it was, even if
        that is no longer there.
        """
        expected, words = load_model(str(folder), None, {}, {}), load_tokenizer(str(folder), None, {})
        transformer = Transformer(str(folder))
        assert _is_deferred(transformer)
        if place == "removed":
            shutil.rmtree(folder)
        elif place == "changed":
            _change(folder / "config.json", {"hidden_act": "relu"})
            _change(folder / "tokenizer_config.json", {"do_lower_case": False})
        elif place == "added to":
            _change(folder / "added_tokens.json", {"foo": 500})
            _change(folder / "processor_config.json", {"audio_tokenizer": {}})

        model, tokenizer = transformer.auto_model, transformer.tokenizer

        assert type(model) is type(expected)
        assert vars(model).keys() == vars(expected).keys()
        assert model.config.to_dict() == expected.config.to_dict()
        assert (model.name_or_path, model.config.name_or_path) == (str(folder), str(folder))
        assert not model.training
        own, others = model.state_dict(), expected.state_dict()
        assert list(own) == list(others)
        assert all(torch.equal(own[name], others[name]) for name in own)
        assert all(parameter.requires_grad for parameter in model.parameters())
        assert type(tokenizer) is type(words)
        assert tokenizer.backend_tokenizer.to_str() == words.backend_tokenizer.to_str()
        assert tokenizer.name_or_path == words.name_or_path
        assert str(tokenizer.init_kwargs) == str(words.init_kwargs)

    def test_the_weights_are_those_that_were_read(self, folder: Path) -> None:
        """Weights that are written anew, in place, change nothing of a model that has been loaded."""
        transformer = Transformer(str(folder))
        before = transformer.model_seen.embeddings.word_embeddings.weight.clone()
        weights = {name: tensor * 0 for name, tensor in load_file(folder / "model.safetensors").items()}
        content = folder / "zeros.safetensors"
        save_file(weights, content, metadata={"format": "pt"})

        with (folder / "model.safetensors").open("r+b") as file:
            file.write(content.read_bytes())

        assert torch.equal(transformer.auto_model.get_input_embeddings().weight, before)

    def test_its_own_forward_pass(self, folder: Path) -> None:
        """The stand-in computes what the model does, for texts of any length."""
        stand_in, model = read_stand_in(folder), load_model(str(folder), None, {}, {})
        assert stand_in is not None
        mask = (torch.arange(9) < torch.tensor([[9], [1], [5]])).long()
        ids = torch.arange(27).reshape(3, 9) % 40 * mask

        with torch.no_grad():
            (found,) = stand_in.model(input_ids=ids, attention_mask=mask)
            expected = model(input_ids=ids, attention_mask=mask)[0]

        assert torch.allclose(found[mask.bool()], expected[mask.bool()], atol=1e-5)

    @given(texts=st.lists(st.text(max_size=40), min_size=1, max_size=4))
    def test_tokens(self, both: tuple[Transformer, Transformer], texts: list[str]) -> None:
        """Any text, and any pair of texts, has the tokens that it has with the tokenizer of transformers."""
        deferred, at_once = both
        pairs = list(zip(texts, [*texts[1:], "x"], strict=True))

        assert str(deferred.tokenize([*texts, *pairs])) == str(at_once.tokenize([*texts, *pairs]))
        assert _is_deferred(deferred)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16", "auto"])
    def test_embeddings(self, dtype: str) -> None:
        """The real model makes the same embeddings before and after transformers has loaded it."""
        model: Any = SentenceTransformer(str(minilm_folder()), device="cpu", dtype=dtype)
        before = model.encode(TEXTS)
        assert _is_deferred(model[0])

        assert type(model[0].auto_model).__name__ == "BertModel"
        assert np.abs(model.encode(TEXTS) - before).max() <= (1e-6 if dtype == "float32" else 5e-3)

    def test_saved_again(self, folder: Path, tmp_path: Path) -> None:
        """What is saved of it stands in for it again, with the same embeddings."""
        model = SentenceTransformer(str(folder), device="cpu")
        before = model.encode(TEXTS)
        model.save(str(tmp_path / "saved"))
        again: Any = SentenceTransformer(str(tmp_path / "saved"), device="cpu")

        assert np.array_equal(again.encode(TEXTS), before)
        assert _is_deferred(again[0])

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), _filed])  # noqa: S301
    def test_copies(self, copied: Callable[[Any], Any], folder: Path) -> None:
        """A copy, or what was pickled, is deferred, too, and whole, wherever the folder is by then."""
        model: Any = SentenceTransformer(str(folder), device="cpu")
        before = model.encode(TEXTS)
        shutil.rmtree(folder)

        twin = copied(model)

        assert _is_deferred(twin[0])
        assert _is_deferred(model[0])
        assert np.allclose(twin.encode(TEXTS), before, atol=1e-6)
        assert twin.tokenizer("the cat")["input_ids"] == model.tokenizer("the cat")["input_ids"]

    def test_a_shallow_copy_shares_what_it_has(self, folder: Path) -> None:
        """Model and tokenizer of both are the same objects, whichever is looked at first."""
        transformer = Transformer(str(folder))

        twin = copy.copy(transformer)

        assert twin.auto_model is transformer.auto_model
        assert twin.tokenizer is transformer.tokenizer

    @pytest.mark.parametrize("made", [copy.deepcopy, _filed, lambda model: SentenceTransformer(modules=[*model])])
    def test_made_in_inference_mode(self, made: Callable[[Any], Any], folder: Path) -> None:
        """The weights of a model that is copied, or read, in inference mode can be trained later."""
        model = SentenceTransformer(str(folder), device="cpu")
        with ThreadPoolExecutor(1) as thread, torch.inference_mode():
            twin = made(model)
            inside = thread.submit(_in_inference_mode, folder).result()

        for one in (twin, inside):
            assert all(weight.requires_grad and not weight.is_inference() for weight in one.parameters())

    def test_threads_get_one_tokenizer(self, folder: Path) -> None:
        """What one thread adds to the tokenizer, all have."""
        transformer = Transformer(str(folder))
        barrier = threading.Barrier(4)

        def tokenizer(_: int) -> Any:
            barrier.wait()
            return transformer.tokenizer

        with ThreadPoolExecutor(4) as threads:
            assert len({id(found) for found in threads.map(tokenizer, range(4))}) == 1

    def test_children(self, folder: Path) -> None:
        """The model is found among the children by its class, at the first look."""
        (child,) = Transformer(str(folder)).children()
        ((name, named),) = Transformer(str(folder)).named_children()

        assert type(child) is type(named)
        assert type(child).__module__.startswith("transformers.models.")
        assert name == "auto_model"

    def test_its_name_is_as_it_was_given(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Spelt as the caller spelt it."""
        monkeypatch.chdir(folder.parent)
        name = f"./{folder.name}/"
        transformer = Transformer(name)

        assert transformer.auto_model.name_or_path == transformer.tokenizer.name_or_path == name
        assert transformer.auto_model.config.name_or_path == name

    def test_an_error_while_it_is_loaded_is_told(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What goes wrong inside transformers is not taken for an attribute that is not there."""

        def fails(*_: Any) -> Any:
            raise AttributeError("no such thing in transformers")

        monkeypatch.setattr(deferred_checkpoint, "load_model", fails)
        monkeypatch.setattr(deferred_checkpoint, "load_tokenizer", fails)
        transformer = Transformer(str(folder))

        for ask in (
            lambda: transformer.auto_model,
            lambda: transformer.tokenizer,
            lambda: [*transformer.parameters()],
        ):
            with pytest.raises(RuntimeError, match="no such thing in transformers"):
                ask()

    def test_without_a_model(self, folder: Path) -> None:
        """Whoever takes the model out has none."""
        transformer = Transformer(str(folder))

        del transformer.auto_model

        assert not hasattr(transformer, "auto_model")

    def test_what_is_changed_is_computed(self, folder: Path) -> None:
        """Weights and tokenizer that somebody changes are those that encode uses from then on."""
        model: Any = SentenceTransformer(str(folder), device="cpu")
        before = model.encode(TEXTS)

        with torch.no_grad():
            next(model.parameters()).mul_(2)
        changed = model.encode(TEXTS)
        model.tokenizer.add_tokens(["sat"])

        assert not np.allclose(changed, before, atol=1e-3)
        assert len(model[0].tokenize(["sat"])["input_ids"][0]) == 3
        assert np.allclose(model.encode(TEXTS), model[0:2].encode(TEXTS), atol=1e-6)

    def test_other_ways_than_the_lean_one(self, folder: Path) -> None:
        """Whoever turns acceleration off, trains, or listens to the model, has the model of transformers."""
        expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
        plain: Any = SentenceTransformer(str(folder), device="cpu", acceleration=False)
        assert np.allclose(plain.encode(TEXTS), expected, atol=1e-5)
        assert not isinstance(seen(plain[0]._modules["auto_model"]), StandInModel)
        called: list[int] = []
        model: Any = SentenceTransformer(str(folder), device="cpu")
        model[0].auto_model.register_forward_hook(lambda *_: called.append(1))

        assert np.allclose(model.encode(TEXTS), expected, atol=1e-5)
        assert called


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

UNKNOWN: dict[str, tuple[str, Mapping[str, Any]]] = {
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
UNKNOWN_OF_MPNET: dict[str, tuple[str, Mapping[str, Any]]] = {
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
    "another decoder": ("tokenizer.json", {"decoder/cleanup": False}),
    "nothing to fill with": (
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_input_names": ["input_ids", "attention_mask"],
            "pad_token": None,
        },
    ),
}


def _assert_unknown(folder: Path, name: str, changes: Mapping[str, Any]) -> None:
    assert read_stand_in(folder) is not None

    _change(folder / name, changes)

    assert read_stand_in(folder) is None


class TestUnknown:
    """What is not known is loaded by transformers at once."""

    @pytest.mark.parametrize("change", UNKNOWN_OF_MPNET)
    def test_there_is_no_stand_in_for_an_mpnet(self, change: str, mpnet: Path) -> None:
        """Nor has one an MPNet with anything that is not known."""
        _assert_unknown(mpnet, *UNKNOWN_OF_MPNET[change])

    @pytest.mark.parametrize("place", range(len(_MPNET_TOKENS)))
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

    @pytest.mark.parametrize("change", UNKNOWN)
    def test_there_is_no_stand_in(self, change: str, bert: Path) -> None:
        """A checkpoint with anything that is not known, or files that contradict each other, has no stand-in."""
        _assert_unknown(bert, *UNKNOWN[change])

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

    def test_arguments(self, folder: Path) -> None:
        """Arguments for transformers are for transformers."""
        for arguments in (
            {"model_args": {"attn_implementation": "eager"}},
            {"tokenizer_args": {"padding_side": "left"}},
            {"config_args": {"hidden_dropout_prob": 0.5}},
            {"model_args": {"dtype": torch.float16}},
        ):
            assert not _is_deferred(Transformer(str(folder), **arguments))
        assert _is_deferred(Transformer(str(folder), model_args={"trust_remote_code": False}))

    @pytest.mark.parametrize("damage", ["cut", "missing", "extra", "shape", "whole numbers"])
    def test_weights_that_do_not_fit(self, damage: str, bert: Path) -> None:
        """They are an error when the model is made, as ever, not when somebody looks at it."""
        path = bert / "model.safetensors"
        weights = load_file(path)
        name = "encoder.layer.0.output.dense.weight"
        if damage == "missing":
            del weights[name]
        elif damage == "extra":
            weights["encoder.layer.0.extra.weight"] = torch.zeros(1)
        elif damage == "shape":
            weights[name] = torch.zeros(3, 3)
        elif damage == "whole numbers":
            weights[name] = weights[name].to(torch.int32)
        weights = {key: tensor.clone() for key, tensor in weights.items()}
        save_file(weights, path, metadata={"format": "pt"})
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-100])

        assert read_stand_in(bert) is None
        if damage != "whole numbers":
            with pytest.raises(WeightsError):
                Transformer(str(bert))


ALIKE: dict[str, tuple[str, Mapping[str, Any]]] = {
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
    "cut": (
        "tokenizer.json",
        {"truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}},
    ),
}


ALIKE_OF_MPNET: dict[str, tuple[str, Mapping[str, Any]]] = {
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
    "a token that nothing uses": ("tokenizer_config.json", {"added_tokens_decoder": {"3": _UNUSED}}),
    "one that a normaliser sees": ("tokenizer.json", {"added_tokens/3/normalized": True}),
    "none that nothing uses": ("tokenizer.json", {"added_tokens/3": None}),
    "its older class": ("tokenizer_config.json", {"tokenizer_class": "MPNetTokenizerFast"}),
    "no class": (
        "tokenizer_config.json",
        {"tokenizer_class": "TokenizersBackend", "model_input_names": ["input_ids", "attention_mask"]},
    ),
    "cut": (
        "tokenizer.json",
        {"truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}},
    ),
}


@pytest.mark.parametrize("change", ALIKE_OF_MPNET)
def test_known_settings_of_an_mpnet(change: str, mpnet: Path) -> None:
    """So do those of an MPNet."""
    _assert_alike(mpnet, *ALIKE_OF_MPNET[change])


@pytest.mark.parametrize("change", ALIKE)
def test_known_settings(change: str, bert: Path) -> None:
    """Settings that are known mean what they mean to transformers."""
    _assert_alike(bert, *ALIKE[change])


def _assert_alike(folder: Path, name: str, changes: Mapping[str, Any]) -> None:
    _change(folder / name, changes)
    transformer = Transformer(str(folder))
    assert _is_deferred(transformer)
    stand_in = transformer.tokenizer_seen
    before = _told(transformer)

    transformer.tokenizer  # noqa: B018  # it is loaded
    after = _told(transformer)

    assert not _is_deferred(transformer)
    assert after == before
    assert transformer.tokenizer_seen.model_max_length == stand_in.model_max_length
    assert transformer.tokenizer_seen.backend_tokenizer.to_str() == stand_in.backend_tokenizer.to_str()


def _told(transformer: Transformer) -> str:
    """All that a tokenizer decides."""
    tokens = transformer.tokenize([*TEXTS, (TEXTS[0], TEXTS[1])])
    counts = transformer.count_tokens(TEXTS), transformer.prompt_length("the cat "), transformer.max_seq_length
    return str((tokens, counts, transformer.token_offsets(TEXTS[3])))


@pytest.mark.parametrize("table", ["word", "position"])
def test_an_mpnet_without_a_row_for_padding(table: str, mpnet: Path) -> None:
    """It is an error of transformers."""
    size = {"word": "vocab_size", "position": "max_position_embeddings"}[table]
    _change(mpnet / "config.json", {size: 1, "pad_token_id": 0})
    weights = load_file(mpnet / "model.safetensors")
    name = f"embeddings.{table}_embeddings.weight"
    save_file({**weights, name: weights[name][:1].clone()}, mpnet / "model.safetensors", metadata={"format": "pt"})

    assert read_stand_in(mpnet) is None
    with pytest.raises(AssertionError):
        Transformer(str(mpnet))


@pytest.mark.parametrize(
    "settings",
    [
        {"lowercase": False, "strip_accents": None, "handle_chinese_chars": True},
        {"lowercase": True, "strip_accents": False, "handle_chinese_chars": False},
        {"lowercase": False, "strip_accents": True, "handle_chinese_chars": True},
    ],
)
def test_other_normalizers(settings: Mapping[str, Any], folder: Path) -> None:
    """With and without case, accents and Chinese words, where all files agree on it."""
    _change(
        folder / "tokenizer.json",
        {f"normalizer/{name}": value for name, value in settings.items() if value is not None},
    )
    own = {"lowercase": "do_lower_case", "handle_chinese_chars": "tokenize_chinese_chars"}
    _change(folder / "tokenizer_config.json", {own.get(name, name): value for name, value in settings.items()})
    transformer = Transformer(str(folder))
    assert _is_deferred(transformer)
    before = transformer.tokenize(TEXTS)["input_ids"]

    assert transformer.tokenizer.backend_tokenizer.normalizer is not None
    assert torch.equal(transformer.tokenize(TEXTS)["input_ids"], before)


def test_distances() -> None:
    """An MPNet adds to scores what transformers adds, however far tokens are apart."""
    config = transformers.MPNetConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = transformers.MPNetModel(config)
    encoder = MPNetStandIn(
        MPNetConfig(**{field.name: getattr(config, field.name) for field in fields(MPNetConfig)})
    )
    encoder.load_state_dict(model.state_dict())
    texts = torch.empty(1, 600, 0)

    with torch.no_grad():
        found, expected = (one.encoder.compute_position_bias(texts) for one in (encoder, model))

    assert torch.equal(found, expected)
