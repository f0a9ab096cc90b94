"""Features, and the padding of token ids."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sentence_embedder.features import Features, PaddingSide, TokenizedTexts, batch_to_device, to_device

META = torch.device("meta")


def _tokenized(lengths: list[int], side: PaddingSide, keys: list[str | None] | None = None) -> TokenizedTexts:
    ids = [np.arange(1, length + 1, dtype=np.int32) for length in lengths]
    return TokenizedTexts(
        columns={"input_ids": np.concatenate(ids)},
        lengths=np.array(lengths, dtype=np.int64),
        pad_values={"input_ids": -1},
        padding_side=side,
        text_keys=keys,
    )


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    side=st.sampled_from(["left", "right"]),
    data=st.data(),
)
def test_the_mask_marks_the_tokens(lengths: list[int], side: PaddingSide, data: st.DataObject) -> None:
    """In a batch of any texts, in any order, the mask marks each text's tokens and nothing else."""
    rows = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1))

    features = _tokenized(lengths, side).batch(rows)

    ids, mask = features["input_ids"], features["attention_mask"]
    assert ids.shape == mask.shape == (len(rows), max(1, *(lengths[row] for row in rows)))
    assert ids.dtype == mask.dtype == torch.int64
    for place, row in enumerate(rows):
        tokens = ids[place][mask[place].bool()].tolist()
        assert tokens == list(range(1, lengths[row] + 1))
        assert (ids[place][~mask[place].bool()] == -1).all()
        edge = mask[place][: lengths[row]] if side == "right" else mask[place][len(mask[place]) - lengths[row] :]
        assert edge.all()


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6), data=st.data())
def test_packed_texts_lie_end_to_end(lengths: list[int], data: st.DataObject) -> None:
    """A packed batch has each text's tokens, one text after the other, and nothing else."""
    rows = data.draw(st.lists(st.sampled_from(range(len(lengths))), min_size=1))

    packed = _tokenized(lengths, "right").packed(rows)

    expected = [list(range(1, lengths[row] + 1)) for row in rows]
    assert packed.lengths.tolist() == [lengths[row] for row in rows]
    assert packed.columns["input_ids"].tolist() == [token for text in expected for token in text]
    assert packed.positions.tolist() == [token - 1 for text in expected for token in text]


def test_keys_and_lengths() -> None:
    """Keys are those of the batch's texts; lengths are in tokens."""
    tokenized = _tokenized([3, 0, 5], "right", ["a", None, "c"])

    assert tokenized.lengths.tolist() == [3, 0, 5]
    assert tokenized.batch([2, 1])["text_keys"] == ["c", None]
    assert "text_keys" not in _tokenized([1], "right").batch([0])


def test_to_device_makes_a_new_dict() -> None:
    """Tensors go to the device in a new dict; what is no tensor goes along."""
    given_features: Features = {"input_ids": torch.ones(2), "prompt_length": 3}

    moved = to_device(given_features, META)

    assert moved["input_ids"].device == META
    assert moved["prompt_length"] == 3
    assert given_features["input_ids"].device == torch.device("cpu")


@pytest.mark.parametrize("device", ["meta", META])
def test_batch_to_device_moves_in_place(device: str | torch.device) -> None:
    """The function of ``util`` changes the dict that it is given, and returns it, as its users rely on."""
    batch: Features = {"input_ids": torch.ones(2), "prompt_length": 3}

    assert batch_to_device(batch, device) is batch
    assert batch["input_ids"].device == META
