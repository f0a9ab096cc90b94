"""LSTM: a recurrent layer over the tokens of each text."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sentence_embedder.argument_names import also_named
from sentence_embedder.features import Features
from sentence_embedder.formats import LSTMConfig
from sentence_embedder.models.module import Module, derived


class LSTM(Module):
    """A long short-term memory over the token embeddings (Hochreiter and Schmidhuber 1997,
    https://doi.org/10.1162/neco.1997.9.8.1735).

    Args:
        word_embedding_dimension: Width of the token embeddings.
        hidden_dim: Width of the state, in each direction.
        num_layers: How many layers lie on each other.
        dropout: The share of values that are zeroed between layers in training, 0 to 1.
        bidirectional: Whether the tokens are also read from the end.
    """

    config_class = LSTMConfig
    config_file_name = "lstm_config.json"
    config: LSTMConfig

    @also_named(embedding_dimension="word_embedding_dimension")
    def __init__(
        self,
        word_embedding_dimension: int,
        hidden_dim: int,
        num_layers: int = 1,
        dropout: float = 0,
        bidirectional: bool = True,
    ) -> None:
        super().__init__(
            LSTMConfig(
                word_embedding_dimension=word_embedding_dimension,
                hidden_dim=hidden_dim,
                num_layers=num_layers,
                dropout=dropout,
                bidirectional=bidirectional,
            )
        )
        self.encoder = nn.LSTM(
            word_embedding_dimension,
            hidden_dim,
            num_layers=num_layers,
            dropout=dropout,
            bidirectional=bidirectional,
            batch_first=True,
        )

    @classmethod
    def from_config(cls, config: LSTMConfig) -> LSTM:
        """The module with these settings."""
        module = cls(
            config.word_embedding_dimension,
            config.hidden_dim,
            config.num_layers,
            config.dropout,
            config.bidirectional,
        )
        module.config = config
        return module

    def forward(self, features: Features) -> Features:
        """Maps ``token_embeddings`` to (texts, tokens, directions × hidden_dim)."""
        embeddings = features["token_embeddings"]
        # A text without tokens is read as one token of padding: there is no sequence of length zero.
        lengths = features["attention_mask"].sum(dim=1).clamp(min=1).cpu()
        packed = pack_padded_sequence(embeddings, lengths, batch_first=True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.encoder(packed)[0], batch_first=True, total_length=embeddings.shape[1])
        return {**features, "token_embeddings": states}

    def get_word_embedding_dimension(self) -> int:
        """Width of the token embeddings it makes."""
        return self.config.hidden_dim * (2 if self.config.bidirectional else 1)

    def get_embedding_dimension(self) -> int:
        """The same, under its newer name."""
        return self.get_word_embedding_dimension()

    @derived
    def embeddings_dimension(self) -> int:
        """Width of the token embeddings it makes."""
        return self.get_word_embedding_dimension()
