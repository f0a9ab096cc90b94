"""StandInModel: a transformer without the code of transformers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

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


class Steps(NamedTuple):
    """The modules of a layer, in the order in which texts pass them."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    out: nn.Module
    attention_norm: nn.Module
    up: nn.Module
    down: nn.Module
    output_norm: nn.Module


class StandInModel(nn.Module, ABC):
    """BERT or one of its kin, its weights where and as its class in transformers has them; computes the last hidden
    state of texts.

    Args:
        config: Its configuration.
    """

    architecture: ClassVar[str]
    """Its class in transformers."""

    modeling: ClassVar[str]
    """The file of that class, as a dotted name."""

    padding_id: ClassVar[int | None] = None
    """The id of padding, if it is not counted among the positions, and these begin with the number that follows."""

    config: StandInConfig

    def __init__(self, config: StandInConfig) -> None:
        super().__init__()
        self.config = config
        tables = {name: table(rows, config.hidden_size) for name, rows in self._tables().items()}
        self.embeddings = parts(**tables, LayerNorm=self._norm())
        if self.padding_id is not None:
            self.embeddings.padding_idx = self.padding_id  # where transformers has it
        layers = nn.ModuleList(self._layer() for _ in range(config.num_hidden_layers))
        for name, module in self._behind_embeddings(layers).items():
            self.add_module(name, module)

    def _tables(self) -> Mapping[str, int]:
        """Name of a table of embeddings → its rows."""
        return {
            "word_embeddings": self.config.vocab_size,
            "position_embeddings": self.config.max_position_embeddings,
        }

    @abstractmethod
    def _layer(self) -> nn.Module:
        """A layer, of the modules that ``_steps`` finds."""

    @abstractmethod
    def _behind_embeddings(self, layers: nn.ModuleList) -> Mapping[str, nn.Module]:
        """The layers where they belong, and what else there is; ``_layers`` finds them."""

    @abstractmethod
    def _layers(self) -> Iterable[nn.Module]:
        """The layers."""

    @abstractmethod
    def _steps(self, layer: Any) -> Steps:
        """The modules of a layer."""

    def _places(self, input_ids: Tensor) -> Tensor:
        """What is added to the embeddings of words, for where they stand: (texts or 1, tokens, hidden_size)."""
        table: nn.Embedding = self.embeddings.position_embeddings
        if self.padding_id is None:
            return table.weight[None, : input_ids.shape[1]]
        is_token = input_ids != self.padding_id
        places: Tensor = table(is_token.cumsum(dim=1) * is_token + self.padding_id)
        return places

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
        for steps in map(self._steps, self._layers()):
            query, key, value = (
                part(x).unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)
                for part in (steps.query, steps.key, steps.value)
            )
            by_head = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
            x = steps.attention_norm(steps.out(by_head.transpose(1, 2).flatten(2)) + x)
            x = steps.output_norm(steps.down(functional.gelu(steps.up(x))) + x)
        return (x,)

    def _seen(self, tokens: Tensor) -> Tensor:
        """The mask of the attention.

        Args:
            tokens: Whether a place holds a token, shape (texts, 1, 1, tokens), bool.
        """
        return tokens


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
