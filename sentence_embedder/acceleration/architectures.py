"""Which architectures can be read into an Encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sentence_embedder.acceleration.encoder import Encoder
from sentence_embedder.acceleration.families.bert import (
    read_albert,
    read_bert,
    read_distilbert,
    read_electra,
    read_ernie,
    read_mpnet,
    read_roberta,
)
from sentence_embedder.acceleration.families.gemma import read_gemma
from sentence_embedder.acceleration.families.llama import read_eurobert, read_llama
from sentence_embedder.acceleration.families.modernbert import read_modernbert
from sentence_embedder.acceleration.families.parts import UnreadableError
from sentence_embedder.acceleration.families.rotary_bert import read_rotary_bert
from sentence_embedder.acceleration.families.t5 import read_t5
from sentence_embedder.acceleration.linear import Products
from sentence_embedder.acceleration.patches import is_patched

Reader = Callable[[nn.Module, Any, Products], Encoder]

READERS: Mapping[str, Reader] = {
    "albert": read_albert,
    "bert": read_bert,
    "camembert": read_roberta,
    "distilbert": read_distilbert,
    "electra": read_electra,
    "ernie": read_ernie,
    "eurobert": read_eurobert,
    "gemma3_text": read_gemma,
    "gte": read_rotary_bert,
    "jina_embeddings_v3": read_rotary_bert,
    "llama": read_llama,
    "mistral": read_llama,
    "modernbert": read_modernbert,
    "mpnet": read_mpnet,
    "mt5": read_t5,
    "nomic_bert": read_rotary_bert,
    "qwen2": read_llama,
    "qwen3": read_llama,
    "roberta": read_roberta,
    "t5": read_t5,
    "xlm-roberta": read_roberta,
}
"""``model_type`` in a configuration → what reads such a model."""


def read_encoder(model: nn.Module, products: Products) -> Encoder:
    """The encoder with the weights of a model of Hugging Face transformers.

    Args:
        model: What ``AutoModel`` loads.
        products: How the linear layers are made.

    Raises:
        UnreadableError: There is no reader for this architecture, or the model has something that the reader does
            not know.
    """
    config: Any = model.config
    reader = READERS.get(config.model_type)
    if reader is None:
        raise UnreadableError(f"there is no lean forward pass for {config.model_type}")
    if is_patched(model):
        raise UnreadableError("a class, method or attention function that is not of transformers")
    try:
        with torch.no_grad():
            encoder = reader(model, config, products)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnreadableError(f"{config.model_type}: expected something else: {error!r}") from error
    if not encoder.layers:
        raise UnreadableError("a model without layers")
    return encoder
