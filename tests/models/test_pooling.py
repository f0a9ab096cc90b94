"""Pooling: each mode against its definition, text by text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentence_embedder import SentenceTransformer
from sentence_embedder.features import Features
from sentence_embedder.formats import POOLING_MODES, PoolingMode
from sentence_embedder.models import Pooling
from sentence_embedder.models.pooling import pool_packed

DIM = 5

Array = np.ndarray[Any, Any]

DEFINITIONS: dict[PoolingMode, Callable[[Array, Array], Array]] = {
    # Embeddings of the tokens that count (tokens, dim), and their places among a text's tokens, from 1.
    "cls": lambda tokens, _places: tokens[0],
    "max": lambda tokens, _places: tokens.max(0),
    "mean": lambda tokens, _places: tokens.sum(0) / len(tokens),
    "mean_sqrt_len_tokens": lambda tokens, _places: tokens.sum(0) / np.sqrt(len(tokens)),
    "weightedmean": lambda tokens, places: (tokens * places[:, None]).sum(0) / places.sum(),
    "lasttoken": lambda tokens, _places: tokens[-1],
}


_PACKED: list[PoolingMode] = ["cls", "mean", "lasttoken"]


def _features(lengths: list[int], side: str, seed: int, padding: float = 7.0) -> tuple[Features, list[Array]]:
    """A padded batch of random token embeddings, and the embeddings of each text."""
    generator = np.random.default_rng(seed)
    width = max(1, *lengths)
    texts = [generator.standard_normal((length, DIM)).astype(np.float32) for length in lengths]
    batch = np.full((len(texts), width, DIM), padding, dtype=np.float32)
    mask = np.zeros((len(texts), width), dtype=np.int64)
    for row, text in enumerate(texts):
        places = slice(0, len(text)) if side == "right" else slice(width - len(text), width)
        batch[row, places], mask[row, places] = text, 1
    return {"token_embeddings": torch.from_numpy(batch), "attention_mask": torch.from_numpy(mask)}, texts


def _expected(text: Array, modes: list[PoolingMode], prompt_length: int) -> Array:
    counted, places = text[prompt_length:], np.arange(1, len(text) + 1)[prompt_length:]
    if len(counted) == 0:
        return np.zeros(DIM * len(modes), dtype=np.float32)
    return np.concatenate([DEFINITIONS[mode](counted, places) for mode in modes])


@settings(max_examples=150)
@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    side=st.sampled_from(["left", "right"]),
    modes=st.lists(st.sampled_from(POOLING_MODES), min_size=1, max_size=6, unique=True),
    prompt_length=st.integers(0, 3),
    padding=st.sampled_from([7.0, float("nan"), float("inf")]),
    seed=st.integers(0, 99),
)
def test_every_mode_is_what_it_is_defined_as(
    lengths: list[int], side: str, modes: list[PoolingMode], prompt_length: int, padding: float, seed: int
) -> None:
    """Alone and joined in any order, padded on either side with whatever, with a prompt left out or not, each
    mode is what it is defined as; a text of which no token counts is zero.
    """
    features, texts = _features(lengths, side, seed, padding)
    features["prompt_length"] = prompt_length

    pooled = Pooling(DIM, modes, include_prompt=False)(features)["sentence_embedding"]

    expected = np.stack([_expected(text, modes, prompt_length) for text in texts])
    np.testing.assert_allclose(pooled.numpy(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=100)
@given(
    lengths=st.lists(st.one_of(st.integers(1, 6), st.just(700)), min_size=1, max_size=4),
    modes=st.lists(st.sampled_from(_PACKED), min_size=1, max_size=3, unique=True),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    seed=st.integers(0, 99),
)
def test_packed_texts(lengths: list[int], modes: list[PoolingMode], dtype: torch.dtype, seed: int) -> None:
    """Of texts that lie end to end, some modes make what they make of padded texts."""
    features, texts = _features(lengths, "right", seed)
    pooling = Pooling(DIM, modes)
    expected = pooling({**features, "token_embeddings": features["token_embeddings"].to(dtype)})

    tokens = torch.from_numpy(np.concatenate(texts)).to(dtype)
    pooled = pool_packed(tokens, np.array(lengths), pooling.config.pooling_modes)

    tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(pooled, expected["sentence_embedding"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_who_takes_packed_texts(mode: PoolingMode) -> None:
    """It is for all of the modes of a Pooling, or none."""
    assert Pooling(DIM, mode).takes_packed == (mode in _PACKED)
    assert Pooling(DIM, ["mean", mode]).takes_packed == (mode in _PACKED)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_who_takes_one_token(mode: PoolingMode) -> None:
    """Alone, the modes of the first and the last token do; where it lies, the packed embeddings are the pooled."""
    pooling, lengths = Pooling(DIM, mode), np.array([3, 1, 2])
    tokens = torch.arange(6.0 * DIM).view(6, DIM)

    assert pooling.takes_one_token == (mode in {"cls", "lasttoken"})
    assert not Pooling(DIM, ["mean", mode]).takes_one_token
    if pooling.takes_one_token:
        assert torch.equal(
            tokens[pooling.places(lengths)], pool_packed(tokens, lengths, pooling.config.pooling_modes)
        )


_FLAGS: dict[PoolingMode, str] = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@given(modes=st.lists(st.sampled_from(POOLING_MODES), min_size=1, unique=True), starts_empty=st.booleans())
def test_flags_are_set(modes: list[PoolingMode], starts_empty: bool) -> None:
    """Flags that are set one by one, in any order, are those that the constructor takes; the width follows."""
    flags: dict[str, Any] = {flag: mode in modes for mode, flag in _FLAGS.items()}
    pooling, expected = Pooling(DIM), Pooling(DIM, **flags)
    if starts_empty:
        pooling.pooling_mode_mean_tokens = False

    for mode in [*modes, *(mode for mode in POOLING_MODES if mode not in modes)]:
        setattr(pooling, _FLAGS[mode], mode in modes)

    assert pooling.config == expected.config
    assert pooling.get_sentence_embedding_dimension() == DIM * len(modes)
    assert all(getattr(pooling, flag) == (mode in modes) for mode, flag in _FLAGS.items())


def test_a_flag_comes_last_in_an_order_of_ones_own() -> None:
    """Modes that were given in another order than that of flags keep it."""
    pooling = Pooling(DIM, ["mean", "cls"])

    pooling.pooling_mode_max_tokens = True
    pooling.pooling_mode_mean_tokens = True

    assert pooling.config.pooling_modes == ("mean", "cls", "max")


def test_encode_follows_the_flags(model: SentenceTransformer) -> None:
    """A model that has encoded with one mode encodes with another, or several, from when it is set."""
    texts = ["the cat sat on the mat", "hello world"]
    mean = model.encode(texts)
    model[1].pooling_mode_mean_tokens = False
    model[1].pooling_mode_cls_token = True
    cls = model.encode(texts)
    model[1].pooling_mode_mean_tokens = True

    both = model.encode(texts)

    assert model.get_sentence_embedding_dimension() == both.shape[1]
    assert np.abs(mean - cls).max() > 1e-3
    np.testing.assert_allclose(both, np.concatenate([cls, mean], axis=1), rtol=1e-5, atol=1e-6)


def test_without_any_flag_nothing_is_pooled(tmp_path: Path) -> None:
    """A Pooling all of whose flags are false is an error when it is used or saved, and no other one in silence."""
    features, _ = _features([3], "right", 0)
    pooling = Pooling(DIM)
    pooling.pooling_mode_mean_tokens = False

    assert not pooling.takes_packed
    for use in (lambda: pooling(features), lambda: pooling.save(tmp_path)):
        with pytest.raises(
            ValueError, match="Pooling: expected at least one mode, found none: set one of the flags"
        ):
            use()
    with pytest.raises(ValueError, match=r"pooling_mode: expected at least one of .* found none"):
        Pooling(DIM, ())


def test_the_prompt_counts_unless_it_is_left_out() -> None:
    """prompt_length says nothing to a pooling that includes the prompt."""
    features, texts = _features([4, 2], "right", 0)

    pooled = Pooling(DIM)({**features, "prompt_length": 1})["sentence_embedding"]

    np.testing.assert_allclose(pooled.numpy(), np.stack([text.mean(0) for text in texts]), rtol=1e-5)


@pytest.mark.parametrize("prompt_length", [torch.tensor([2]), torch.tensor([2, 2]), 2], ids=str)
def test_the_length_of_a_prompt_may_be_a_tensor(prompt_length: Any) -> None:
    """Data loaders make tensors of numbers: one for the batch, or one a text."""
    features, texts = _features([4, 3], "left", 0)

    pooled = Pooling(DIM, include_prompt=False)({**features, "prompt_length": prompt_length})["sentence_embedding"]

    np.testing.assert_allclose(pooled.numpy(), np.stack([text[2:].mean(0) for text in texts]), rtol=1e-5)


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_what_is_handed_in_stays_as_it_is(mode: PoolingMode) -> None:
    """Neither the dict nor its tensors are changed."""
    features, _ = _features([3, 1], "right", 0)
    features["prompt_length"] = 1
    before = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in features.items()}

    Pooling(DIM, mode, include_prompt=False)(features)

    assert features.keys() == before.keys()
    assert all(torch.equal(features[name], before[name]) for name in ("token_embeddings", "attention_mask"))


@pytest.mark.parametrize("mode", POOLING_MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_number_formats(mode: PoolingMode, dtype: torch.dtype) -> None:
    """The result has the format of the tokens, but halves are added up in float32."""
    features, _ = _features([2000], "right", 0)
    wide = features["token_embeddings"].to(dtype)

    pooled = Pooling(DIM, mode)({**features, "token_embeddings": wide})["sentence_embedding"]

    exact = Pooling(DIM, mode)({**features, "token_embeddings": wide.double()})["sentence_embedding"]
    assert pooled.dtype == dtype
    assert torch.equal(pooled, exact.to(dtype)) or torch.allclose(pooled, exact.to(dtype), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", POOLING_MODES)
@pytest.mark.parametrize("prompt", [{}, {"prompt_length": 1}])
def test_no_mask(mode: PoolingMode, prompt: Features) -> None:
    """Without a mask every token counts, as with one that says so, bit for bit."""
    features, _ = _features([3, 3], "right", 0)
    pooling = Pooling(DIM, mode, include_prompt=False)
    masked = pooling({**features, **prompt})["sentence_embedding"]
    del features["attention_mask"]

    assert torch.equal(pooling({**features, **prompt})["sentence_embedding"], masked)


def test_features_of_other_modules() -> None:
    """A CLS embedding that the model gives apart is taken, and so is the sum of the weights of weighted tokens."""
    features, texts = _features([3], "right", 0)
    features |= {"cls_token_embeddings": torch.ones(1, DIM), "token_weights_sum": torch.tensor([6.0])}

    cls = Pooling(DIM, "cls")(features)["sentence_embedding"]
    mean = Pooling(DIM, "mean")(features)["sentence_embedding"]

    assert cls.tolist() == [[1.0] * DIM]
    np.testing.assert_allclose(mean.numpy()[0], texts[0].sum(0) / 6, rtol=1e-5)


def test_gradients_reach_the_tokens_that_count() -> None:
    """Gradients go to the tokens that count, and are zero at padding."""
    features, _ = _features([2, 1], "right", 0)
    tokens = features["token_embeddings"].requires_grad_()

    Pooling(DIM, POOLING_MODES)(features)["sentence_embedding"].sum().backward()

    assert tokens.grad is not None
    assert tokens.grad[0].ne(0).any()
    assert tokens.grad[1, 1].eq(0).all()


def test_flags() -> None:
    """Modes given as flags stand in the order cls, max, mean, …, and can be read as flags again."""
    pooling = Pooling(DIM, pooling_mode_max_tokens=True, pooling_mode_cls_token=True)

    assert pooling.config.pooling_modes == ("cls", "max", "mean")
    assert pooling.pooling_mode_cls_token
    assert not pooling.pooling_mode_lasttoken
    assert pooling.get_pooling_mode_str() == "cls+mean+max"
    assert pooling.get_sentence_embedding_dimension() == pooling.pooling_output_dimension == 3 * DIM


def test_a_mode_goes_before_the_flags() -> None:
    """A mode that is named replaces the flags, in capitals or not."""
    assert Pooling(DIM, "CLS", pooling_mode_max_tokens=True).config.pooling_modes == ("cls",)


def test_an_unknown_mode() -> None:
    """A mode that does not exist is an error that lists those that do."""
    with pytest.raises(ValueError, match=r"expected pooling modes among \['cls', .* found \['median'\]"):
        Pooling(DIM, "median")


def test_include_prompt_can_be_set() -> None:
    """include_prompt is an attribute that can be set."""
    pooling = Pooling(DIM)

    pooling.include_prompt = False

    assert pooling.get_config_dict()["include_prompt"] is False
