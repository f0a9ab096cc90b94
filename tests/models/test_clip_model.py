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
    assert clip.tokenize(["the", "a"], padding="max_length")["input_ids"].shape == (2, 24)


@pytest.mark.parametrize("spaces", [0, 5000])
def test_spaces_are_nothing_that_is_cut(clip: CLIPModel, spaces: int) -> None:
    """A text that just fits is not cut, whatever blank follows it."""
    model = SentenceTransformer(modules=[clip], device="cpu")
    fits = "the " * 21 + "the" + " " * spaces

    assert clip.tokenize_ahead([fits]).lengths.tolist() == [24]
    assert model.encode([fits], truncation="error").shape == (1, 16)


def test_images_alone(tiny_checkpoints: Folders) -> None:
    """A tokenizer that takes no empty list is not asked where there are no texts."""
    clip = CLIPModel(str(tiny_checkpoints["clip"]))

    class Called(type(clip.tokenizer)):  # type: ignore[misc]
        """It has a ``__call__`` of its own, and so is called."""

        def __call__(self, texts: list[str], *args: Any, **kwargs: Any) -> Any:
            assert texts
            return super().__call__(texts, *args, **kwargs)

    clip.processor.tokenizer.__class__ = Called

    assert clip.tokenize([_image(3)]).keys() == {"image_text_info", "pixel_values"}
    assert clip.tokenize([]) == {"image_text_info": []}
    assert clip.tokenize(["a", _image(3)])["input_ids"].shape == (1, 3)


def test_the_model_gets_what_its_tokenizer_makes(tiny_checkpoints: Folders) -> None:
    """A model whose tokenizer makes no mask gets none."""
    clip = CLIPModel(str(tiny_checkpoints["clip"]))
    clip.tokenizer.model_input_names = ["input_ids"]

    assert clip.tokenize(["the cat", "a"]).keys() == {"image_text_info", "input_ids"}


def test_a_subclass_tokenises_in_its_own_way(tiny_checkpoints: Folders) -> None:
    """What a subclass does to texts counts in ``encode``."""

    class Shouting(CLIPModel):
        """Each text as another one."""

        def tokenize(self, texts: Any, padding: str | bool = True) -> Any:
            return super().tokenize(["the cat" for _ in texts], padding)

    plain = SentenceTransformer(modules=[CLIPModel(str(tiny_checkpoints["clip"]))], device="cpu")
    own = SentenceTransformer(modules=[Shouting(str(tiny_checkpoints["clip"]))], device="cpu")

    np.testing.assert_allclose(own.encode(["a dog", "hello"]), plain.encode(["the cat"] * 2), atol=1e-6)


def test_what_a_batch_may_have(clip: CLIPModel) -> None:
    """A text with more tokens than a batch may have is an error that counts tokens."""
    model = SentenceTransformer(modules=[clip], device="cpu")
    model.max_batch_tokens = 10

    assert model.encode(["the cat", _image(4)]).shape == (2, 16)
    with pytest.raises(MemoryError, match="a text of 24 tokens is more than a batch may have"):
        model.encode([LONG], truncation="ignore")
