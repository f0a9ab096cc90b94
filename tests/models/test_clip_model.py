"""CLIPModel: texts and images in one order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sentence_embedder import SentenceTransformer
from sentence_embedder.models import CLIPModel
from tests.tiny_chains import Folders

LONG = "the cat " * 40


@pytest.fixture(scope="module")
def clip(tiny_checkpoints: Folders) -> CLIPModel:
    """A tiny CLIP, which reads 24 tokens."""
    return CLIPModel(str(tiny_checkpoints["clip"]))


def _image(color: int) -> Image.Image:
    return Image.new("RGB", (40, 32), (color, 0, 128))


def test_rows_keep_their_order(clip: CLIPModel) -> None:
    """Texts and images, mixed in any way, come out in the order in which they came."""
    rows: list[Any] = [_image(0), "the cat", _image(250), LONG, "a"]
    model = SentenceTransformer(modules=[clip], device="cpu")

    alone = np.stack([model.encode([row], truncation="ignore")[0] for row in rows])

    assert clip.tokenize(rows)["image_text_info"] == [0, 1, 0, 1, 1]
    for size in (2, 5):
        together = model.encode(rows, batch_size=size, truncation="ignore")
        np.testing.assert_allclose(together, alone, atol=1e-5)


@pytest.mark.parametrize("padding", [True, "max_length"])
def test_texts_are_tokenised_as_by_their_tokenizer(clip: CLIPModel, padding: bool | str) -> None:
    """Ids and mask are those that the tokenizer makes of texts alone."""
    texts = ["the cat", LONG, "a cat"]
    expected = clip.tokenizer(texts, padding=padding, truncation=True, max_length=24, return_tensors="pt")

    found = clip.tokenize([texts[0], _image(9), *texts[1:]], padding=padding)

    assert torch.equal(found["input_ids"], expected["input_ids"])
    assert torch.equal(found["attention_mask"], expected["attention_mask"])


def test_of_several_lengths_some_padding_is_needed(clip: CLIPModel) -> None:
    """Without padding, texts of several lengths are an error."""
    assert clip.tokenize(["the cat", "the cat"], padding=False)["attention_mask"].all()
    with pytest.raises(ValueError, match="padding: expected some"):
        clip.tokenize(["the cat", "a"], padding=False)


def test_texts_that_are_cut_are_told(clip: CLIPModel, caplog: pytest.LogCaptureFixture) -> None:
    """A text beyond the limit is an error that names its row, or a warning: an image is never one."""
    model = SentenceTransformer(modules=[clip], device="cpu")
    rows = [_image(1), "the cat", _image(2), LONG]

    with pytest.raises(ValueError, match="row 3: expected a text of no more than 24 tokens"):
        model.encode(rows, truncation="error")
    with pytest.raises(ValueError, match="row 0"):
        model.encode(LONG, truncation="error")
    assert len(model.encode(rows[:3], truncation="error")) == 3
    model.encode(rows)
    assert "1 of 4 texts were cut to 24 tokens" in caplog.text


def test_a_limit_that_is_taken_away(tiny_checkpoints: Folders) -> None:
    """Without a limit nothing is cut."""
    clip = CLIPModel(str(tiny_checkpoints["clip"]))
    clip.max_seq_length = 5
    assert clip.tokenize([LONG])["input_ids"].shape == (1, 5)

    clip.max_seq_length = None

    assert clip.tokenize_ahead([LONG, "a"]).lengths.tolist() == [len(clip.tokenizer(LONG)["input_ids"]), 3]
