"""MPNet as its checkpoints are known (Song et al. 2020, https://arxiv.org/abs/2004.09297)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.models.stand_ins.architecture import SETTINGS, Architecture
from sentence_embedder.models.stand_ins.bert import AttentionSteps, BertLikeStandIn
from sentence_embedder.models.stand_ins.known_values import exactly, whole
from sentence_embedder.models.stand_ins.model import StandInConfig, parts, table
from sentence_embedder.models.stand_ins.post_processors import roberta_processing, template
from sentence_embedder.models.stand_ins.word_pieces import WordPieces

_BUCKETS = 32
"""Distances with a bias of their own; half of them are for tokens that come later."""

_FARTHEST = 128
"""From this distance on, all are in one."""

_PADDING_ID = 1
"""The id of padding, which is not counted among the positions, whatever the configuration says."""


@dataclass(frozen=True, kw_only=True)
class MPNetConfig(StandInConfig):
    """``config.json`` of an MPNet."""

    relative_attention_num_buckets: int = _BUCKETS
    pad_token_id: int | None = _PADDING_ID


class _Encoder(nn.Module):
    """The layers, and what they add to scores by distance, under the names of transformers, for which readers ask.

    Args:
        layers: The layers.
        heads: How many heads they have.
    """

    def __init__(self, layers: nn.ModuleList, heads: int) -> None:
        super().__init__()
        self.layer = layers
        self.relative_attention_bias = table(_BUCKETS, heads)

    def compute_position_bias(self, x: Tensor) -> Tensor:
        """What is added to the scores of texts of this shape: (texts, tokens, …) → (1, heads, tokens, tokens)."""
        places = torch.arange(x.shape[1], device=x.device)
        biases: Tensor = self.relative_attention_bias(self.relative_position_bucket(places - places[:, None]))
        return biases.permute(2, 0, 1)[None]

    @staticmethod
    def relative_position_bucket(relative_position: Tensor) -> Tensor:
        """The bucket of how far a key lies ahead: one for each near one, then ever more in one, as in T5."""
        half, distance = _BUCKETS // 2, relative_position.abs()
        near = half // 2
        # In the order of transformers: a rounding decides what lies on a border.
        far = near + (torch.log(distance.float() / near) / math.log(_FARTHEST / near) * (half - near)).long()
        return (relative_position > 0) * half + distance.where(distance < near, far.clamp(max=half - 1))


class MPNetStandIn(BertLikeStandIn):
    """An MPNet.

    Args:
        config: Its configuration.
    """

    architecture = "MPNetModel"
    modeling = "transformers.models.mpnet.modeling_mpnet"
    padding_id = _PADDING_ID
    config: MPNetConfig

    def _encoder(self, layers: nn.ModuleList) -> nn.Module:
        return _Encoder(layers, self.config.num_attention_heads)

    def _attention(self) -> nn.Module:
        width = self.config.hidden_size
        heads = parts(**{name: nn.Linear(width, width) for name in ("q", "k", "v", "o")})
        attention: nn.Module = parts(attn=heads, LayerNorm=self._norm())
        return attention

    def _attention_steps(self, attention: Any) -> AttentionSteps:
        heads = attention.attn
        return AttentionSteps(heads.q, heads.k, heads.v, heads.o, attention.LayerNorm)

    def _seen(self, tokens: Tensor) -> Tensor:
        bias: Tensor = self.encoder.compute_position_bias(tokens[:, 0, 0])
        return bias.masked_fill(~tokens, -math.inf)


MPNET = Architecture(
    settings={
        **SETTINGS,
        "relative_attention_num_buckets": exactly(_BUCKETS),
        # Both tables have a row for padding.
        **dict.fromkeys(("vocab_size", "max_position_embeddings"), whole(_PADDING_ID + 1)),
    },
    config_class=MPNetConfig,
    model_class=MPNetStandIn,
    tokenizers=(
        WordPieces(
            name="MPNet",
            roles={
                **dict.fromkeys(("bos_token", "cls_token"), "<s>"),
                **dict.fromkeys(("eos_token", "sep_token"), "</s>"),
                "pad_token": "<pad>",
                "unk_token": "[UNK]",
                "mask_token": "<mask>",
            },
            inputs=("input_ids", "attention_mask"),
            post_processors=lambda special: [
                roberta_processing(special, first="<s>", last="</s>"),
                template(special, first="<s>", last="</s>", between=2),
            ],
            spaced=frozenset({"<mask>"}),
            unused=frozenset({"<unk>"}),
            normalized=frozenset({"<unk>"}),
        ),
    ),
)
