"""StandInModel: a transformer without the code of transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, kw_only=True)
class StandInConfig:
    """``config.json``, as far as it is looked at: names and meaning are those of transformers."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    pad_token_id: int | None = None
    architectures: Sequence[str] | None = None
    model_type: str


class StandInModel(nn.Module, ABC):
    """BERT or one of its kin, its weights where and as its class in transformers has them; computes the last hidden
    state of texts.

    Args:
        config: Its configuration.
    """

    architecture: ClassVar[str]
    """Its class in transformers."""

    config: StandInConfig

    def __init__(self, config: StandInConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.config = config
        tables = {name: table(rows, width) for name, rows in self._tables().items()}
        self.embeddings = parts(**tables, LayerNorm=self._norm())
        self.encoder = self._encoder([self._layer() for _ in range(config.num_hidden_layers)])
        self.pooler = parts(dense=nn.Linear(width, width))

    def _tables(self) -> Mapping[str, int]:
        """Name of a table of embeddings → its rows."""
        return {
            "word_embeddings": self.config.vocab_size,
            "position_embeddings": self.config.max_position_embeddings,
        }

    def _encoder(self, layers: Sequence[nn.Module]) -> Any:
        """The layers, and what they share."""
        return parts(layer=nn.ModuleList(layers))

    def _layer(self) -> Any:
        width, wider = self.config.hidden_size, self.config.intermediate_size
        return parts(
            attention=self._attention(),
            intermediate=parts(dense=nn.Linear(width, wider)),
            output=parts(dense=nn.Linear(wider, width), LayerNorm=self._norm()),
        )

    @abstractmethod
    def _attention(self) -> Any:
        """The first part of a layer, and the norm that follows it."""

    def _norm(self) -> nn.Module:
        return nn.LayerNorm(self.config.hidden_size, eps=self.config.layer_norm_eps)

    def get_input_embeddings(self) -> nn.Embedding:
        """The table of tokens."""
        words: nn.Embedding = self.embeddings.word_embeddings
        return words

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> tuple[Tensor]:
        """Token ids and where they are, (texts, tokens) → (texts, tokens, hidden_size)."""
        x = self.embeddings.LayerNorm(self.embeddings.word_embeddings(input_ids) + self._places(input_ids))
        seen = self._seen(attention_mask[:, None, None].bool())
        for layer in self.encoder.layer:
            *heads, out, norm = self._linears_and_norm(layer.attention)
            query, key, value = (
                part(x).unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2) for part in heads
            )
            by_head = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
            x = norm(out(by_head.transpose(1, 2).flatten(2)) + x)
            wider = functional.gelu(layer.intermediate.dense(x))
            x = layer.output.LayerNorm(layer.output.dense(wider) + x)
        return (x,)

    @abstractmethod
    def _places(self, input_ids: Tensor) -> Tensor:
        """What is added to the embeddings of words, for where they stand: (texts or 1, tokens, hidden_size)."""

    def _seen(self, tokens: Tensor) -> Tensor:
        """The mask of the attention.

        Args:
            tokens: Whether a place holds a token, shape (texts, 1, 1, tokens), bool.
        """
        return tokens

    @abstractmethod
    def _linears_and_norm(self, attention: Any) -> Sequence[nn.Module]:
        """Of what ``_attention`` made: the linear layers of queries, keys, values and output, and the norm."""


def table(rows: int, width: int) -> nn.Embedding:
    """A table of embeddings, of whatever numbers."""
    # Without a weight it would be filled at random, for which torch imports its compiler.
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


def parts(**named: nn.Module) -> Any:
    """A module that is nothing but its parts."""
    module = nn.Module()
    for name, part in named.items():
        module.add_module(name, part)
    return module
