"""BERT as its checkpoints are known."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

from sentence_embedder.models.stand_ins.architecture import SETTINGS, Architecture
from sentence_embedder.models.stand_ins.known_values import Fits, a, exactly, none_or, share, whole
from sentence_embedder.models.stand_ins.model import StandInConfig, StandInModel, Steps, parts
from sentence_embedder.models.stand_ins.post_processors import template
from sentence_embedder.models.stand_ins.unigram import XLM_ROBERTA_TOKENIZER
from sentence_embedder.models.stand_ins.word_pieces import WordPieces


class AttentionSteps(NamedTuple):
    """The modules of the first part of a layer."""

    query: nn.Module
    key: nn.Module
    value: nn.Module
    out: nn.Module
    norm: nn.Module


class BertLikeStandIn(StandInModel):
    """BERT, or one of those that differ from it in their attention or in their embeddings.

    Args:
        config: Its configuration.
    """

    encoder: Any

    def _layer(self) -> nn.Module:
        width, wider = self.config.hidden_size, self.config.intermediate_size
        layer: nn.Module = parts(
            attention=self._attention(),
            intermediate=parts(dense=nn.Linear(width, wider)),
            output=parts(dense=nn.Linear(wider, width), LayerNorm=self._norm()),
        )
        return layer

    @abstractmethod
    def _attention(self) -> nn.Module:
        """The first part of a layer, of the modules that ``_attention_steps`` finds."""

    @abstractmethod
    def _attention_steps(self, attention: Any) -> AttentionSteps:
        """The modules of the first part of a layer."""

    def _behind_embeddings(self, layers: nn.ModuleList) -> Mapping[str, nn.Module]:
        width = self.config.hidden_size
        return {"encoder": self._encoder(layers), "pooler": parts(dense=nn.Linear(width, width))}

    def _encoder(self, layers: nn.ModuleList) -> nn.Module:
        """The layers, and what they share."""
        encoder: nn.Module = parts(layer=layers)
        return encoder

    def _layers(self) -> Iterable[nn.Module]:
        layers: nn.ModuleList = self.encoder.layer
        return layers

    def _steps(self, layer: Any) -> Steps:
        output = layer.output
        return Steps(
            *self._attention_steps(layer.attention), layer.intermediate.dense, output.dense, output.LayerNorm
        )


@dataclass(frozen=True, kw_only=True)
class BertConfig(StandInConfig):
    """``config.json`` of a BERT."""

    type_vocab_size: int
    is_decoder: bool = False
    add_cross_attention: bool = False
    pad_token_id: int | None = 0


class BertStandIn(BertLikeStandIn):
    """A BERT.

    Args:
        config: Its configuration.
    """

    architecture = "BertModel"
    modeling = "transformers.models.bert.modeling_bert"
    config: BertConfig

    def _tables(self) -> Mapping[str, int]:
        return {**super()._tables(), "token_type_embeddings": self.config.type_vocab_size}

    def _attention(self) -> nn.Module:
        width = self.config.hidden_size
        heads = parts(**{name: nn.Linear(width, width) for name in ("query", "key", "value")})
        attention: nn.Module = parts(
            self=heads, output=parts(dense=nn.Linear(width, width), LayerNorm=self._norm())
        )
        return attention

    def _attention_steps(self, attention: Any) -> AttentionSteps:
        heads, after = attention.self, attention.output
        return AttentionSteps(heads.query, heads.key, heads.value, after.dense, after.LayerNorm)

    def _places(self, input_ids: Tensor) -> Tensor:
        places: Tensor = super()._places(input_ids) + self.embeddings.token_type_embeddings.weight[0]
        return places


BERT_SETTINGS: Mapping[str, Fits] = {
    **SETTINGS,
    "position_embedding_type": exactly("absolute"),
    "is_decoder": exactly(False),
    "add_cross_attention": exactly(False),
    "type_vocab_size": whole(1),
    # What decides nothing.
    "classifier_dropout": none_or(share(float, int)),
    "gradient_checkpointing": exactly(False),
    "use_cache": a(bool),
}
"""Keys that BERT and RoBERTa have → their values."""

BERT_TOKENIZER = WordPieces(
    name="Bert",
    roles={f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")},
    inputs=("input_ids", "token_type_ids", "attention_mask"),
    post_processors=lambda special: [template(special, first="[CLS]", last="[SEP]", between=1)],
)

BERT = Architecture(
    settings={
        **BERT_SETTINGS,
        # What decides nothing.
        **dict.fromkeys(("directionality", "pooler_type"), a(str)),
        **dict.fromkeys(("cls_token_id", "sep_token_id"), whole()),
        **dict.fromkeys(("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"), whole()),
        "pooler_size_per_head": whole(),
    },
    config_class=BertConfig,
    model_class=BertStandIn,
    # The small multilingual models are a BERT behind the tokenizer of XLM-RoBERTa.
    tokenizers=(BERT_TOKENIZER, XLM_ROBERTA_TOKENIZER),
)
