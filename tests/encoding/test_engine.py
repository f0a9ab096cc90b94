"""The engine: sources of batches, and the loop over them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sentence_embedder.encoding.collector import SentenceEmbeddings
from sentence_embedder.encoding.engine import TokenizedOnDemand, TokenizesAhead, encode_all, text_length
from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.features import Features
from sentence_embedder.models import Pooling, Transformer

CPU = torch.device("cpu")


class Steps:
    """A progress bar that remembers what it was told."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.closed = False

    def update(self, n: float | None = 1) -> None:
        """Remember a step."""
        self.steps.append(n or 0)

    def close(self) -> None:
        """Remember the end."""
        self.closed = True


def _lengths(texts: Sequence[Any]) -> Features:
    return {"lengths": torch.tensor([[float(len(text))] for text in texts])}


def _encode(texts: list[str], model: Any, progress: Steps, **options: Any) -> Any:
    encode_options = EncodeOptions(**options)
    return encode_all(
        model,
        TokenizedOnDemand(_lengths, texts),
        encode_options,
        device=CPU,
        collector=SentenceEmbeddings(len(texts), encode_options, None, CPU),
        progress=progress,
    )


def test_the_longest_batches_come_first_and_rows_return_to_their_places() -> None:
    """Batches are made of texts of like length, the longest first; the result is in the order of the texts."""
    seen: list[list[float]] = []
    progress = Steps()

    def model(features: Features) -> Features:
        seen.append(features["lengths"].squeeze(1).tolist())
        return {"sentence_embedding": features["lengths"]}

    rows = _encode(["aa", "a", "aaaa", "aaa", ""], model, progress, batch_size=2)

    assert seen == [[4.0, 3.0], [2.0, 1.0], [0.0]]
    assert rows.squeeze(1).tolist() == [2.0, 1.0, 4.0, 3.0, 0.0]
    assert progress.steps == [2, 2, 1]
    assert progress.closed


def test_the_prompt_length_is_a_feature_of_each_batch() -> None:
    """The modules are told how long the prompt is, if there is one."""

    def model(features: Features) -> Features:
        length = torch.full_like(features["lengths"], features.get("prompt_length", -1))
        return {"sentence_embedding": length}

    assert _encode(["a"], model, Steps(), prompt_length=3).tolist() == [[3.0]]
    assert _encode(["a"], model, Steps()).tolist() == [[-1.0]]


def test_no_gradients_are_kept() -> None:
    """The model is called without gradients, and only there."""
    weight = torch.ones(1, requires_grad=True)

    rows = _encode(
        ["a"], lambda features: {"sentence_embedding": features["lengths"] * weight}, Steps(), container="tensor"
    )

    assert not rows.requires_grad
    assert torch.is_grad_enabled()


def test_an_exception_in_the_model_reaches_the_caller() -> None:
    """What a module raises arrives as it is, and the progress bar ends."""
    progress = Steps()

    def model(_features: Features) -> Features:
        raise KeyError("token_embeddings")

    with pytest.raises(KeyError, match="token_embeddings"):
        _encode(["a"], model, progress)
    assert progress.closed


@pytest.mark.parametrize(
    ("item", "length"),
    [("abc", 3), ("", 0), (("ab", "c"), 3), (["ab", "c"], 3), ({"key": "abc"}, 3), (12, 1), (None, 1)],
    ids=str,
)
def test_text_length(item: Any, length: int) -> None:
    """The length of an item is that of its texts in characters, 1 for what is no text."""
    assert text_length(item) == length


def test_on_demand_knows_characters() -> None:
    """Where tokens are not known yet, lengths are in characters."""
    source = TokenizedOnDemand(_lengths, ["abc", ("a", "b")])

    np.testing.assert_array_equal(source.lengths, [3, 2])


def test_who_tokenizes_ahead() -> None:
    """A Transformer can tokenise ahead, other modules cannot."""
    assert issubclass(Transformer, TokenizesAhead)
    assert not issubclass(Pooling, TokenizesAhead)
