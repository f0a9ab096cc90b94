"""BERT as its checkpoints are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from sentence_embedder.models.stand_ins.architecture import SETTINGS, Architecture
from sentence_embedder.models.stand_ins.known_values import a, exactly, none_or, share, whole
from sentence_embedder.models.stand_ins.model import StandInConfig, StandInModel, parts
from sentence_embedder.models.stand_ins.word_pieces import WordPieces, template


@dataclass(frozen=True, kw_only=True)
class BertConfig(StandInConfig):
    """``config.json`` of a BERT."""

    type_vocab_size: int
    is_decoder: bool = False
    add_cross_attention: bool = False
    pad_token_id: int | None = 0


class BertStandIn(StandInModel):
    """A BERT.

    Args:
        config: Its configuration.
    """

    architecture = "BertModel"
    config: BertConfig

    def _tables(self) -> Mapping[str, int]:
        return {**super()._tables(), "token_type_embeddings": self.config.type_vocab_size}

    def _attention(self) -> Any:
        width = self.config.hidden_size
        heads = parts(**{name: nn.Linear(width, width) for name in ("query", "key", "value")})
        return parts(self=heads, output=parts(dense=nn.Linear(width, width), LayerNorm=self._norm()))

    def _linears_and_norm(self, attention: Any) -> Sequence[nn.Module]:
        heads, after = attention.self, attention.output
        return (heads.query, heads.key, heads.value, after.dense, after.LayerNorm)

    def _places(self, input_ids: Tensor) -> Tensor:
        positions = self.embeddings.position_embeddings.weight[: input_ids.shape[1]]
        places: Tensor = positions + self.embeddings.token_type_embeddings.weight[0]
        return places[None]


BERT = Architecture(
    settings={
        **SETTINGS,
        "position_embedding_type": exactly("absolute"),
        "is_decoder": exactly(False),
        "add_cross_attention": exactly(False),
        "type_vocab_size": whole(1),
        # What decides nothing.
        "classifier_dropout": none_or(share(float, int)),
        "gradient_checkpointing": exactly(False),
        **dict.fromkeys(("directionality", "pooler_type"), a(str)),
        **dict.fromkeys(("cls_token_id", "sep_token_id"), whole()),
        **dict.fromkeys(("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"), whole()),
        "pooler_size_per_head": whole(),
        "use_cache": a(bool),
    },
    config_class=BertConfig,
    model_class=BertStandIn,
    word_pieces=WordPieces(
        name="Bert",
        roles={f"{role}_token": f"[{role.upper()}]" for role in ("unk", "sep", "pad", "cls", "mask")},
        inputs=["input_ids", "token_type_ids", "attention_mask"],
        post_processors=lambda special: [template(special, first="[CLS]", last="[SEP]", between=1)],
    ),
)
