"""Architecture: what is known of a kind of checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sentence_embedder.models.stand_ins.known_tokenizer import KnownTokenizer
from sentence_embedder.models.stand_ins.known_values import (
    Fits,
    a,
    are_labels,
    are_texts,
    exactly,
    none_or,
    share,
    whole,
)
from sentence_embedder.models.stand_ins.model import StandInConfig, StandInModel


@dataclass(frozen=True)
class Architecture:
    """What is known of a kind of checkpoint.

    Args:
        settings: Keys of ``config.json`` → their values.
        config_class: What is made of them.
        model_class: What is made of that.
        tokenizers: What its tokenizer may be like: one of a type.
        names: Field of the configuration → its key in ``config.json``, if that is another.
    """

    settings: Mapping[str, Fits]
    config_class: type[StandInConfig]
    model_class: type[StandInModel]
    tokenizers: Sequence[KnownTokenizer]
    names: Mapping[str, str] = field(default_factory=dict)


SETTINGS: Mapping[str, Fits] = {
    # What decides the embeddings.
    "model_type": a(str),  # it has been looked up
    "hidden_act": exactly("gelu"),
    "layer_norm_eps": share(float),
    **dict.fromkeys(("vocab_size", "hidden_size", "intermediate_size"), whole(1)),
    "max_position_embeddings": whole(1),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads"), whole(1, 1_000)),
    # What does not.
    "architectures": none_or(are_texts),
    **dict.fromkeys(("attention_probs_dropout_prob", "hidden_dropout_prob"), share(float, int)),
    "id2label": are_labels,
    "initializer_range": share(float),
    "label2id": a(dict),
    **dict.fromkeys(("_name_or_path", "transformers_version"), a(str)),
    **dict.fromkeys(("dtype", "torch_dtype"), exactly("float32", "float16", "bfloat16")),
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), none_or(whole())),
    "tie_word_embeddings": a(bool),
}
"""Keys that all have → their values."""
