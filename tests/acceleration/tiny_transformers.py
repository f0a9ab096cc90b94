"""Tiny transformers of every architecture that can be read, with random weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from sentence_embedder.features import PackedTexts

VOCABULARY = 90
RAGGED = (9, 9, 1, 40, 3, 3, 17)


def _bert(config_class: type[Any], **options: Any) -> Any:
    return config_class(
        **{
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "max_position_embeddings": 64,
            **options,
        }
    )


def _llama(config_class: type[Any], **options: Any) -> Any:
    return _bert(
        config_class, **{"num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, **options}
    )


def _modernbert(**options: Any) -> Any:
    special = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    return _bert(
        transformers.ModernBertConfig,
        **{
            "local_attention": 8,
            "global_attn_every_n_layers": 3,
            "max_position_embeddings": 256,
            **special,
            **options,
        },
    )


def _t5(config_class: type[Any]) -> Any:
    return config_class(vocab_size=VOCABULARY, d_model=32, d_kv=12, d_ff=48, num_layers=3, num_heads=4)


def _gemma(**options: Any) -> Any:
    return _llama(
        transformers.Gemma3TextConfig,
        **{"num_key_value_heads": 1, "head_dim": 12, "query_pre_attn_scalar": 10, "sliding_window": 12, **options},
    )


def _distilbert(**options: Any) -> Any:
    return transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=3, n_heads=4, hidden_dim=48, max_position_embeddings=64, **options
    )


CONFIGS: Mapping[str, Callable[[], Any]] = {
    "bert": lambda: _bert(transformers.BertConfig),
    "bert-relu": lambda: _bert(transformers.BertConfig, hidden_act="relu"),
    "bert-tanh-gelu": lambda: _bert(transformers.BertConfig, hidden_act="gelu_new"),
    "roberta": lambda: _bert(transformers.RobertaConfig),
    "xlm-roberta": lambda: _bert(transformers.XLMRobertaConfig),
    "camembert": lambda: _bert(transformers.CamembertConfig),
    "distilbert": _distilbert,
    "mpnet": lambda: _bert(transformers.MPNetConfig),
    "modernbert": _modernbert,
    "modernbert-biased": lambda: _modernbert(attention_bias=True, mlp_bias=True, norm_bias=True),
    "qwen3": lambda: _llama(transformers.Qwen3Config),
    "qwen3-window": lambda: _llama(
        transformers.Qwen3Config, use_sliding_window=True, sliding_window=6, max_window_layers=1
    ),
    "qwen2": lambda: _llama(transformers.Qwen2Config),
    "llama": lambda: _llama(transformers.LlamaConfig),
    "albert": lambda: _bert(
        transformers.AlbertConfig, embedding_size=20, num_hidden_layers=3, num_hidden_groups=2, inner_group_num=2
    ),
    "electra": lambda: _bert(transformers.ElectraConfig, embedding_size=20),
    "electra-as-wide": lambda: _bert(transformers.ElectraConfig, embedding_size=32),
    "ernie": lambda: _bert(transformers.ErnieConfig),
    "ernie-with-tasks": lambda: _bert(transformers.ErnieConfig, use_task_id=True),
    "t5": lambda: _t5(transformers.T5Config),
    "mt5": lambda: _t5(transformers.MT5Config),
    "eurobert": lambda: _llama(transformers.EuroBertConfig, pad_token_id=0),
    "nomic": lambda: _bert(transformers.NomicBertConfig),
    "gte": lambda: _bert(transformers.GteConfig),
    "gte-untyped": lambda: _bert(transformers.GteConfig, type_vocab_size=0),
    "jina-v3": lambda: _bert(transformers.JinaEmbeddingsV3Config),
    "gemma": lambda: _gemma(
        sliding_window_pattern=2,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    ),
    "gemma-embedding": lambda: _gemma(use_bidirectional_attention=True, sliding_window_pattern=2),
    "mistral-window": lambda: _llama(transformers.MistralConfig, sliding_window=5),
}


def tiny_transformer(name: str, *, seed: int = 0) -> nn.Module:
    """A model of this architecture, in evaluation mode; its texts differ enough to tell mistakes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = CONFIGS[name]()
        auto_model: Any = transformers.AutoModelForTextEncoding if "t5" in name else transformers.AutoModel
        model: nn.Module = auto_model.from_config(config)
        with torch.no_grad():
            for its_name, parameter in model.named_parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.12)
                # A Gemma adds the 1 itself.
                if "norm" in its_name.lower() and its_name.endswith("weight") and "gemma" not in name:
                    parameter.add_(1)
    return model.eval()


def ragged_texts(lengths: tuple[int, ...] = RAGGED, *, seed: int = 0) -> PackedTexts:
    """Random texts of these lengths; none of their tokens is padding."""
    ids = np.random.default_rng(seed).integers(3, VOCABULARY, sum(lengths))
    return PackedTexts(columns={"input_ids": ids}, lengths=np.array(lengths))


@torch.no_grad()
def own_forward(model: Any, texts: PackedTexts) -> Tensor:
    """What the model itself makes of the texts, padded on the right: (tokens of all texts, dim)."""
    mask = torch.from_numpy(texts.mask)
    inputs = {"attention_mask": mask.long()}
    for name, column in texts.columns.items():
        inputs[name] = (
            torch.ones(mask.shape, dtype=torch.int64) if name == "input_ids" else torch.zeros_like(mask.long())
        )
        inputs[name][mask] = torch.from_numpy(column)
    embeddings: Tensor = model(**inputs, return_dict=True)[0][mask]
    return embeddings
