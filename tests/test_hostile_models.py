"""Hostile models: whatever a stranger's folder says, nothing is run, imported or written; the error is clear."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sentence_embedder import SentenceTransformer
from sentence_embedder.models import Pooling, Router
from tests.tiny_chains import CHAINS, Folders

TEXTS = ["the cat sat on the mat", "hello world"]

Attack = Callable[[Path], None]
"""What is done to a model folder."""


class Bomb:
    """What leaves a file behind if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (os.system, (f"touch {self.path}",))


def _says(name: str, /, **settings: Any) -> Attack:
    """A JSON file in which some keys have other values; one of modules.json by ``row=``."""

    def attack(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        target = content[settings["row"]] if "row" in settings else content
        target.update({key: value for key, value in settings.items() if key != "row"})
        (folder / name).write_text(json.dumps(content))

    return attack


def _holds(name: str, content: bytes | str | Any) -> Attack:
    """A file with this content: bytes, or what becomes JSON."""
    return lambda folder: _write(
        folder / name, content if isinstance(content, bytes) else json.dumps(content).encode()
    )


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def _lacks(name: str) -> Attack:
    return lambda folder: (folder / name).unlink()


def _huge(name: str) -> Attack:
    """A hundred megabytes, which take no place on the disk."""

    def attack(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(100 * 2**20)

    return attack


def _cut(name: str, size: int) -> Attack:
    return lambda folder: _write(folder / name, (folder / name).read_bytes()[:size])


def _tensors(name: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Attack:
    """Weights that are others."""

    def attack(folder: Path) -> None:
        changed = change(load_file(folder / name))
        save_file({key: tensor.clone() for key, tensor in changed.items()}, folder / name)

    return attack


def _pickled(folder_name: str, make: Callable[[Path], Any]) -> Attack:
    """A pickle in place of safetensors."""

    def attack(folder: Path) -> None:
        (folder / folder_name / "model.safetensors").unlink()
        torch.save(make(folder.parent / "ran"), folder / folder_name / "pytorch_model.bin")

    return attack


def _bare_pickle(folder_name: str) -> Attack:
    """The oldest form of a pickle, without torch around it."""

    def attack(folder: Path) -> None:
        (folder / folder_name / "model.safetensors").unlink()
        content = pickle.dumps({"linear.weight": Bomb(folder.parent / "ran")}, protocol=2)
        (folder / folder_name / "pytorch_model.bin").write_bytes(content)

    return attack


def _sharded(part: Any) -> Attack:
    """Weights in several files, one of which lies elsewhere."""

    def attack(folder: Path) -> None:
        names = load_file(folder / "model.safetensors")
        shutil.move(folder / "model.safetensors", folder.parent / "elsewhere.safetensors")
        index = {"metadata": {}, "weight_map": dict.fromkeys(names, part)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return attack


def _own_code(name: str, /, **settings: Any) -> Attack:
    """Settings that name code in the folder, which would leave a file behind."""

    def attack(folder: Path) -> None:
        (folder / "code_of_theirs.py").write_text(
            f"from pathlib import Path\nPath({str(folder.parent / 'ran')!r}).touch()\n"
            "class Model: pass\nclass Config: pass\nclass Tokenizer: pass\n"
        )
        _says(name, **settings)(folder)

    return attack


_AUTO_MAP = {
    "AutoConfig": "code_of_theirs.Config",
    "AutoModel": "code_of_theirs.Model",
    "AutoTokenizer": ["code_of_theirs.Tokenizer", "code_of_theirs.Tokenizer"],
}
_DEEP = b"[" * 200_000
_CHAIN_CONFIG = "config_sentence_transformers.json"
_BERT_CONFIG = "sentence_bert_config.json"
_DENSE_WEIGHTS = "2_Dense/model.safetensors"

OF_CHAIN: Mapping[str, Attack] = {
    # Classes.
    **{
        f"class {name}": _says("modules.json", row=1, type=name)
        for name in (
            "os.system",
            "posix.system",
            "subprocess.Popen",
            "builtins.eval",
            "importlib.import_module",
            "code_of_theirs.Model",
            "sentence_transformers.util.import_from_string",
            "sentence_transformers.models.Pooling.os.system",
            "sentence_embedder.hub.locate",
            "__main__.Pooling",
            "os",
            "",
            ".",
            "a..b",
        )
    },
    "class of no text": _says("modules.json", row=1, type=["os.system"]),
    # Settings of another kind.
    **{
        f"{key} {value!r}": _says("config.json", **{key: value})
        for key, value in (
            *(("use_cache", "yes"), ("layer_norm_eps", "1e-12"), ("hidden_act", 1), ("is_decoder", 3)),
            *(("num_attention_heads", 0), ("pad_token_id", 2**40), ("id2label", [1])),
        )
    },
    **{
        f"a length of {length}": _says("sentence_bert_config.json", max_seq_length=length)
        for length in (-1, 0, 10**60, "12")
    },
    # Paths.
    **{
        f"path {path!r}": _says("modules.json", row=1, path=path)
        for path in ("../other", "..", "/etc", "a/../../b", "C:\\x", "\\\\server\\share", "1_Pooling/..", "a\0b")
    },
    "path of no text": _says("modules.json", row=1, path=7),
    "path to nowhere": _says("modules.json", row=1, path="9_Nowhere"),
    # modules.json as a whole.
    "modules as an object": _holds("modules.json", {"0": {}}),
    "modules as texts": _holds("modules.json", ["sentence_transformers.models.Pooling"]),
    "modules without keys": _holds("modules.json", [{}]),
    "modules with the same name": _says("modules.json", row=1, name="0"),
    "a name with dots": _says("modules.json", row=1, name="a.b"),
    "too many modules": _holds("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "x"}] * 2_000),
    "arguments of no list": _says("modules.json", row=1, kwargs="task"),
    "deep modules": _holds("modules.json", _DEEP),
    "huge modules": _huge("modules.json"),
    "modules of no UTF-8": _holds("modules.json", b"\xff\xfe\x00"),
    "modules of no JSON": _holds("modules.json", b"{'a': __import__('os')}"),
    # Settings of the model.
    "prompts as a list": _says(_CHAIN_CONFIG, prompts=["query: "]),
    "a prompt of no text": _says(_CHAIN_CONFIG, prompts={"query": 3}),
    "default prompt of no text": _says(_CHAIN_CONFIG, default_prompt_name={"a": 1}),
    "default prompt of no prompt": _says(_CHAIN_CONFIG, default_prompt_name="missing"),
    "dimension of no number": _says(_CHAIN_CONFIG, truncate_dim="many"),
    "similarity of no text": _says(_CHAIN_CONFIG, similarity_fn_name=["cosine"]),
    "another family": _says(_CHAIN_CONFIG, model_type="SparseEncoder"),
    "settings as a list": _holds(_CHAIN_CONFIG, []),
    "deep settings": _holds(_CHAIN_CONFIG, b'{"a":' * 200_000),
    "huge settings": _huge(_CHAIN_CONFIG),
    # Settings of the Transformer.
    "limit of no number": _says(_BERT_CONFIG, max_seq_length="512"),
    "case of no truth": _says(_BERT_CONFIG, do_lower_case="yes"),
    "arguments as a list": _says(_BERT_CONFIG, model_args=["trust_remote_code"]),
    "tokenizer of no text": _says(_BERT_CONFIG, tokenizer_name_or_path=3),
    "settings of the transformer as a text": _holds(_BERT_CONFIG, "max_seq_length"),
    # The checkpoint.
    "no configuration": _lacks("config.json"),
    "configuration as a list": _holds("config.json", []),
    "deep configuration": _holds("config.json", _DEEP),
    "huge configuration": _huge("config.json"),
    "architecture of no text": _says("config.json", model_type=["bert"]),
    "architecture of no library": _own_code("config.json", model_type="theirs", auto_map=_AUTO_MAP),
    "width beyond reason": _says("config.json", hidden_size=10**12),
    "width of no number": _says("config.json", hidden_size="32"),
    "layers beyond reason": _says("config.json", num_hidden_layers=10**9),
    "vocabulary beyond reason": _says("config.json", vocab_size=10**12),
    "vocabulary below nothing": _says("config.json", vocab_size=-5),
    "places beyond reason": _says("config.json", max_position_embeddings=10**15),
    "a configuration inside beyond reason": _says("config.json", text_config={"num_hidden_layers": 10**9}),
    "layers by another file": _says(_BERT_CONFIG, config_args={"num_hidden_layers": 10**7}),
    "a second model": _holds("processor_config.json", {"audio_tokenizer": {"audio_tokenizer_name_or_path": "x/y"}}),
    "a second model in a file": _holds("audio_tokenizer_config.json", {"audio_tokenizer_name_or_path": "x/y"}),
    "another width": _says("config.json", hidden_size=64),
    "heads that do not divide": _says("config.json", num_attention_heads=5),
    "activation of no library": _says("config.json", hidden_act="os.system"),
    "weights cut": _cut("model.safetensors", 5_000),
    "weights empty": _holds("model.safetensors", b""),
    "weights with a huge header": _holds("model.safetensors", b"\xff" * 64),
    "weights of others": _tensors(
        "model.safetensors", lambda tensors: {f"x.{key}": tensors[key] for key in tensors}
    ),
    "weights missing": _tensors("model.safetensors", lambda tensors: dict(list(tensors.items())[3:])),
    "weights unknown": _tensors("model.safetensors", lambda tensors: {**tensors, "own": torch.ones(2)}),
    "no weights": _lacks("model.safetensors"),
    "a bomb for weights": _pickled("", lambda ran: {"embeddings.word_embeddings.weight": Bomb(ran)}),
    "a part of the weights above": _sharded("../elsewhere.safetensors"),
    "a part of the weights at the root": _sharded("/etc/passwd"),
    "a part of the weights of no text": _sharded(3),
    "a part of the weights nowhere": _sharded("nowhere.safetensors"),
    "tokenizer of noise": _holds("tokenizer.json", b"\x00\x01\x02"),
    "tokenizer as a list": _holds("tokenizer.json", []),
    "deep tokenizer": _holds("tokenizer.json", _DEEP),
    "settings of the tokenizer as a list": _holds("tokenizer_config.json", [1]),
    "adapter of nothing": _holds(
        "adapter_config.json", {"base_model_name_or_path": "/nowhere", "peft_type": "LORA"}
    ),
    "adapter as a list": _holds("adapter_config.json", []),
    # Pooling.
    "mode of no table": _holds(
        "1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode": "os.system"}
    ),
    "mode of no text": _holds("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode": 3}),
    "tokens of no width": _says("1_Pooling/config.json", word_embedding_dimension="32"),
    "tokens beyond reason": _says("1_Pooling/config.json", word_embedding_dimension=10**12),
    "tokens of truth": _says("1_Pooling/config.json", word_embedding_dimension=True),
    "no tokens": _says("1_Pooling/config.json", word_embedding_dimension=0),
    # Dense and the rest.
    **{
        f"activation {name}": _says("2_Dense/config.json", activation_function=name)
        for name in (
            "subprocess.Popen",
            "os.system",
            "torch.load",
            "torch.hub.load",
            "torch.nn.modules.activation.MultiheadAttention",
            "torch.nn.modules.container.Sequential",
        )
    },
    "activation of no text": _says("2_Dense/config.json", activation_function={"os": "system"}),
    "dense beyond reason": _says("2_Dense/config.json", in_features=10**12),
    "dense of another width": _says("2_Dense/config.json", in_features=63),
    "bias of no truth": _says("2_Dense/config.json", bias="yes"),
    "feature of no text": _says("2_Dense/config.json", module_input_name=3),
    "dense cut": _cut(_DENSE_WEIGHTS, 300),
    "dense of no file": _holds(_DENSE_WEIGHTS, b""),
    "dense of another shape": _tensors(_DENSE_WEIGHTS, lambda t: {k: t[k][:3] for k in t}),
    "dense of other names": _tensors(_DENSE_WEIGHTS, lambda t: {f"x{k}": t[k] for k in t}),
    "dense of whole numbers": _tensors(_DENSE_WEIGHTS, lambda t: {k: t[k].long() for k in t}),
    "dense without weights": _lacks(_DENSE_WEIGHTS),
    "a bomb for a dense": _pickled("2_Dense", lambda ran: {"linear.weight": Bomb(ran)}),
    "a bare bomb for a dense": _bare_pickle("2_Dense"),
    "a dense of texts": _pickled("2_Dense", lambda _: {"linear.weight": "tensor"}),
    "a dense that is a list": _pickled("2_Dense", lambda _: [torch.ones(2)]),
    "norm of no width": _says("3_LayerNorm/config.json", dimension=0),
    "dropout beyond all": _says("4_Dropout/config.json", dropout=7),
    "dropout of no number": _says("4_Dropout/config.json", dropout="half"),
}
"""Attack → what it does to a chain of a Transformer, Pooling, Dense, LayerNorm, Dropout and Normalize."""

_WORDS_CONFIG = "0_WordEmbeddings/wordembedding_config.json"
_VOCABULARY = "0_WordEmbeddings/whitespacetokenizer_config.json"

OF_WORDS: Mapping[str, Attack] = {
    "tokenizer class os.system": _says(_WORDS_CONFIG, tokenizer_class="os.system"),
    "tokenizer class of no text": _says(_WORDS_CONFIG, tokenizer_class=3),
    "update of no truth": _says(_WORDS_CONFIG, update_embeddings="no"),
    "limit of no number": _says(_WORDS_CONFIG, max_seq_length="all"),
    "words of no text": _says(_VOCABULARY, vocab=[1, 2, 3]),
    "words as an object": _says(_VOCABULARY, vocab={"a": 1}),
    "more words than rows": _says(_VOCABULARY, vocab=[str(number) for number in range(100)]),
    "a bomb for words": _pickled("0_WordEmbeddings", lambda ran: {"emb_layer.weight": Bomb(ran)}),
}
"""Attack → what it does to a chain of WordEmbeddings and Pooling."""

_ROUTER_CONFIG = "0_Router/router_config.json"


def _routed(**settings: Any) -> Attack:
    return _says(_ROUTER_CONFIG, **settings)


def _renamed(path: str) -> Attack:
    """A router, the modules of which all lie in this folder."""

    def attack(folder: Path) -> None:
        config = json.loads((folder / _ROUTER_CONFIG).read_text())
        kind = next(iter(config["types"].values()))
        changed = {**config, "types": {path: kind}, "structure": {"query": [path], "document": [path]}}
        (folder / _ROUTER_CONFIG).write_text(json.dumps(changed))

    return attack


def _within_itself(folder: Path) -> None:
    """A router that is a part of itself."""
    _renamed(".")(folder)
    _says(_ROUTER_CONFIG, types={".": "sentence_transformers.models.Router"})(folder)


def _nested(folder: Path) -> None:
    """Routers within routers."""
    inside = folder / "0_Router"
    config = {"types": {"a": "sentence_transformers.models.Router"}, "structure": {"query": ["a"]}}
    for _ in range(20):
        (inside / "router_config.json").write_text(json.dumps(config))
        inside = inside / "a"
        inside.mkdir()


def _spelt_twice(folder: Path) -> None:
    """The same folder under two names, each of which would be loaded."""
    names = ["a", "./a"]
    config = {
        "types": dict.fromkeys(names, "sentence_transformers.models.Normalize"),
        "structure": {"query": names},
    }
    (folder / _ROUTER_CONFIG).write_text(json.dumps(config))


OF_ROUTER: Mapping[str, Attack] = {
    "deep routers": _nested,
    "a folder with two names": _spelt_twice,
    "a mapping with a set": _routed(parameters={"route_mappings": {"({[]}, None)": "query"}}),
    "class os.system": _routed(types={"x": "os.system"}, structure={"query": ["x"], "document": ["x"]}),
    "folder above": _renamed("../../other"),
    "folder at the root": _renamed("/etc"),
    "folder nowhere": _renamed("nowhere"),
    "within itself": _within_itself,
    "types as a list": _routed(types=["os.system"]),
    "structure as a list": _routed(structure=[]),
    "structure of nothing": _routed(structure={}),
    "structure of unknown names": _routed(structure={"query": ["missing"]}),
    "unknown default": _routed(parameters={"default_route": "missing"}),
    "mappings that are code": _routed(
        parameters={"route_mappings": {"(__import__('os').system('true'), None)": "query"}}
    ),
    "mappings of nothing": _routed(parameters={"route_mappings": {"": "query"}}),
    "deep mappings": _routed(parameters={"route_mappings": {"(" * 50_000: "query"}}),
    "parameters as a text": _routed(parameters="default_route"),
    "a route that is a method": _routed(structure={"pop": [], "query": []}),
}
"""Attack → what it does to a Router of a StaticEmbedding and a Transformer."""


@pytest.fixture(scope="module")
def saved(tiny_checkpoints: Folders, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Name of a chain → a folder in which it was saved."""
    root = tmp_path_factory.mktemp("saved")
    for name in ("tail", "words", "router"):
        SentenceTransformer(modules=CHAINS[name].modules(tiny_checkpoints), device="cpu").save(root / name)
    return {name: root / name for name in ("tail", "words", "router")}


_ATTACKS = [
    pytest.param(chain, attack, id=f"{chain}: {name}".replace("\0", "0"))
    for chain, attacks in (("tail", OF_CHAIN), ("words", OF_WORDS), ("router", OF_ROUTER))
    for name, attack in attacks.items()
]


@pytest.mark.parametrize(("chain", "attack"), _ATTACKS)
def test_it_is_refused(chain: str, attack: Attack, saved: Mapping[str, Path], tmp_path: Path) -> None:
    """The error says which file or folder it is about; nothing was run, nothing of theirs imported or written."""
    folder = Path(shutil.copytree(saved[chain], tmp_path / "model"))
    attack(folder)
    before = _files(tmp_path)
    imported = set(sys.modules)

    with pytest.raises((ValueError, OSError, ImportError)) as caught:
        SentenceTransformer(str(folder), device="cpu")

    assert str(folder) in str(caught.value) or "default_prompt_name" in str(caught.value)
    assert len(str(caught.value)) < 3_000
    assert not (tmp_path / "ran").exists()
    assert _files(tmp_path) == before
    assert not any("theirs" in name for name in sys.modules.keys() - imported)


def _files(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_size for path in folder.rglob("*")}


def test_there_are_many() -> None:
    """At least sixty ways to be hostile are tried."""
    assert len(_ATTACKS) >= 60


INERT: Mapping[str, Attack] = {
    "code for the model": _own_code("config.json", auto_map=_AUTO_MAP),
    "code for the tokenizer": _own_code("tokenizer_config.json", auto_map=_AUTO_MAP),
    "attention from the Hub": _says("config.json", _attn_implementation="strangers/kernel"),
    "attention inside": _says("config.json", _attn_implementation_internal="strangers/kernel"),
    "trust in itself": _own_code(
        _BERT_CONFIG,
        **{name: {"trust_remote_code": True} for name in ("model_args", "tokenizer_args", "config_args")},
    ),
    "what to fetch": _says(_BERT_CONFIG, model_args={"revision": "x", "cache_dir": "/nowhere", "gguf_file": "x"}),
    "where to write": _says(_BERT_CONFIG, model_args={"offload_folder": "/nowhere", "device_map": "auto"}),
}
"""Attack → what it does to a chain that is loaded all the same, as if nothing had been said."""


@pytest.mark.parametrize("name", INERT)
def test_it_decides_nothing(name: str, saved: Mapping[str, Path], tmp_path: Path, no_network: list[Any]) -> None:
    """What would fetch, run or write something is taken from the caller alone: the vectors are the same."""
    folder = Path(shutil.copytree(saved["tail"], tmp_path / "model"))
    expected = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    INERT[name](folder)
    before = _files(tmp_path)

    found = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)

    np.testing.assert_array_equal(found, expected)
    assert not (tmp_path / "ran").exists()
    assert _files(tmp_path) == before
    assert no_network == []


def test_links_of_the_users_own(saved: Mapping[str, Path], tmp_path: Path) -> None:
    """Links in a folder are the user's, as those in the Hub's cache are its own: they are followed."""
    folder = Path(shutil.copytree(saved["tail"], tmp_path / "model"))
    shutil.move(folder / "2_Dense", tmp_path / "dense")
    (folder / "2_Dense").symlink_to(tmp_path / "dense")
    shutil.move(folder / "model.safetensors", tmp_path / "blob")
    (folder / "model.safetensors").symlink_to(Path("..") / "blob")

    found = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)

    np.testing.assert_array_equal(found, SentenceTransformer(str(saved["tail"]), device="cpu").encode(TEXTS))


def test_a_router_in_memory_has_names_that_are_possible() -> None:
    """A route that would hide a method of the modules is refused."""
    with pytest.raises(ValueError, match="another name for a route"):
        Router({"pop": [Pooling(4)]})
