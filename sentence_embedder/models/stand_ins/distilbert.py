"""DistilBERT as its checkpoints are known (Sanh et al. 2019, https://arxiv.org/abs/1910.01108)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from sentence_embedder.models.stand_ins.architecture import SETTINGS, Architecture
from sentence_embedder.models.stand_ins.bert import BERT_TOKENIZER
from sentence_embedder.models.stand_ins.known_values import a, exactly, share
from sentence_embedder.models.stand_ins.model import StandInConfig, StandInModel, Steps, parts

_NAMES = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_hidden_layers": "n_layers",
    "num_attention_heads": "n_heads",
    "hidden_act": "activation",
}
"""A setting of BERT → its name here."""

_DROPOUTS = {"attention_probs_dropout_prob": "attention_dropout", "hidden_dropout_prob": "dropout"}


@dataclass(frozen=True, kw_only=True)
class DistilBertConfig(StandInConfig):
    """``config.json`` of a DistilBERT."""

    pad_token_id: int | None = 0

    @property
    def activation(self) -> str:
        """The activation, under its own name."""
        return self.hidden_act


class DistilBertStandIn(StandInModel):
    """A DistilBERT.

    Args:
        config: Its configuration.
    """

    architecture = "DistilBertModel"
    modeling = "transformers.models.distilbert.modeling_distilbert"
    transformer: Any

    def _layer(self) -> nn.Module:
        width, wider = self.config.hidden_size, self.config.intermediate_size
        heads = {name: nn.Linear(width, width) for name in ("q_lin", "k_lin", "v_lin", "out_lin")}
        layer: nn.Module = parts(
            attention=parts(**heads),
            sa_layer_norm=self._norm(),
            ffn=parts(lin1=nn.Linear(width, wider), lin2=nn.Linear(wider, width)),
            output_layer_norm=self._norm(),
        )
        return layer

    def _behind_embeddings(self, layers: nn.ModuleList) -> Mapping[str, nn.Module]:
        return {"transformer": parts(layer=layers)}

    def _layers(self) -> Iterable[nn.Module]:
        layers: nn.ModuleList = self.transformer.layer
        return layers

    def _steps(self, layer: Any) -> Steps:
        heads, ffn = layer.attention, layer.ffn
        return Steps(
            query=heads.q_lin,
            key=heads.k_lin,
            value=heads.v_lin,
            out=heads.out_lin,
            attention_norm=layer.sa_layer_norm,
            up=ffn.lin1,
            down=ffn.lin2,
            output_norm=layer.output_layer_norm,
        )


DISTILBERT = Architecture(
    settings={
        **{
            {**_NAMES, **_DROPOUTS}.get(key, key): fits for key, fits in SETTINGS.items() if key != "layer_norm_eps"
        },
        # What decides nothing.
        "sinusoidal_pos_embds": a(bool),
        **dict.fromkeys(("qa_dropout", "seq_classif_dropout"), share(float, int)),
        "tie_weights_": exactly(True),
        "output_past": a(bool),
    },
    names=_NAMES,
    config_class=DistilBertConfig,
    model_class=DistilBertStandIn,
    tokenizers=(replace(BERT_TOKENIZER, name="DistilBert", inputs=("input_ids", "attention_mask")),),
)
