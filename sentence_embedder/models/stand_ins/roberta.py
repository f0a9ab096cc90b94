"""RoBERTa and XLM-RoBERTa as their checkpoints are known (Liu et al. 2019, https://arxiv.org/abs/1907.11692)."""

from __future__ import annotations

from dataclasses import dataclass

from sentence_embedder.models.stand_ins.architecture import Architecture
from sentence_embedder.models.stand_ins.bert import BERT_SETTINGS, BertConfig, BertStandIn
from sentence_embedder.models.stand_ins.byte_pairs import BytePairs
from sentence_embedder.models.stand_ins.known_values import a, exactly, whole
from sentence_embedder.models.stand_ins.post_processors import roberta_processing
from sentence_embedder.models.stand_ins.unigram import XLM_ROBERTA_TOKENIZER

_PADDING_ID = 1
"""The id of padding, which is not counted among the positions."""


@dataclass(frozen=True, kw_only=True)
class RobertaConfig(BertConfig):
    """``config.json`` of a RoBERTa."""

    pad_token_id: int | None = _PADDING_ID


class RobertaStandIn(BertStandIn):
    """A RoBERTa.

    Args:
        config: Its configuration.
    """

    architecture = "RobertaModel"
    modeling = "transformers.models.roberta.modeling_roberta"
    padding_id = _PADDING_ID


class XLMRobertaStandIn(RobertaStandIn):
    """An XLM-RoBERTa (Conneau et al. 2020, https://arxiv.org/abs/1911.02116).

    Args:
        config: Its configuration.
    """

    architecture = "XLMRobertaModel"
    modeling = "transformers.models.xlm_roberta.modeling_xlm_roberta"


_SETTINGS = {
    **BERT_SETTINGS,
    "pad_token_id": exactly(_PADDING_ID),
    # Both tables have a row for padding.
    **dict.fromkeys(("vocab_size", "max_position_embeddings"), whole(_PADDING_ID + 1)),
    # What decides nothing.
    "output_past": a(bool),
}

_ROLES = XLM_ROBERTA_TOKENIZER.roles

ROBERTA = Architecture(
    settings=_SETTINGS,
    config_class=RobertaConfig,
    model_class=RobertaStandIn,
    tokenizers=(
        BytePairs(
            name="Roberta",
            roles=_ROLES,
            inputs=("input_ids", "attention_mask"),
            post_processors=lambda special: [roberta_processing(special, first="<s>", last="</s>")],
            spaced=frozenset({"<mask>"}),
            normalized=frozenset(_ROLES.values()),
        ),
    ),
)

XLM_ROBERTA = Architecture(
    settings=_SETTINGS,
    config_class=RobertaConfig,
    model_class=XLMRobertaStandIn,
    tokenizers=(XLM_ROBERTA_TOKENIZER,),
)
