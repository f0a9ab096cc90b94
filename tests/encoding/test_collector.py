"""The collectors: batches in any order, results in the order of the texts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentence_embedder.encoding.collector import AllFeatures, SentenceEmbeddings, TokenEmbeddings, collector_for
from sentence_embedder.encoding.inputs import DistinctTexts
from sentence_embedder.encoding.options import EncodeOptions

CPU = torch.device("cpu")


@st.composite
def splits(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    """A number of texts, and their places in any order, split into batches anywhere."""
    count = draw(st.integers(1, 12))
    order = draw(st.permutations(range(count)))
    cuts = sorted(draw(st.sets(st.integers(1, count), max_size=4)) | {count})
    return count, [list(order[start:stop]) for start, stop in zip([0, *cuts], cuts, strict=False)]


@settings(max_examples=50)
@given(split=splits(), container=st.sampled_from(["numpy", "tensor", "list"]))
def test_rows_return_to_their_places(split: tuple[int, list[list[int]]], container: Any) -> None:
    """Whatever order the batches come in, row i belongs to text i, in every container."""
    count, batches = split
    embeddings = torch.arange(count * 3, dtype=torch.float32).reshape(count, 3)
    collector = SentenceEmbeddings(DistinctTexts.every(count), EncodeOptions(container=container), 3, CPU)

    for places in batches:
        collector.add(places, {"sentence_embedding": embeddings[places]})

    rows = collector.finish()
    assert len(rows) == count
    assert all((np.asarray(row) == embeddings[place].numpy()).all() for place, row in enumerate(rows))


def _lone() -> SentenceEmbeddings:
    return SentenceEmbeddings(DistinctTexts.every(1), EncodeOptions(), 3, CPU)


def test_a_lone_row_is_the_callers_own() -> None:
    """What a module does to the memory of an embedding after it has been taken changes no result."""
    made, collector = torch.ones(1, 3), _lone()

    collector.add([0], {"sentence_embedding": made})
    made.zero_()

    assert np.array_equal(collector.finish(), np.ones((1, 3), dtype=np.float32))


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_a_lone_row_of_another_shape(shape: tuple[int, ...]) -> None:
    """What is not one embedding of one text is an error."""
    with pytest.raises((ValueError, IndexError)):
        _lone().add([0], {"sentence_embedding": torch.ones(shape)})


@settings(max_examples=50)
@given(split=splits())
def test_tokens_return_to_their_places(split: tuple[int, list[list[int]]]) -> None:
    """So do token embeddings, without padding, and all features."""
    count, batches = split
    lengths = torch.arange(count) + 1
    tokens, everything = (
        TokenEmbeddings(DistinctTexts.every(count), EncodeOptions()),
        AllFeatures(DistinctTexts.every(count), EncodeOptions()),
    )

    for places in batches:
        width = int(lengths[places].max()) + 1
        mask = (torch.arange(width) < lengths[places][:, None]).long()
        values = torch.tensor(places, dtype=torch.float32)[:, None, None].expand(-1, width, 2)
        features = {"token_embeddings": values, "attention_mask": mask, "sentence_embedding": values[:, 0]}
        tokens.add(places, features)
        everything.add(places, {**features, "text_keys": [f"key {place}" for place in places], "prompt_length": 4})

    for place, (matrix, row) in enumerate(zip(tokens.finish(), everything.finish(), strict=True)):
        assert matrix.shape == (place + 1, 2)
        assert (matrix == place).all()
        assert row["sentence_embedding"].tolist() == [place, place]
        assert (row["text_keys"], row["prompt_length"]) == (f"key {place}", 4)


def test_cut_before_scaled() -> None:
    """Embeddings are cut, and then scaled to length 1."""
    options = EncodeOptions(truncate_dim=2, normalize_embeddings=True)
    collector = SentenceEmbeddings(DistinctTexts.every(1), options, None, CPU)

    collector.add([0], {"sentence_embedding": torch.tensor([[3.0, 4.0, 9.0]])})

    np.testing.assert_allclose(np.asarray(collector.finish()), [[0.6, 0.8]], rtol=1e-6)


@pytest.mark.parametrize("container", ["numpy", "tensor", "list"])
@pytest.mark.parametrize(("precision", "dtype"), [("int8", np.int8), ("uint8", np.uint8), ("binary", np.int8)])
def test_quantised_once_over_everything(container: Any, precision: Any, dtype: Any) -> None:
    """The ranges are those of all texts, however they were split."""
    embeddings = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    options = EncodeOptions(precision=precision, container=container)
    together, split = (SentenceEmbeddings(DistinctTexts.every(6), options, 8, CPU) for _ in range(2))

    together.add(range(6), {"sentence_embedding": embeddings})
    split.add([4, 5], {"sentence_embedding": embeddings[4:]})
    split.add([0, 1, 2, 3], {"sentence_embedding": embeddings[:4]})

    for ours, expected in zip(split.finish(), together.finish(), strict=True):
        assert np.asarray(ours).dtype == dtype
        assert (np.asarray(ours) == np.asarray(expected)).all()


@pytest.mark.parametrize("width", [1, 3, 16, 17])
@pytest.mark.parametrize(("precision", "dtype", "fits"), [("uint8", np.uint8, 17), ("binary", np.int8, 3)])
def test_an_array_of_another_width(precision: Any, dtype: Any, fits: int, width: int) -> None:
    """An array for quantised embeddings of another width than theirs is refused when the first batch comes."""
    options = EncodeOptions(precision=precision)
    out = np.zeros((2, width), dtype=dtype)
    collector = SentenceEmbeddings(DistinctTexts.every(2), options, None, CPU, out)
    batch = {"sentence_embedding": torch.randn(1, 17)}

    if width == fits:
        collector.add([0], batch)
    else:
        with pytest.raises(ValueError, match=rf"out: .* \(2, {fits}\) for {precision}, found \(2, {width}\)"):
            collector.add([0], batch)


def test_which_collector() -> None:
    """Each output has its collector."""
    kinds = {"sentence_embedding": SentenceEmbeddings, "token_embeddings": TokenEmbeddings, None: AllFeatures}

    for output, kind in kinds.items():
        options = EncodeOptions(output_value=output)  # type: ignore[arg-type]
        assert type(collector_for(DistinctTexts.every(2), options, dimension=3, device=CPU)) is kind
