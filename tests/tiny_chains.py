"""Small models of every module, made in memory: the same numbers on every machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sentence_embedder.models import (
    CNN,
    LSTM,
    Asym,
    BoW,
    CLIPModel,
    Dense,
    Dropout,
    LayerNorm,
    Normalize,
    Pooling,
    Router,
    StaticEmbedding,
    Transformer,
    WeightedLayerPooling,
    WordEmbeddings,
    WordWeights,
)
from sentence_embedder.models.tokenizer import PhraseTokenizer, WhitespaceTokenizer

Folders = Mapping[str, Path]
"""Name of a checkpoint of transformers → its folder."""

TEXTS = (
    "The cat sat on the mat.",
    "hello world",
    "two vectors in Paris",
    "the the the quick dog",
    "New York, hello",
)
QUERIES = tuple({"query": text} for text in TEXTS)
DOCUMENTS = tuple({"document": text} for text in TEXTS)
IMAGES = ("the cat", "image:1", "hello world", "image:2")
"""Texts, and names of images; see ``as_item`` of ``tests.reference.cases``."""

WORDS = (
    "PADDING_TOKEN",
    "the",
    "cat",
    "sat",
    "mat",
    "hello",
    "world",
    "Paris",
    "two",
    "vectors",
    "dog",
    "New_York",
)
_WIDTH = 32


@dataclass(frozen=True)
class TinyChain:
    """A model, and who reads it.

    Args:
        modules: Checkpoints → its modules.
        items: What to embed.
        versions: The versions of sentence-transformers that know its modules.
        is_shuffled: Whether 2.7 puts the dimensions into an order of its own.
    """

    modules: Callable[[Folders], Sequence[nn.Module]]
    items: Sequence[Any] = TEXTS
    versions: Sequence[str] = ("2.7", "6.2")
    is_shuffled: bool = False


def _filled(module: nn.Module) -> Any:
    """The module, its weights drawn anew, always the same."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return module


def _words() -> WordEmbeddings:
    tokenizer = WhitespaceTokenizer(WORDS, stop_words=["in"])
    return _filled(WordEmbeddings(tokenizer, torch.zeros(len(WORDS), 16)))  # type: ignore[no-any-return]


def _phrases() -> WordEmbeddings:
    words = [word.lower() for word in WORDS]
    return _filled(WordEmbeddings(PhraseTokenizer(words, stop_words=[]), torch.zeros(len(words), 16)))  # type: ignore[no-any-return]


def _static(folders: Folders) -> StaticEmbedding:
    tokenizer = Transformer(str(folders["bert"])).tokenizer
    return _filled(StaticEmbedding(tokenizer, embedding_dim=_WIDTH))  # type: ignore[no-any-return]


def _bert(folders: Folders, **arguments: Any) -> Transformer:
    return Transformer(str(folders["bert"]), max_seq_length=24, **arguments)


def _dense(**arguments: Any) -> Dense:
    return _filled(Dense(_WIDTH, 8, **arguments))  # type: ignore[no-any-return]


def _layers(folders: Folders) -> list[nn.Module]:
    bert = _bert(folders, config_args={"output_hidden_states": True})
    return [bert, WeightedLayerPooling(_WIDTH, 2, 1, torch.tensor([0.5, 1.5])), Pooling(_WIDTH)]


def _query_document(folders: Folders) -> list[nn.Module]:
    documents = [_bert(folders), Pooling(_WIDTH)]
    return [Router.for_query_document([_static(folders)], documents), Normalize()]


CHAINS: Mapping[str, TinyChain] = {
    "words": TinyChain(lambda _: [_words(), Pooling(16, "max")]),
    "phrases": TinyChain(lambda _: [_phrases(), Pooling(16)]),
    "word weights": TinyChain(
        lambda _: [
            _words(),
            WordWeights(WORDS, {"cat": 2.0, "hello": 0.5}, 0.7),
            Pooling(16),
            _filled(Dense(16, 4)),
        ]
    ),
    "cnn": TinyChain(lambda _: [_words(), _filled(CNN(16, 8, [1, 3, 5])), Pooling(24, "max")]),
    "cnn with strides": TinyChain(
        lambda _: [_words(), _filled(CNN(16, 8, [1], [2])), Pooling(8, "max")], versions=()
    ),
    "lstm": TinyChain(lambda _: [_words(), _filled(LSTM(16, 8, 2)), Pooling(16)]),
    "lstm, one direction": TinyChain(
        lambda _: [_words(), _filled(LSTM(16, 8, bidirectional=False)), Pooling(8, "lasttoken")]
    ),
    "bow": TinyChain(lambda _: [BoW(WORDS, {"cat": 2.0}, 0.5), LayerNorm(len(WORDS))], is_shuffled=True),
    "bow, once": TinyChain(lambda _: [BoW(WORDS, cumulative_term_frequency=False)], versions=["6.2"]),
    "layers": TinyChain(_layers),
    "encoder of t5": TinyChain(
        lambda folders: [Transformer(str(folders["t5"]), max_seq_length=24), Pooling(_WIDTH)]
    ),
    "tail": TinyChain(
        lambda folders: [
            _bert(folders),
            Pooling(_WIDTH, ["cls", "mean"]),
            _filled(Dense(64, 12, activation_function=nn.ReLU())),
            _filled(LayerNorm(12)),
            Dropout(0.1),
            Normalize(),
        ]
    ),
    "dense of tokens": TinyChain(
        lambda folders: [_bert(folders), _dense(module_input_name="token_embeddings"), Pooling(8)], versions=["6.2"]
    ),
    "dense with residual": TinyChain(
        lambda folders: [_bert(folders), Pooling(_WIDTH), _dense(use_residual=True)], versions=["6.2"]
    ),
    "static": TinyChain(lambda folders: [_static(folders), Normalize()], versions=["6.2"]),
    "asym first": TinyChain(
        lambda folders: [
            Asym({"query": [_bert(folders), Pooling(_WIDTH)], "document": [_bert(folders), Pooling(_WIDTH, "cls")]})
        ],
        items=QUERIES + DOCUMENTS[:1],
    ),
    "asym last": TinyChain(
        lambda folders: [
            _bert(folders),
            Pooling(_WIDTH),
            Asym({"query": [_dense()], "document": [_dense(bias=False)]}),
        ],
        items=DOCUMENTS,
        versions=["2.7"],
    ),
    "router": TinyChain(_query_document, items=QUERIES + DOCUMENTS, versions=["6.2"]),
    "clip": TinyChain(lambda folders: [CLIPModel(str(folders["clip"]))], items=IMAGES),
}
"""Name → model. In 2.7, no model without parameters embeds anything. An Asym behind a Transformer takes
no texts with routes in 6.2.
"""


def write_checkpoints(folder: Path, bert: Path) -> Folders:
    """Write the checkpoints of transformers that the chains are made of.

    Args:
        folder: Where to.
        bert: A tiny BERT.
    """
    _write_t5(folder / "t5", bert)
    _write_clip(folder / "clip")
    return {"bert": bert, "t5": folder / "t5", "clip": folder / "clip"}


def _write_t5(folder: Path, bert: Path) -> None:
    """Encoder and decoder, of which the encoder alone is wanted; the tokenizer is that of the BERT."""
    import transformers

    tokenizer: Any = transformers.AutoTokenizer
    words = tokenizer.from_pretrained(bert)
    config = transformers.T5Config(
        vocab_size=len(words), d_model=_WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0
    )
    _filled(transformers.T5ForConditionalGeneration(config)).save_pretrained(folder)
    words.model_input_names = ["input_ids", "attention_mask"]
    words.save_pretrained(folder)


def _write_clip(folder: Path) -> None:
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    merges = [("t", "h"), ("th", "e</w>"), ("c", "a"), ("ca", "t</w>")]
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {token: place for place, token in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    tokenizer: Any = transformers.CLIPTokenizer
    tokenizer(vocab=vocabulary, merges=merges, model_max_length=24).save_pretrained(folder)
    tower = {"hidden_size": _WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    specials = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1, "pad_token_id": 1}
    of_texts = {**tower, **specials, "max_position_embeddings": 24, "vocab_size": len(vocabulary)}
    of_images = {**tower, "image_size": 32, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=of_texts, vision_config=of_images, projection_dim=16)
    _filled(transformers.CLIPModel(config)).save_pretrained(folder)
    images: Any = transformers.CLIPImageProcessor
    images(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
