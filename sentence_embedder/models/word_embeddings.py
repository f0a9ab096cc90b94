"""WordEmbeddings: one fixed embedding a word."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sentence_embedder.features import Features, TokenizedTexts
from sentence_embedder.files import WeightsError, read_json, read_tensors
from sentence_embedder.formats import WordEmbeddingsConfig
from sentence_embedder.models.module import Module, OwnClass, check_importable, derived, refuse_own_class
from sentence_embedder.models.tokenizer import PhraseTokenizer, WhitespaceTokenizer, WordTokenizer
from sentence_embedder.record import FormatError
from sentence_embedder.whole_number import whole_or_none

logger = logging.getLogger(__name__)

_NO_LIMIT = 1_000_000
"""How many words of a text count where nobody says so."""

_PADDING_WORD = "PADDING_TOKEN"
_WEIGHT_NAME = "emb_layer.weight"

_CLASSES = (WhitespaceTokenizer, PhraseTokenizer)
_TOKENIZERS_FOLDER = "sentence_transformers.models.tokenizer"
_TOKENIZERS: Mapping[str, type[WhitespaceTokenizer | PhraseTokenizer]] = {
    f"{folder}.{file}.{tokenizer.__name__}": tokenizer
    for tokenizer in _CLASSES
    for folder, file in (
        (_TOKENIZERS_FOLDER, tokenizer.__name__),
        # 5.4 and later
        (
            "sentence_transformers.sentence_transformer.modules.tokenizer",
            tokenizer.__name__.removesuffix("Tokenizer").lower(),
        ),
    )
}
"""Name on disk → class. A name that is not here imports nothing, unless the caller trusts the model."""


class WordEmbeddings(Module):
    """Looks up an embedding for each word, such as GloVe's or word2vec's.

    Args:
        tokenizer: Splits texts into words of its vocabulary.
        embedding_weights: A row for each word of the vocabulary, shape (words, dim). Row 0 stands for padding.
        update_embeddings: Whether training changes them.
        max_seq_length: How many words of a text count.
    """

    config_class = WordEmbeddingsConfig
    config_file_name = "wordembedding_config.json"
    config: WordEmbeddingsConfig

    def __init__(
        self,
        tokenizer: WordTokenizer,
        embedding_weights: NDArray[Any] | Tensor,
        update_embeddings: bool = False,
        max_seq_length: int = _NO_LIMIT,
    ) -> None:
        weights = torch.as_tensor(embedding_weights)
        super().__init__(
            WordEmbeddingsConfig(
                tokenizer_class=_name_of(tokenizer),
                update_embeddings=update_embeddings,
                max_seq_length=max_seq_length,
            )
        )
        self.tokenizer = tokenizer
        self.emb_layer = nn.Embedding(weights.shape[0], weights.shape[1], _weight=weights.float())
        self.emb_layer.weight.requires_grad_(update_embeddings)

    @classmethod
    def from_text_file(
        cls,
        embeddings_file_path: str | Path,
        update_embeddings: bool = False,
        item_separator: str = " ",
        tokenizer: WordTokenizer | None = None,
        max_vocab_size: int | None = None,
    ) -> WordEmbeddings:
        """The embeddings of a text file: a word and its numbers a line, as GloVe and word2vec write them.

        Args:
            embeddings_file_path: The file, also one packed by gzip (``.gz``).
            update_embeddings: Whether training changes them.
            item_separator: What stands between the word and the numbers.
            tokenizer: Takes the words for its vocabulary; by default a new ``WhitespaceTokenizer``.
            max_vocab_size: How many words are read, beside that for padding; 0 or less for all.

        Raises:
            ValueError: The file holds no embeddings, or what should be a number is none.
        """
        words, rows = [_PADDING_WORD], list[NDArray[np.float32]]()
        for word, numbers in _vectors(Path(embeddings_file_path), item_separator):
            if max_vocab_size is not None and 0 < max_vocab_size <= len(rows):
                break
            words.append(word)
            rows.append(numbers)
        if not rows:
            raise ValueError(f"{embeddings_file_path}: expected a word and its numbers in each line, found none")
        tokenizer = WhitespaceTokenizer() if tokenizer is None else tokenizer
        tokenizer.set_vocab(words)
        weights = np.stack([np.zeros_like(rows[0]), *rows])
        return cls(tokenizer, weights, update_embeddings)

    @classmethod
    def load(cls, input_path: str | Path, *, own_class: OwnClass = refuse_own_class) -> WordEmbeddings:
        """The module that a folder holds; errors as for ``Module.load``.

        Args:
            input_path: The folder.
            own_class: Finds the class of a tokenizer that is not one of the library's.
        """
        folder = Path(input_path)
        path = folder / cls.config_file_name
        config = WordEmbeddingsConfig.from_dict(read_json(path), str(path))
        tokenizer = _tokenizer_class(config.tokenizer_class, f"{path}: tokenizer_class", own_class).load(folder)
        weights = read_tensors(folder, cls.__name__)
        words = len(tokenizer.get_vocab())
        if (
            weights.keys() != {_WEIGHT_NAME}
            or weights[_WEIGHT_NAME].ndim != 2
            or len(weights[_WEIGHT_NAME]) < words
        ):
            found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
            raise WeightsError(
                f"{folder}: expected the weights of a WordEmbeddings, {_WEIGHT_NAME} with a row for each of "
                f"{words} words, found {found}"
            )
        module = cls(tokenizer, weights[_WEIGHT_NAME], config.update_embeddings, config.max_seq_length)
        module.config = config
        return module

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as they are written to disk, with the tokenizer of now."""
        return replace(self.config, tokenizer_class=_name_of(self.tokenizer)).to_dict()

    def check_can_be_saved(self) -> None:
        """See ``Module.check_can_be_saved``.

        Raises:
            ValueError: The tokenizer's class cannot be imported: the file has its name alone.
        """
        check_importable(self.tokenizer, WordTokenizer, "tokenizer of a WordEmbeddings")

    def save(self, output_path: str | Path, *, safe_serialization: bool = True) -> None:
        """Write settings, weights and tokenizer into a folder; arguments as for ``Module.save``."""
        super().save(output_path, safe_serialization=safe_serialization)
        self.tokenizer.save(str(output_path))

    def tokenize(self, texts: Sequence[str]) -> Features:
        """The features of a batch, padded to the longest: ``input_ids`` and ``attention_mask`` (texts, words)."""
        return self.tokenize_ahead(texts).batch(range(len(texts)))

    def tokenize_ahead(self, texts: Sequence[str]) -> TokenizedTexts:
        """The ids of any number of texts, not yet padded."""
        limit = self.config.max_seq_length
        whole = [self.tokenizer.tokenize(text) for text in texts]
        rows = [row[:limit] for row in whole]
        return TokenizedTexts(
            columns={"input_ids": np.fromiter((idx for row in rows for idx in row), dtype=np.int32)},
            lengths=np.array([len(row) for row in rows], dtype=np.int64),
            pad_values={"input_ids": 0},
            cut=np.flatnonzero([len(row) > limit for row in whole]),
        )

    def forward(self, features: Features) -> Features:
        """Adds ``token_embeddings`` (texts, words, dim) and ``sentence_lengths`` (texts,)."""
        return {
            **features,
            "token_embeddings": self.emb_layer(features["input_ids"]),
            "sentence_lengths": features["attention_mask"].sum(dim=1),
        }

    def get_word_embedding_dimension(self) -> int:
        """Width of the embeddings."""
        width: int = self.emb_layer.embedding_dim
        return width

    def get_embedding_dimension(self) -> int:
        """The same, under its newer name."""
        return self.get_word_embedding_dimension()

    @derived
    def embeddings_dimension(self) -> int:
        """Width of the token embeddings it makes."""
        return self.get_word_embedding_dimension()

    @property
    def max_seq_length(self) -> int:
        """How many words of a text count."""
        return self.config.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, max_seq_length: int | None) -> None:
        limit = whole_or_none(max_seq_length, "max_seq_length")
        self.config = replace(self.config, max_seq_length=_NO_LIMIT if limit is None else limit)


def _tokenizer_class(name: str, where: str, own_class: OwnClass) -> Any:
    known = sorted({tokenizer.__name__ for tokenizer in _CLASSES})
    found = _TOKENIZERS.get(name) or own_class(name, where, f"one of {known}")
    if not issubclass(found, WordTokenizer):
        raise FormatError(where, f"one of {known}, or a class of your own derived from WordTokenizer", name)
    return found


def _name_of(tokenizer: object) -> str:
    """The name of a tokenizer's class on disk: ours under the names that every version knows."""
    name = type(tokenizer).__qualname__
    module = f"{_TOKENIZERS_FOLDER}.{name}" if type(tokenizer) in _CLASSES else type(tokenizer).__module__
    return f"{module}.{name}"


def _vectors(path: Path, separator: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The words of a file and their numbers; a first line that only counts them, as word2vec's, is left out."""
    width = None
    open_text = gzip.open if path.suffix == ".gz" else open
    with open_text(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            word, *numbers = line.rstrip().split(separator)
            if number == 1 and len(numbers) == 1:
                continue
            width = len(numbers) if width is None else width
            if len(numbers) != width:
                logger.error(
                    "%s, line %d: expected %d numbers, found %d: left out", path, number, width, len(numbers)
                )
                continue
            try:
                yield word, np.array(numbers, dtype=np.float32)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: expected a word and numbers: {error}") from error
