"""Pooling: from one embedding a token to one embedding a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.argument_names import also_named
from sentence_embedder.features import Features
from sentence_embedder.formats import POOLING_FLAGS, POOLING_MODES, PoolingConfig, PoolingMode
from sentence_embedder.models.module import Module, derived


@dataclass(frozen=True)
class _Tokens:
    """Token embeddings of a batch, and which of them count.

    Args:
        embeddings: Shape (texts, tokens, dim).
        real: Whether a place holds a token rather than padding, shape (texts, tokens), bool.
        counted: Likewise, without the tokens of a prompt that is left out.
        weights_sum: What the sum of weighted token embeddings is divided by, shape (texts,), if a module
            has weighted them.
        cls: The embedding of the CLS token, shape (texts, dim), if the model gives it apart.
    """

    embeddings: Tensor
    real: Tensor
    counted: Tensor
    weights_sum: Tensor | None
    cls: Tensor | None

    def summed(self, weights: Tensor | None = None) -> Tensor:
        """The sum of the embeddings that count, with weights (texts, tokens) if there are any, in float32 at least:
        halves lose digits.
        """
        wide = torch.promote_types(self.embeddings.dtype, torch.float32)
        # where, not only a product: what stands at padding may be NaN, and NaN × 0 is NaN.
        counted = self.embeddings.where(self.counted.unsqueeze(-1), 0)
        weighted = counted if weights is None else counted * weights.to(wide).unsqueeze(-1)
        return weighted.sum(dim=1, dtype=wide)

    def divisor(self, weights: Tensor | None = None) -> Tensor:
        """What the sum is divided by for a mean, shape (texts, 1)."""
        total = self.weights_sum
        if total is None:
            total = (self.counted if weights is None else weights).sum(dim=1, dtype=torch.float32)
        return total.unsqueeze(-1).clamp(min=1e-9)

    def at(self, places: Tensor) -> Tensor:
        """The embedding at one place (texts,) of each text, zero where no token counts: (texts, dim)."""
        rows = torch.arange(len(places), device=places.device)
        return self.embeddings[rows, places].where(self.counted.any(dim=1, keepdim=True), 0)


def _cls(tokens: _Tokens) -> Tensor:
    return tokens.at(_first(tokens.counted)) if tokens.cls is None else tokens.cls


def _max(tokens: _Tokens) -> Tensor:
    lowest = torch.finfo(tokens.embeddings.dtype).min
    highest = tokens.embeddings.where(tokens.counted.unsqueeze(-1), lowest).amax(dim=1)
    return highest.where(tokens.counted.any(dim=1, keepdim=True), 0)


def _mean(tokens: _Tokens) -> Tensor:
    return tokens.summed() / tokens.divisor()


def _mean_sqrt_len(tokens: _Tokens) -> Tensor:
    return tokens.summed() / tokens.divisor().sqrt()


def _weighted_mean(tokens: _Tokens) -> Tensor:
    # Places are counted from the first real token, so that padding on the left changes nothing.
    places = torch.arange(1, tokens.real.shape[1] + 1, device=tokens.real.device)
    weights = ((places - _first(tokens.real).unsqueeze(-1)) * tokens.counted).float()
    return tokens.summed(weights) / tokens.divisor(weights)


def _last_token(tokens: _Tokens) -> Tensor:
    return tokens.at(tokens.counted.shape[1] - 1 - _first(tokens.counted.flip(1)))


def _first(mask: Tensor) -> Tensor:
    """The first place that is true in each row, 0 where none is: (texts, tokens) → (texts,)."""
    return mask.int().argmax(dim=1)


def _firsts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(lengths) - lengths


def _lasts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.cumsum(lengths) - 1


def pool_packed(tokens: Tensor, lengths: NDArray[np.int64], modes: Sequence[PoolingMode]) -> Tensor:
    """The embeddings of texts that lie end to end on the CPU, all of whose tokens count.

    Args:
        tokens: Their token embeddings, shape (tokens of all texts, dim).
        lengths: How many tokens each text has, at least one, shape (texts,).
        modes: Those of a Pooling that ``takes_packed``.

    Returns:
        Shape (texts, dim of the embedding), in the format of the tokens.
    """
    wide = tokens if tokens.dtype in (torch.float32, torch.float64) else tokens.float()
    pooled = [_packed(wide, lengths, mode) for mode in modes]
    joined = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)
    return joined if joined.dtype == tokens.dtype else joined.to(tokens.dtype)


def _packed(tokens: Tensor, lengths: NDArray[np.int64], mode: PoolingMode) -> Tensor:
    """What a mode makes of packed texts."""
    if mode == "mean":
        return _packed_mean(tokens, lengths)
    return tokens.index_select(0, torch.from_numpy(_ONE_TOKEN[mode](lengths)))


def _packed_mean(tokens: Tensor, lengths: NDArray[np.int64]) -> Tensor:
    if len(lengths) == 1:  # a lone text is what callers wait for
        return tokens.mean(dim=0, keepdim=True)
    texts = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths))
    sums = tokens.new_zeros(len(lengths), tokens.shape[1]).index_add_(0, texts, tokens)
    return sums.div_(torch.from_numpy(lengths).unsqueeze(-1))


_ONE_TOKEN: Mapping[PoolingMode, Callable[[NDArray[np.int64]], NDArray[np.int64]]] = {
    "cls": _firsts,
    "lasttoken": _lasts,
}
"""Those for which one token of a text is enough: how many tokens each packed text has → where that token lies."""

_PACKED_MODES = frozenset({"mean", *_ONE_TOKEN})
"""Those of the modes that are made of packed texts, too, each of which has tokens."""

_MODES: Mapping[PoolingMode, Callable[[_Tokens], Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last_token,
}


def _flag(mode: PoolingMode) -> property:
    def get(pooling: Pooling) -> bool:
        return mode in pooling.config.pooling_modes

    def put(pooling: Pooling, is_set: bool) -> None:
        modes = pooling.config.pooling_modes
        if is_set and mode not in modes:
            # In the order of the table, as flags have no other, unless the caller has given one.
            joined = [*modes, mode]
            is_ordered = list(modes) == sorted(modes, key=POOLING_MODES.index)
            modes = sorted(joined, key=POOLING_MODES.index) if is_ordered else joined
        elif not is_set:
            modes = [one for one in modes if one != mode]
        pooling.config = replace(pooling.config, pooling_modes=tuple(modes))

    return property(get, put, doc=f"Whether {mode} is a mode; setting it changes the modes, and the width.")


class Pooling(Module):
    """One embedding a text, out of the embeddings of its tokens.

    Modes: ``cls``: that of the first token; ``max``: the highest value of each dimension; ``mean``: the
    average; ``mean_sqrt_len_tokens``: the sum over the square root of the number of tokens;
    ``weightedmean``: the average with weights 1, 2, 3 … (Muennighoff 2022, https://arxiv.org/abs/2202.08904);
    ``lasttoken``: that of the last token. Padding never counts, on whichever side it stands. The results of
    several modes are concatenated. A text of which no token counts has the embedding zero.

    Args:
        word_embedding_dimension: Width of the token embeddings.
        pooling_mode: One mode, or several joined in the order given; takes precedence over the flags.
        pooling_mode_cls_token: A flag for ``cls``, like the five that follow for their modes. Results of
            modes given by flags stand in the order cls, max, mean, mean_sqrt_len_tokens, weightedmean,
            lasttoken.
        pooling_mode_max_tokens: See above.
        pooling_mode_mean_tokens: See above; true if no mode is given at all.
        pooling_mode_mean_sqrt_len_tokens: See above.
        pooling_mode_weightedmean_tokens: See above.
        pooling_mode_lasttoken: See above.
        include_prompt: Whether the tokens of a prompt count (INSTRUCTOR models leave them out).

    Raises:
        ValueError: There is no such mode, or ``pooling_mode`` is empty.
    """

    config_class = PoolingConfig
    config: PoolingConfig

    POOLING_MODES: tuple[PoolingMode, ...] = POOLING_MODES

    pooling_mode_cls_token = _flag("cls")
    pooling_mode_max_tokens = _flag("max")
    pooling_mode_mean_tokens = _flag("mean")
    pooling_mode_mean_sqrt_len_tokens = _flag("mean_sqrt_len_tokens")
    pooling_mode_weightedmean_tokens = _flag("weightedmean")
    pooling_mode_lasttoken = _flag("lasttoken")

    @also_named(embedding_dimension="word_embedding_dimension")
    def __init__(
        self,
        word_embedding_dimension: int,
        pooling_mode: str | Sequence[str] | None = None,
        pooling_mode_cls_token: bool = False,
        pooling_mode_max_tokens: bool = False,
        pooling_mode_mean_tokens: bool = True,
        pooling_mode_mean_sqrt_len_tokens: bool = False,
        pooling_mode_weightedmean_tokens: bool = False,
        pooling_mode_lasttoken: bool = False,
        include_prompt: bool = True,
    ) -> None:
        flags: dict[PoolingMode, bool] = {
            "cls": pooling_mode_cls_token,
            "max": pooling_mode_max_tokens,
            "mean": pooling_mode_mean_tokens,
            "mean_sqrt_len_tokens": pooling_mode_mean_sqrt_len_tokens,
            "weightedmean": pooling_mode_weightedmean_tokens,
            "lasttoken": pooling_mode_lasttoken,
        }
        if pooling_mode is None:
            modes: tuple[Any, ...] = tuple(mode for mode in POOLING_MODES if flags[mode]) or ("mean",)
        else:
            named = (pooling_mode,) if isinstance(pooling_mode, str) else pooling_mode
            modes = tuple(mode.lower() for mode in named)
            if not modes:
                raise ValueError(f"pooling_mode: expected at least one of {list(POOLING_MODES)}, found none")
        super().__init__(
            PoolingConfig(
                word_embedding_dimension=word_embedding_dimension,
                pooling_modes=modes,
                include_prompt=include_prompt,
            )
        )

    @classmethod
    def from_config(cls, config: PoolingConfig) -> Pooling:
        """The module with these settings."""
        module = cls(config.word_embedding_dimension)
        module.config = config
        return module

    @property
    def include_prompt(self) -> bool:
        """Whether the tokens of a prompt count."""
        return self.config.include_prompt

    @include_prompt.setter
    def include_prompt(self, include_prompt: bool) -> None:
        self.config = replace(self.config, include_prompt=include_prompt)

    @property
    def pooling_output_dimension(self) -> int:
        """Width of the embedding: that of a token times the number of modes."""
        return self.config.word_embedding_dimension * len(self.config.pooling_modes)

    def get_sentence_embedding_dimension(self) -> int:
        """Width of the embedding."""
        return self.pooling_output_dimension

    def get_embedding_dimension(self) -> int:
        """The same, under its newer name."""
        return self.get_sentence_embedding_dimension()

    @derived
    def pooling_mode(self) -> str | tuple[PoolingMode, ...]:
        """The mode, or the modes in their order, as the constructor takes them."""
        modes = tuple(self.config.pooling_modes)
        return modes[0] if len(modes) == 1 else modes

    def get_pooling_mode_str(self) -> str:
        """The modes, joined by ``+``, in the order in which config.json lists them."""
        return "+".join(mode for mode in POOLING_FLAGS if mode in self.config.pooling_modes)

    def check_can_be_saved(self) -> None:
        """See ``Module.check_can_be_saved``.

        Raises:
            ValueError: All flags are false: that would be read as the default.
        """
        self._check_modes()

    def _check_modes(self) -> None:
        if not self.config.pooling_modes:
            raise ValueError("Pooling: expected at least one mode, found none: set one of the flags pooling_mode_…")

    def extra_repr(self) -> str:
        """The settings, inside the parentheses of ``repr``."""
        modes = "+".join(self.config.pooling_modes)
        return f"{self.config.word_embedding_dimension}, {modes!r}, include_prompt={self.include_prompt}"

    def forward(self, features: Features) -> Features:
        """Adds ``sentence_embedding`` (texts, dim), from ``token_embeddings`` and ``attention_mask``.

        Raises:
            ValueError: All flags are false.
        """
        self._check_modes()
        tokens = self._tokens(features)
        pooled = [_MODES[mode](tokens).to(tokens.embeddings.dtype) for mode in self.config.pooling_modes]
        joined = pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)
        return {**features, "sentence_embedding": joined}

    @property
    def takes_packed(self) -> bool:
        """Whether all of the modes are made of packed texts, too."""
        modes = set(self.config.pooling_modes)
        return bool(modes) and modes <= _PACKED_MODES

    @property
    def takes_one_token(self) -> bool:
        """Whether the embedding of a text is that of one of its tokens."""
        modes = self.config.pooling_modes
        return len(modes) == 1 and modes[0] in _ONE_TOKEN

    def places(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where those tokens lie, if it takes one of each text, among packed texts all of whose tokens count.

        Args:
            lengths: How many tokens each text has, at least one, shape (texts,).

        Returns:
            Shape (texts,).
        """
        return _ONE_TOKEN[self.config.pooling_modes[0]](lengths)

    def _tokens(self, features: Features) -> _Tokens:
        embeddings: Tensor = features["token_embeddings"]
        mask = features.get("attention_mask")
        real = torch.ones_like(embeddings[..., 0], dtype=torch.bool) if mask is None else mask.bool()
        counted = real
        if not self.include_prompt and "prompt_length" in features:
            places = torch.arange(real.shape[1], device=real.device)
            # One number for the batch, or one a text: a data loader makes tensors of numbers.
            prompt_length = torch.as_tensor(features["prompt_length"], device=real.device).reshape(-1, 1)
            counted = real & (places >= _first(real).unsqueeze(-1) + prompt_length)
        return _Tokens(
            embeddings=embeddings,
            real=real,
            counted=counted,
            weights_sum=features.get("token_weights_sum"),
            cls=features.get("cls_token_embeddings"),
        )
