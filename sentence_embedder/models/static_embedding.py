"""StaticEmbedding: the mean of one fixed embedding a token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sentence_embedder.features import Features, Places, TokenizedTexts
from sentence_embedder.files import WeightsError, read_tensors, write_weights
from sentence_embedder.models.token_ids import encodable
from sentence_embedder.models.tokenizer_backend import copy_of_backend, read_backend

_TOKENIZER_NAME = "tokenizer.json"
_TEXTS_AT_ONCE = 1024


class StaticEmbedding(nn.Module):
    """The mean of the embeddings of a text's tokens, looked up in a table: no attention, and very fast.

    Args:
        tokenizer: A ``tokenizers.Tokenizer``, or a fast tokenizer of transformers. It is left as it is.
        embedding_weights: A row for each token, shape (tokens of the vocabulary, dim).
        embedding_dim: Width of the embeddings, which are random then; instead of the weights.

    Raises:
        TypeError: The tokenizer is neither of these.
        ValueError: Neither the weights nor their width are given.
    """

    def __init__(
        self,
        tokenizer: Any,
        embedding_weights: NDArray[Any] | Tensor | None = None,
        embedding_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer = copy_of_backend(tokenizer)
        if embedding_weights is not None:
            self.embedding = nn.EmbeddingBag.from_pretrained(torch.as_tensor(embedding_weights), freeze=False)
        elif embedding_dim is not None:
            self.embedding = nn.EmbeddingBag(self.tokenizer.get_vocab_size(), embedding_dim)
        else:
            raise ValueError("StaticEmbedding: expected embedding_weights or embedding_dim, found neither")
        self.embedding_dim = self.embedding.embedding_dim
        self.num_embeddings = self.embedding.num_embeddings

    @classmethod
    def from_model2vec(cls, model_id_or_path: str) -> StaticEmbedding:
        """The embeddings of a model2vec model.

        Args:
            model_id_or_path: A folder, or the name of a model on the Hub.

        Raises:
            ImportError: model2vec, which reads it, is not installed.
        """
        try:
            from model2vec import StaticModel
        except ImportError as error:
            raise ImportError(_no_model2vec("from_model2vec")) from error
        return cls._of_model2vec(StaticModel.from_pretrained(model_id_or_path))

    @classmethod
    def from_distillation(
        cls,
        model_name: str,
        vocabulary: Sequence[str] | None = None,
        device: str | None = None,
        pca_dims: int | None = 256,
        **kwargs: Any,
    ) -> StaticEmbedding:
        """Embeddings distilled from a transformer by model2vec.

        Args:
            model_name: The transformer.
            vocabulary: Words that get a row of their own.
            device: Where to compute.
            pca_dims: To how many dimensions the embeddings are cut.
            kwargs: Other arguments of ``model2vec.distill.distill``.

        Raises:
            ImportError: model2vec is not installed with what it needs for distilling.
        """
        try:
            from model2vec.distill import distill
        except ImportError as error:
            raise ImportError(_no_model2vec("from_distillation")) from error
        words = None if vocabulary is None else list(vocabulary)
        return cls._of_model2vec(distill(model_name, vocabulary=words, device=device, pca_dims=pca_dims, **kwargs))

    @classmethod
    def _of_model2vec(cls, model: Any) -> StaticEmbedding:
        table = _folded(model.embedding, getattr(model, "token_mapping", None), getattr(model, "weights", None))
        return cls(model.tokenizer, table)

    @classmethod
    def load(cls, input_path: str | Path) -> StaticEmbedding:
        """The module that a folder holds, written by sentence-transformers or by model2vec.

        Raises:
            FileNotFoundError: There is no tokenizer or no weights.
            WeightsError: The weights are not those of such a module.
        """
        folder = Path(input_path)
        tensors = read_tensors(folder, cls.__name__)
        if "embedding.weight" in tensors:
            table = tensors["embedding.weight"]
        elif "embeddings" in tensors:
            try:
                table = _folded(tensors["embeddings"], tensors.get("mapping"), tensors.get("weights"))
            except (IndexError, RuntimeError, TypeError) as error:
                raise WeightsError(f"{folder}: expected the weights of model2vec, found others: {error}") from error
        else:
            raise WeightsError(
                f"{folder}: expected the weights of a StaticEmbedding (embedding.weight, or embeddings), "
                f"found {sorted(tensors)}"
            )
        tokenizer = read_backend(folder / _TOKENIZER_NAME)
        if table.ndim != 2 or len(table) < tokenizer.get_vocab_size():
            raise WeightsError(
                f"{folder}: expected a row for each of {tokenizer.get_vocab_size()} tokens, found weights of shape "
                f"{tuple(table.shape)}"
            )
        return cls(tokenizer, table.to(torch.float32, copy=True))  # as all modules have them

    def save(self, output_path: str | Path, *, safe_serialization: bool = True) -> None:
        """Write weights and tokenizer into a folder, which is made if need be; arguments as for ``Module.save``."""
        folder = Path(output_path)
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(folder, self, safe_serialization=safe_serialization)
        self.tokenizer.save(str(folder / _TOKENIZER_NAME))

    def tokenize(self, texts: Sequence[Any]) -> Features:
        """The ids of all texts end to end, ``input_ids`` (tokens,), and where each begins, ``offsets`` (texts,)."""
        return self.tokenize_ahead(texts).batch(range(len(texts)))

    def tokenize_ahead(self, texts: Sequence[Any]) -> Bags:
        """The token ids of any number of texts."""
        rows: list[list[int]] = []
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            some = [encodable(str(text)) for text in texts[start : start + _TEXTS_AT_ONCE]]
            rows += [encoding.ids for encoding in self.tokenizer.encode_batch_fast(some, add_special_tokens=False)]
        return Bags(
            TokenizedTexts(
                columns={"input_ids": np.fromiter((idx for row in rows for idx in row), dtype=np.int32)},
                lengths=np.array([len(row) for row in rows], dtype=np.int64),
                pad_values={},
            )
        )

    def forward(self, features: Features) -> Features:
        """Adds ``sentence_embedding`` (texts, dim): the mean over a text's tokens, zero for one without tokens."""
        return {**features, "sentence_embedding": self.embedding(features["input_ids"], features["offsets"])}

    def get_sentence_embedding_dimension(self) -> int:
        """Width of the embeddings."""
        return self.embedding_dim

    @property
    def max_seq_length(self) -> float:
        """Infinity: texts are never cut."""
        return float("inf")


@dataclass(frozen=True)
class Bags:
    """Texts as bags of token ids.

    Args:
        texts: The token ids.
    """

    texts: TokenizedTexts

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many tokens each text has, shape (texts,)."""
        return self.texts.lengths

    def batch(self, rows: Places) -> Features:
        """The Features of the texts at the given places."""
        packed = self.texts.packed(rows)
        return {
            "input_ids": torch.from_numpy(packed.columns["input_ids"]),
            "offsets": torch.from_numpy(np.cumsum(packed.lengths) - packed.lengths),
        }


def _no_model2vec(method: str) -> str:
    return f"{method}: expected model2vec: pip install 'sentence_embedder[static]'"


def _folded(embeddings: Any, mapping: Any, weights: Any) -> Tensor:
    """One row a token id, out of model2vec's shared rows, and weights of their own.

    Args:
        embeddings: Shape (rows, dim).
        mapping: The row of each token id, shape (tokens,); by default its own number.
        weights: The factor of each token id, shape (tokens,); by default 1.
    """
    table = torch.as_tensor(embeddings)
    if mapping is not None:
        table = table[torch.as_tensor(mapping, dtype=torch.int64)]
    if weights is not None:
        wide = torch.promote_types(table.dtype, torch.float32)
        table = table.to(wide) * torch.as_tensor(weights).to(wide).unsqueeze(-1)
    return table.contiguous()
