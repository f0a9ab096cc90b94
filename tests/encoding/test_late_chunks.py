"""Parts of texts, embedded with the whole text around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sentence_embedder import SentenceTransformer, models
from sentence_embedder.encoding import late_chunks
from sentence_embedder.features import Features
from sentence_embedder.models import Transformer

TEXT = "  The cat sat, hello world.  A Long sentence! "


def by_hand(model: SentenceTransformer, text: str, spans: list[tuple[int, int]], prompt: str = "") -> torch.Tensor:
    """The mean of the tokens whose words lie in each span, found by the tokenizer's own words, then the rest."""
    whole = prompt + text
    stripped = whole.strip().lower() if model[0].do_lower_case else whole.strip()
    shift = len(whole) - len(whole.lstrip()) - len(prompt)
    encoded = model.tokenizer(
        stripped, return_offsets_mapping=True, return_tensors="pt", truncation=True, max_length=model.max_seq_length
    )
    offsets = encoded.pop("offset_mapping")[0].tolist()
    with torch.inference_mode():
        tokens = model[0].auto_model(**encoded).last_hidden_state[0]
        rows = []
        for start, end in spans:
            places = [n for n, (a, b) in enumerate(offsets) if a < b and a + shift < end and b + shift > start]
            rows.append(tokens[places].mean(dim=0))
        features = {"sentence_embedding": torch.stack(rows)}
        for module in model[2:]:
            features = module(features)
    return features["sentence_embedding"]


@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_parts_are_pooled_from_the_whole(kind: str, prompt: str, tiny_folders: dict[str, Path]) -> None:
    """A part is the mean of its tokens, which have seen the whole text, and goes through the rest of the chain."""
    first = SentenceTransformer(str(tiny_folders[kind]), device="cpu")[0]
    rest = [models.Pooling(32, "mean"), models.Dense(32, 8), models.Normalize()]
    model = SentenceTransformer(modules=[first, *rest], device="cpu")
    spans = [(2, 13), (14, 27), (2, len(TEXT)), (6, 9)]

    found = model.encode_chunks(TEXT, spans, prompt=prompt)

    np.testing.assert_allclose(found, by_hand(model, TEXT, spans, prompt).numpy(), atol=1e-5)
    assert found.dtype == np.float32
    assert not np.allclose(found[3], model.encode_chunks("cat", [(0, 3)], prompt=prompt)[0])


def test_several_texts_go_through_the_model_together(
    minilm: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of any number and length, a few at a time, have the parts that each has alone, in their order."""
    monkeypatch.setattr(late_chunks, "_TOKENS_AT_ONCE", 60)
    texts = [f"{'The cat sat. ' * count}Hello world." for count in (9, 1, 30, 2, 2, 17, 5)]
    spans = [[(0, 12), (4, len(text) // 2), (0, len(text))] for text in texts]

    found = minilm.encode_chunks(texts, spans, prompt="query: ")

    for text, parts, embeddings in zip(texts, spans, found, strict=True):
        np.testing.assert_allclose(embeddings, minilm.encode_chunks(text, parts, prompt="query: "), atol=1e-5)
        np.testing.assert_allclose(embeddings, by_hand(minilm, text, parts, "query: ").numpy(), atol=1e-5)


def test_what_stands_between(model: SentenceTransformer) -> None:
    """A module that changes token embeddings before they are pooled gets those of a part."""
    memory = models.LSTM(32, 8)
    with_memory = SentenceTransformer(modules=[model[0], memory, models.Pooling(16, "mean")], device="cpu")
    tokens = model.encode("the cat", output_value="token_embeddings")[1:3]

    with torch.no_grad():
        states = memory({"token_embeddings": tokens[None], "attention_mask": torch.ones(1, 2)})

    found = with_memory.encode_chunks("the cat", [(0, 7)])
    np.testing.assert_allclose(found, states["token_embeddings"].mean(dim=1).numpy(), atol=1e-5)


def test_what_comes_back(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several texts comes an array each; tensors, lengths and widths are as for encode."""
    monkeypatch.setattr(late_chunks, "_TOKENS_AT_ONCE", 1)  # each alone, so that not a bit differs
    several = model.encode_chunks([TEXT, "hello"], [[(2, 9), (9, 20)], [(0, 5)]])
    cut = model.encode_chunks(TEXT, [(2, 9)], normalize_embeddings=True, truncate_dim=8, convert_to_tensor=True)

    assert [part.shape for part in several] == [(2, 32), (1, 32)]
    np.testing.assert_array_equal(several[0], model.encode_chunks(TEXT, [(2, 9), (9, 20)]))
    assert cut.shape == (1, 8)
    assert float(cut.norm()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 3), (5, 5)], r"span 1: expected 0 ≤ start < end ≤ 46, the length of the text, found \(5, 5\)"),
        ([(-1, 3)], "span 0: expected 0 ≤ start"),
        ([(0, 47)], "span 0: expected 0 ≤ start"),
        ([], "spans: expected one or more, found none"),
        ([(0, 2)], r"span 0: expected a token in \(0, 2\), found none: it is blank"),
    ],
)
def test_spans_that_make_no_sense(spans: list[tuple[int, int]], message: str, model: SentenceTransformer) -> None:
    """A span outside of the text, an empty one, and one without a token are errors that name it."""
    with pytest.raises(ValueError, match=message):
        model.encode_chunks(TEXT, spans)


def test_a_span_behind_what_the_model_reads(model: SentenceTransformer) -> None:
    """What was cut has no embedding, and the error says where the model stops."""
    text = "the cat " * 40

    assert model.encode_chunks(text, [(0, 50)]).shape == (1, 32)
    with pytest.raises(ValueError, match="behind what the model reads, which ends with character"):
        model.encode_chunks(text, [(300, 310)])


def test_a_model_that_begins_otherwise() -> None:
    """Parts need tokens."""
    bag = SentenceTransformer(modules=[models.BoW(["the", "cat"])], device="cpu")

    with pytest.raises(ValueError, match=r"expected a Transformer and a Pooling first, found \['BoW'\]"):
        bag.encode_chunks("the cat", [(0, 3)])


def test_a_model_without_pooling(model: SentenceTransformer) -> None:
    """Parts are what a Pooling makes of their tokens: without one, what is missing is named."""
    alone = SentenceTransformer(modules=[model[0]], device="cpu")
    unpooled = SentenceTransformer(modules=[model[0], nn.Identity()], device="cpu")

    with pytest.raises(ValueError, match=r"expected a Transformer and a Pooling first, found \['Transformer'\]"):
        alone.encode_chunks("the cat", [(0, 3)])
    with pytest.raises(ValueError, match="sentence_embedding"):
        unpooled.encode_chunks("the cat", [(0, 3)])


def test_the_row_is_named(model: SentenceTransformer) -> None:
    """Of several texts it is said which one a span does not fit, before any is computed; so is a wrong number."""
    model[0].forward = None  # whoever computes fails otherwise
    with pytest.raises(ValueError, match=r"span 1 in row 1: expected 0 ≤ start < end ≤ 5, .*, found \(2, 9\)"):
        model.encode_chunks([TEXT, "hello"], [[(2, 9)], [(0, 2), (2, 9)]])
    with pytest.raises(ValueError, match=r"span 0 in row 1: expected a token in \(300, 310\), found none"):
        model.encode_chunks([TEXT, "the cat " * 40], [[(2, 9)], [(300, 310)]])
    with pytest.raises(ValueError, match="spans in row 0: expected one or more, found none"):
        model.encode_chunks([TEXT, "hello"], [[], [(0, 2)]])
    with pytest.raises(ValueError, match=r"spans: expected those of 2 texts, a list for each, found 1"):
        model.encode_chunks([TEXT, "hello"], [[(0, 2)]])


def test_a_text_that_does_not_fit_is_named(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its row among all texts, whatever goes through the model at a time."""
    monkeypatch.setattr(late_chunks, "_TOKENS_AT_ONCE", 8)
    model.max_batch_tokens = 12

    with pytest.raises(MemoryError, match="row 3: a text of "):
        model.encode_chunks(["the cat"] * 3 + ["the cat " * 10], [[(0, 7)]] * 4)


def test_tokens_that_are_not_finite(
    tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The parts of such a text are NaN, those of the others are not, and its row is told."""
    monkeypatch.setattr(late_chunks, "_TOKENS_AT_ONCE", 8)
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    texts = ["the cat", "the cat", "the dog"]
    (dog,) = set(model.tokenizer("the dog")["input_ids"]) - set(model.tokenizer("the cat")["input_ids"])
    with torch.no_grad():
        model[0].auto_model.embeddings.word_embeddings.weight[dog] = torch.nan

    found = model.encode_chunks(texts, [[(0, 3), (4, 7)]] * 3)

    assert [np.isnan(rows).all() for rows in found] == [False, False, True]
    assert np.isfinite(found[:2]).all()
    assert "row 2: the model makes no finite numbers of these texts" in caplog.text


def test_a_transformer_that_leaves_tokens_out(model: SentenceTransformer) -> None:
    """Where nobody knows which tokens the embeddings are of, parts are refused."""

    class Shortened(Transformer):
        def forward(self, features: Features) -> Features:
            made = super().forward(features)
            return {**made, "attention_mask": made["attention_mask"].index_fill(1, torch.tensor([0]), 0)}

    model[0].__class__ = Shortened

    with pytest.raises(ValueError, match="expected the embeddings of 4 tokens, found 3"):
        model.encode_chunks("the cat", [(0, 7)])


def test_halves_that_overflow(tiny_folders: dict[str, Path]) -> None:
    """What is computed again in float32 goes on in the format of the model."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    model.append(models.Dense(32, 8))
    model.half()
    with torch.no_grad():
        model[0].auto_model.encoder.layer[0].output.dense.bias.fill_(torch.finfo(torch.float16).max)
        model[0].auto_model.encoder.layer[0].output.dense.bias[::2] *= -1

    found = model.encode_chunks(["the cat", "hello world"], [[(0, 7)], [(0, 5)]])

    assert [rows.dtype for rows in found] == [np.float16] * 2
    assert np.isfinite(found).all()


@pytest.mark.parametrize("text", ["İstanbul the cat", "  ẞ the İİ cat \n", "the cat", ""])
def test_offsets_are_those_of_the_text_as_it_came(text: str, tiny_folders: dict[str, Path]) -> None:
    """Though a text is stripped, and grows when it is lowered, tokens lie where they are in it."""
    transformer = Transformer(str(tiny_folders["bert"]), do_lower_case=True)

    offsets = transformer.token_offsets(text)

    assert len(offsets) == len(transformer.tokenize([text])["input_ids"][0])
    pieces = [text[start:end] for start, end in offsets if start < end]
    if "cat" in text:
        assert "the" in pieces
        assert "cat" in pieces
    assert (offsets[0] == 0).all()
