"""CNN: convolutions along the tokens of each text."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from sentence_embedder.argument_names import also_named
from sentence_embedder.features import Features
from sentence_embedder.formats import CNNConfig
from sentence_embedder.models.module import Module, derived


class CNN(Module):
    """One-dimensional convolutions of several widths over the token embeddings, side by side (Kim 2014,
    https://arxiv.org/abs/1408.5882).

    Padding counts as zero, so a text's embedding does not depend on the others of its batch.

    Args:
        in_word_embedding_dimension: Width of the token embeddings.
        out_channels: How many channels each convolution makes.
        kernel_sizes: How many tokens each convolution looks at; odd, or texts get shorter.
        stride_sizes: By how many tokens each moves on; by default 1.

    Raises:
        ValueError: There are not as many strides as kernels.
    """

    config_class = CNNConfig
    config_file_name = "cnn_config.json"
    config: CNNConfig

    @also_named(in_embedding_dimension="in_word_embedding_dimension")
    def __init__(
        self,
        in_word_embedding_dimension: int,
        out_channels: int = 256,
        kernel_sizes: Sequence[int] = (1, 3, 5),
        stride_sizes: Sequence[int] | None = None,
    ) -> None:
        strides = (1,) * len(kernel_sizes) if stride_sizes is None else tuple(stride_sizes)
        if len(strides) != len(kernel_sizes):
            raise ValueError(f"expected a stride for each of {len(kernel_sizes)} kernels, found {len(strides)}")
        if len(set(strides)) > 1:
            raise ValueError(f"expected one stride for all kernels, whose results are joined, found {strides}")
        super().__init__(
            CNNConfig(
                in_word_embedding_dimension=in_word_embedding_dimension,
                out_channels=out_channels,
                kernel_sizes=tuple(kernel_sizes),
                stride_sizes=None if set(strides) <= {1} else strides,
            )
        )
        self.convs = nn.ModuleList(
            nn.Conv1d(in_word_embedding_dimension, out_channels, size, stride, padding=(size - 1) // 2)
            for size, stride in zip(kernel_sizes, strides, strict=True)
        )

    @classmethod
    def from_config(cls, config: CNNConfig) -> CNN:
        """The module with these settings."""
        module = cls(
            config.in_word_embedding_dimension, config.out_channels, config.kernel_sizes, config.stride_sizes
        )
        module.config = config
        return module

    def forward(self, features: Features) -> Features:
        """Maps ``token_embeddings`` to (texts, tokens, channels of all convolutions)."""
        embeddings = features["token_embeddings"]
        mask = features.get("attention_mask")
        if mask is not None:
            embeddings = embeddings.where(mask.bool().unsqueeze(-1), 0)
        columns = embeddings.transpose(1, 2)
        convolved = torch.cat([convolution(columns) for convolution in self.convs], dim=1)
        made = {**features, "token_embeddings": convolved.transpose(1, 2)}
        if mask is not None:
            stride: int = (self.config.stride_sizes or (1,))[0]
            made["attention_mask"] = mask[:, ::stride][:, : convolved.shape[2]]
        return made

    def get_word_embedding_dimension(self) -> int:
        """Width of the token embeddings it makes."""
        return self.config.out_channels * len(self.config.kernel_sizes)

    def get_embedding_dimension(self) -> int:
        """The same, under its newer name."""
        return self.get_word_embedding_dimension()

    @derived
    def embeddings_dimension(self) -> int:
        """Width of the token embeddings it makes."""
        return self.get_word_embedding_dimension()

    @derived
    def stride_sizes(self) -> list[int]:
        """By how many tokens each convolution moves on."""
        return list(self.config.stride_sizes or (1,) * len(self.config.kernel_sizes))
