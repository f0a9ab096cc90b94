"""Losses that let a decoder restore a text from its embedding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.features import Features
from sentence_embedder.losses.embedding_loss import EmbeddingLoss, columns
from sentence_embedder.models.checkpoint import load_decoder, load_tokenizer


def restoring(logits: Tensor, token_ids: Tensor, padding: int | None) -> Tensor:
    """-log softmax(zₜ)ₓ for x the next token, the mean over all tokens of all texts that have a next one.

    Args:
        logits: zₜ, what the decoder makes of all tokens but the last, shape (rows, tokens - 1, vocabulary).
        token_ids: The texts, shape (rows, tokens).
        padding: The token that fills shorter texts, and is not to be restored.
    """
    expected = token_ids[:, 1:]
    ignored = -100 if padding is None else padding
    return functional.cross_entropy(logits.flatten(0, 1), expected.flatten(), ignore_index=ignored)


class DenoisingAutoEncoderLoss(EmbeddingLoss):
    """A decoder that sees the embedding of a damaged text alone should restore the text (TSDAE; Wang et al. 2021,
    https://arxiv.org/abs/2104.06979).

    ``restoring`` of the whole texts, where the decoder attends to the embedding of the damaged ones. Columns are
    damaged texts and whole ones; labels mean nothing. The decoder is a part of the loss, and learns as well.

    Args:
        model: The model that is trained; its first module is a Transformer.
        decoder_name_or_path: The checkpoint of the decoder, if it is not that of the model; of no account for a
            tied one.
        tie_encoder_decoder: Whether the decoder has the weights of the model's own transformer, where both have
            weights of one name and shape: all but its attention to the embedding, and the head.

    Raises:
        ValueError: The first module is no Transformer, or there is no decoder of that architecture, or none for
            embeddings of that width.
    """

    def __init__(
        self, model: nn.Module, decoder_name_or_path: str | None = None, tie_encoder_decoder: bool = True
    ) -> None:
        super().__init__(model)
        encoder: Any = getattr(next(model.children(), None), "auto_model", None)
        if encoder is None:
            raise ValueError(
                "decoder: expected a model whose first module is a Transformer, found "
                f"{[type(module).__name__ for module in model.children()]}"
            )
        own_name: str = encoder.config._name_or_path
        name = own_name if tie_encoder_decoder or decoder_name_or_path is None else decoder_name_or_path
        self.decoder_name_or_path = name
        self.tie_encoder_decoder = tie_encoder_decoder
        own_tokenizer: Any = model.tokenizer
        tokenizer = own_tokenizer if name == own_name else _tokenizer_of(name)
        self.need_retokenization = tokenizer.get_vocab() != own_tokenizer.get_vocab()
        self._tokenizers = (own_tokenizer, tokenizer)
        weight = next(encoder.parameters())
        self.decoder = load_decoder(name, weight.dtype).to(weight.device)
        if tie_encoder_decoder:
            tie(self.decoder, encoder)

    def embeddings(self, sentence_features: Iterable[Features]) -> list[Tensor]:
        """The sentence embeddings of the damaged texts, shape (rows, dim)."""
        damaged, _ = columns(list(sentence_features), 2)
        return [self.model(damaged)["sentence_embedding"]]

    def targets(self, sentence_features: Sequence[Features], labels: Any) -> Tensor:
        """The token ids of the whole texts for the decoder, shape (rows, tokens)."""
        del labels
        _, whole = columns(list(sentence_features), 2)
        token_ids: Tensor = whole["input_ids"]
        if not self.need_retokenization:
            return token_ids
        of_model, of_decoder = self._tokenizers
        texts = of_model.batch_decode(token_ids, skip_special_tokens=True)
        tokenized = of_decoder(texts, padding=True, truncation=True, return_tensors="pt")
        made: Tensor = tokenized["input_ids"].to(token_ids.device)
        return made

    def of_embeddings(self, embeddings: list[Tensor], targets: Tensor) -> Tensor:
        """The loss of the embeddings of damaged texts, one column, and the token ids of whole ones.

        Raises:
            ValueError: The decoder attends to embeddings of another width.
        """
        (embedding,) = embeddings
        width = self.decoder.config.hidden_size
        if embedding.shape[-1] != width:
            raise ValueError(f"decoder: expected embeddings of its width, {width}, found {embedding.shape[-1]}")
        given = targets[:, :-1]
        # No token sees those behind it, so padding at the end needs no mask.
        made = self.decoder(
            input_ids=given,
            attention_mask=torch.ones_like(given),
            encoder_hidden_states=embedding.unsqueeze(1),
            use_cache=False,
        )
        return restoring(made.logits, targets, self._tokenizers[1].pad_token_id)

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {
            "decoder_name_or_path": self.decoder_name_or_path,
            "tie_encoder_decoder": self.tie_encoder_decoder,
            "need_retokenization": self.need_retokenization,
        }


def _tokenizer_of(name: str) -> Any:
    """The tokenizer of a decoder; one that has no padding pads with the end of a text."""
    tokenizer = load_tokenizer(name, None, {})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def tie(decoder: Any, encoder: nn.Module) -> None:
    """Let a decoder have the parameters of an encoder, where both have some of one name and shape.

    Args:
        decoder: A language model of transformers, which changes.
        encoder: A model of transformers, which stays as it is.

    Raises:
        ValueError: They have none in common.
    """
    theirs = dict(encoder.named_parameters())
    rows = encoder.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    if decoder.get_input_embeddings().weight.shape[0] != rows:  # tokens were added to the encoder
        decoder.resize_token_embeddings(rows, mean_resizing=False)
    body = decoder.base_model
    shared = [name for name, own in body.named_parameters() if name in theirs and theirs[name].shape == own.shape]
    if not shared:
        raise ValueError(
            f"decoder: expected weights of the names of a {type(encoder).__name__}, found none in a "
            f"{type(decoder).__name__}; with tie_encoder_decoder=False it has its own"
        )
    for name in shared:
        place, _, own_name = name.rpartition(".")
        setattr(body.get_submodule(place), own_name, theirs[name])
    decoder.tie_weights()  # the head has the weights of the token embeddings, too
