"""SentenceTransformer, from the outside."""

from __future__ import annotations

import copy
import logging
import pickle
import sys
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import BertTokenizer

from sentence_embedder import InputExample, SentenceTransformer, SimilarityFunction
from sentence_embedder.features import Features
from sentence_embedder.models import Dense, Normalize, Pooling, Transformer
from sentence_embedder.util import cos_sim, paraphrase_mining
from tests.crowd import in_threads
from tests.tiny_models import WORDS

TEXTS = ["the cat sat", "hello world", "a long sentence about the two vectors of a query", "kitten", ""]
LOGGER = "sentence_embedder.sentence_transformers"

texts = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


class Called(BertTokenizer):
    """A tokenizer that must be called, as it says itself what that does."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The usual."""
        return super().__call__(*arguments, **options)


@pytest.fixture(scope="module")
def shared(tiny_folders: dict[str, Path]) -> SentenceTransformer:
    """A tiny BERT that no test changes."""
    return SentenceTransformer(str(tiny_folders["bert"]), device="cpu")


def _same(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=tolerance, atol=tolerance)


class TestEncode:
    """Texts to vectors."""

    @settings(max_examples=25)
    @given(st.data())
    def test_order_is_restored_for_any_permutation(self, shared: SentenceTransformer, data: st.DataObject) -> None:
        """The embeddings of a permutation of texts are that permutation of the embeddings."""
        rows = data.draw(st.lists(texts, min_size=1, max_size=12))
        order = data.draw(st.permutations(range(len(rows))))

        _same(shared.encode([rows[place] for place in order], batch_size=4), shared.encode(rows)[list(order)])

    @settings(max_examples=25)
    @given(rows=st.lists(texts, min_size=1, max_size=12), batch_size=st.integers(1, 13))
    def test_the_batch_size_does_not_matter(
        self, shared: SentenceTransformer, rows: list[str], batch_size: int
    ) -> None:
        """Whatever else is in the batch, a text has the same embedding, to 1e-5."""
        alone = np.stack([shared.encode(row) for row in rows])

        _same(shared.encode(rows, batch_size=batch_size), alone)

    @settings(max_examples=25)
    @given(rows=st.lists(texts, min_size=1, max_size=4), width=st.integers(1, 40), normalized=st.booleans())
    def test_truncation_is_a_prefix_before_scaling(
        self, shared: SentenceTransformer, rows: list[str], width: int, normalized: bool
    ) -> None:
        """truncate_dim cuts the embedding, and only then is it scaled to length 1."""
        prefix = shared.encode(rows)[:, :width]
        expected = prefix / np.linalg.norm(prefix, axis=1, keepdims=True) if normalized else prefix

        _same(shared.encode(rows, truncate_dim=width, normalize_embeddings=normalized), expected)

    @pytest.mark.parametrize(
        "collection",
        [
            tuple(TEXTS),
            np.array(TEXTS),
            np.array(TEXTS, dtype=object),
            pd.Series(TEXTS),
            pd.Series(TEXTS, index=[7, 3, 99, -1, 0]),
            pd.Series(TEXTS, index=list("abcde")),
            OrderedDict.fromkeys(TEXTS).keys(),
        ],
        ids=["tuple", "str array", "object array", "Series", "gaps", "letters", "keys"],
    )
    def test_collections_of_texts(self, shared: SentenceTransformer, collection: Any) -> None:
        """Any ordered collection of texts will do."""
        _same(shared.encode(collection), shared.encode(TEXTS))

    def test_generators(self, shared: SentenceTransformer) -> None:
        """So will a generator."""
        _same(shared.encode(text for text in TEXTS), shared.encode(TEXTS))

    @pytest.mark.parametrize("text", ["the cat", "", np.array("the cat")], ids=repr)
    def test_a_lone_text_has_one_vector(self, shared: SentenceTransformer, text: Any) -> None:
        """A text that is not in a collection gives a vector, not a matrix."""
        embedding = shared.encode(text)

        assert embedding.shape == (32,)
        _same(embedding, shared.encode([str(text)])[0])

    def test_lone_texts_in_other_outputs(self, shared: SentenceTransformer) -> None:
        """A lone text gives a lone tensor, matrix or dict."""
        tensor = shared.encode("the cat", convert_to_tensor=True)
        tokens = shared.encode("the cat", output_value="token_embeddings")
        features = shared.encode("the cat", output_value=None)

        assert tensor.shape == (32,)
        assert tokens.shape == (4, 32)
        assert features["input_ids"].shape == (4,)

    def test_numbers_are_texts(self, shared: SentenceTransformer) -> None:
        """Numbers among the texts are read as they are printed."""
        _same(shared.encode(["1", 2, 3.5]), shared.encode(["1", "2", "3.5"]))

    def test_keys_do_not_change_a_text(self, shared: SentenceTransformer) -> None:
        """``{key: text}`` is the text, alone or in a list, for a model that has one way for all texts."""
        rows = [{"query": text} for text in TEXTS]

        _same(shared.encode(rows), shared.encode(TEXTS))
        _same(shared.encode({"query": "the cat"}), shared.encode("the cat"))

    def test_pairs_are_encoded_together(self, shared: SentenceTransformer) -> None:
        """A pair is one input, its second text marked by token type."""
        features = shared.encode([("the cat", "hello world")], output_value=None)[0]

        assert features["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1]
        _same(shared.encode([["the cat", "hello world"]]), features["sentence_embedding"][None])

    def test_no_texts(self, shared: SentenceTransformer) -> None:
        """No texts have no embeddings, of the width that they would have."""
        assert shared.encode([]).shape == (0, 32)
        assert shared.encode([], truncate_dim=7).shape == (0, 7)
        assert shared.encode([], convert_to_tensor=True).shape == (0, 32)
        assert shared.encode([], convert_to_numpy=False) == []
        assert shared.encode([], output_value="token_embeddings") == []
        assert shared.encode([], output_value=None, prompt="query: ") == []
        assert shared.encode([], precision="int8").dtype == np.int8
        assert shared.encode([], precision="ubinary").shape == (0, 4)

    def test_containers(self, shared: SentenceTransformer) -> None:
        """An array by default; a tensor or a list of tensors where asked for, a tensor before an array."""
        array = shared.encode(TEXTS)
        tensor = shared.encode(TEXTS, convert_to_tensor=True, convert_to_numpy=True)
        rows = shared.encode(TEXTS, convert_to_numpy=False)

        assert isinstance(array, np.ndarray)
        assert array.dtype == np.float32
        assert isinstance(tensor, Tensor)
        assert isinstance(rows, list)
        assert all(isinstance(row, Tensor) for row in rows)
        _same(tensor, array)
        _same(torch.stack(rows), array)

    def test_tensors_can_be_trained_on(self, shared: SentenceTransformer) -> None:
        """Embeddings are ordinary tensors: another layer can be trained on them."""
        layer = nn.Linear(32, 2)

        layer(shared.encode(TEXTS, convert_to_tensor=True)).sum().backward()

        assert layer.weight.grad is not None

    @pytest.mark.parametrize("side", ["bert", "decoder"])
    def test_token_embeddings_have_no_padding(self, side: str, tiny_folders: dict[str, Path]) -> None:
        """A text's token embeddings are those of its tokens, on whichever side others are padded."""
        model = SentenceTransformer(str(tiny_folders[side]), device="cpu")

        together = model.encode(TEXTS[:4], output_value="token_embeddings")

        for text, tokens in zip(TEXTS, together, strict=False):
            _same(tokens, model.encode(text, output_value="token_embeddings"))
            assert len(tokens) == model.tokenize([text])["attention_mask"].sum()

    def test_all_features(self, shared: SentenceTransformer) -> None:
        """output_value=None gives every feature of every text, and what belongs to the batch, whole."""
        rows = shared.encode(TEXTS, output_value=None, prompt="query: ", truncate_dim=8)

        assert [row["sentence_embedding"].shape for row in rows] == [(8,)] * len(TEXTS)
        assert {row["prompt_length"] for row in rows} == {3}
        assert [row["attention_mask"].sum() for row in rows] == [
            len(shared.tokenizer(f"query: {text}".strip())["input_ids"]) for text in TEXTS
        ]

    def test_hidden_states_are_split_by_text(self, tiny_folders: dict[str, Path]) -> None:
        """With output_hidden_states each text has its own embedding of each layer."""
        folder = str(tiny_folders["bert"])
        model = SentenceTransformer(folder, device="cpu", config_kwargs={"output_hidden_states": True})

        layers = model.encode("the cat", output_value=None)["all_layer_embeddings"]

        assert [tuple(layer.shape) for layer in layers] == [(4, 32)] * 3

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"batch_size": 0}, "batch_size: expected 1 or more, found 0"),
            ({"batch_size": None}, "batch_size: expected 1 or more, found None"),
            ({"batch_size": 2.5}, "found 2.5"),
            ({"truncate_dim": "4"}, "truncate_dim: expected a whole number or None, found '4'"),
            ({"precision": "int4"}, "precision: expected one of .*'ubinary'.*found 'int4'"),
            ({"output_value": "logits"}, "output_value: expected one of .*found 'logits'"),
            ({"output_value": None, "precision": "int8"}, "found None"),
            ({"prompt_name": "passage"}, r"prompt_name='passage': .*found \['document', 'query'\]"),
        ],
    )
    def test_options_are_checked_before_any_work(
        self,
        shared: SentenceTransformer,
        options: dict[str, Any],
        message: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """What does not exist is refused before a text is touched, with what does."""
        monkeypatch.setattr(type(shared), "forward", None)

        with pytest.raises(ValueError, match=message):
            shared.encode(TEXTS, **options)

    def test_one_text_in_int8_is_an_error_that_names_the_remedy(self, shared: SentenceTransformer) -> None:
        """One embedding has no range to be spread over: its int8 values would mean nothing."""
        with pytest.raises(ValueError, match="quantize_embeddings with ranges="):
            shared.encode("the cat", precision="int8")

    @pytest.mark.parametrize(("row", "shown"), [(None, "NoneType"), (float("nan"), "float"), (pd.NA, "NAType")])
    def test_a_missing_text_is_an_error_that_names_its_row(
        self, shared: SentenceTransformer, row: Any, shown: str
    ) -> None:
        """A missing text is not embedded as the word "None"."""
        with pytest.raises(TypeError, match=f"row 2, found {shown}"):
            shared.encode(["a", "b", row])

    def test_nothing_is_changed(self, model: SentenceTransformer) -> None:
        """A call leaves texts, prompts and modes of the model as they were."""
        rows, state = list(TEXTS), copy.deepcopy(model.state_dict())
        before = {name: value for name, value in vars(model).items() if not name.startswith("_")}
        model.eval()

        model.encode(rows, prompt_name="query", truncate_dim=3, precision="int8", output_value="token_embeddings")

        assert rows == TEXTS
        assert {name: value for name, value in vars(model).items() if not name.startswith("_")} == {
            **before,
            "training": False,
        }
        assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())

    def test_dropout_is_off(self, tiny_folders: dict[str, Path]) -> None:
        """A model in training mode, or with a module in it, encodes without dropout."""
        model = SentenceTransformer(str(tiny_folders["bert-chain"]), device="cpu")
        expected = model.encode(TEXTS)

        model.train()
        _same(model.encode(TEXTS), expected)
        model[4].train()
        _same(model.encode(TEXTS), expected)

        assert not any(module.training for module in model.modules())

    def test_threads_share_a_model(self, shared: SentenceTransformer) -> None:
        """Threads with different options get what they would get alone."""
        calls: list[dict[str, Any]] = [
            {"batch_size": 2},
            {"prompt_name": "query", "normalize_embeddings": True},
            {"truncate_dim": 5},
            {"convert_to_tensor": True, "prompt": "the "},
        ] * 4
        alone = [shared.encode(TEXTS, **call) for call in calls]
        together: list[Any] = [None] * len(calls)

        def work(place: int) -> None:
            for _ in range(5):
                together[place] = shared.encode(TEXTS, **calls[place])

        in_threads(len(calls), work)

        for ours, expected in zip(together, alone, strict=True):
            _same(ours, expected)

    def test_device_moves_the_model(self, model: SentenceTransformer) -> None:
        """encode(device=…) computes there, and the model stays there."""
        with pytest.raises(RuntimeError, match="meta"):
            model.encode(TEXTS, device="meta")

        assert model.device == torch.device("meta")

    def test_halves(self, tiny_folders: dict[str, Path]) -> None:
        """A half-precision model gives half-precision arrays; bfloat16, which numpy lacks, becomes float32."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        expected = model.encode(TEXTS)

        half, brain = model.half().encode(TEXTS), model.bfloat16().encode(TEXTS)

        assert half.dtype == np.float16
        assert brain.dtype == np.float32
        _same(half, expected, 0.05)
        _same(brain, expected, 0.2)


class TestProgress:
    """The progress bar."""

    def test_it_counts_sentences(self, shared: SentenceTransformer, capsys: pytest.CaptureFixture[str]) -> None:
        """It counts sentences, not batches, and estimates the time."""
        shared.encode(["the cat"] * 40, batch_size=8, show_progress_bar=True)

        shown = capsys.readouterr().err
        assert "40/40" in shown
        assert "sentences/s" in shown

    @pytest.mark.parametrize(
        ("level", "is_shown"), [(logging.INFO, True), (logging.DEBUG, True), (logging.WARNING, False)]
    )
    def test_the_log_level_decides(
        self,
        shared: SentenceTransformer,
        level: int,
        is_shown: bool,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """It is shown by default where the logger is at INFO or DEBUG, on a terminal."""
        logging.getLogger(LOGGER).setLevel(level)
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)

        shared.encode(TEXTS, batch_size=2)

        assert bool(capsys.readouterr().err) is is_shown

    @pytest.mark.parametrize("where", ["a terminal", "a notebook", "a file"])
    def test_it_is_shown_where_somebody_sees_it(
        self,
        where: str,
        shared: SentenceTransformer,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """By default it is shown on a terminal and in a notebook, and not for what is a single batch."""
        logging.getLogger(LOGGER).setLevel(logging.INFO)
        monkeypatch.setattr("sys.stderr.isatty", lambda: where == "a terminal")
        if where == "a notebook":
            monkeypatch.setitem(sys.modules, "ipykernel", ModuleType("ipykernel"))

        shared.encode(TEXTS)
        assert capsys.readouterr().err == ""
        shared.encode(TEXTS, batch_size=2)
        assert bool(capsys.readouterr().err) is (where != "a file")


class TestTexts:
    """What is said of texts."""

    LONG = "the cat sat on the mat " * 20

    @pytest.mark.parametrize("device", [None, ["cpu"]])
    def test_texts_that_are_cut_are_told(
        self, device: Any, tiny_folders: dict[str, Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        """How many of how many were cut is logged in one line: a warning the first time, not later."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        texts = ["the cat", self.LONG, "a dog", self.LONG, f"{self.LONG} again"]

        model.encode(texts, device=device)
        model.encode(texts, device=device)
        model.encode(texts[:1], device=device)

        said = [record for record in caplog.records if "were cut" in record.message]
        assert [record.levelname for record in said] == ["WARNING"]
        assert said[0].message.startswith("3 of 5 texts were cut to 24 tokens")

    @pytest.mark.parametrize("device", [None, ["cpu"]])
    def test_a_text_that_is_too_long_can_be_an_error(self, device: Any, tiny_folders: dict[str, Path]) -> None:
        """The error names the first row, by its place in what the caller gave, and the limit."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        texts = ["the cat", "the cat", self.LONG, "a dog", self.LONG + "x"]

        with pytest.raises(
            ValueError, match="row 2: expected a text of no more than 24 tokens, found a longer one"
        ):
            model.encode(texts, truncation="error", device=device)
        assert model.encode(texts[:2], truncation="error", device=device).shape == (2, 32)
        with pytest.raises(ValueError, match="truncation: expected one of"):
            model.encode(texts, truncation="maybe", device=device)

    @pytest.mark.parametrize("side", ["left", "right"])
    @pytest.mark.parametrize("count", [-1, 0, 1])
    def test_a_text_is_cut_from_one_token_too_many(
        self, count: int, side: str, tiny_folders: dict[str, Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        """A text that just fits is not cut, nor a pair, whether its tokenizer is called the usual way or not."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        model.tokenizer.truncation_side = side
        model.max_seq_length = len(model.tokenize(["the cat sat"])["input_ids"][0]) - count
        slow = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        slow.tokenizer = Called.from_pretrained(tiny_folders["bert"], truncation_side=side)
        slow.max_seq_length = model.max_seq_length

        for embedder in (model, slow):
            caplog.clear()
            embedder.encode(["the cat sat"])
            assert ("1 of 1 texts were cut" in caplog.text) is (count > 0)
            with nullcontext() if count <= 0 else pytest.raises(ValueError, match="row 1"):
                embedder.encode(["the", ("the", "cat")], truncation="error")

    def test_silence(self, tiny_folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
        """truncation="ignore" says nothing."""
        SentenceTransformer(str(tiny_folders["bert"]), device="cpu").encode([self.LONG], truncation="ignore")

        assert "were cut" not in caplog.text

    def test_a_hint_at_prompts(self, tiny_folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
        """Whoever encodes without a prompt is told, once, that the model has some; whoever means it, is not."""

        def hints() -> int:
            return caplog.text.count("encode_query and encode_document put them before texts")

        prompts = {"query": "q: ", "other": "o: "}
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", prompts=prompts)
        model.encode_query("the cat")
        model.encode_document("the cat")
        model.encode("the cat", prompt_name="other")
        model.encode("the cat", prompt="")
        assert hints() == 0
        model.encode("the cat")
        model.encode("the cat")
        assert hints() == 1
        SentenceTransformer(str(tiny_folders["bert"]), device="cpu", prompts={"other": "o: "}).encode("the cat")
        assert hints() == 1


class TestCountTokens:
    """How long texts are."""

    def test_tokens_before_they_are_cut(self, shared: SentenceTransformer) -> None:
        """The counts are those of the tokenizer, special tokens included, whatever the model cuts."""
        many = "the cat sat on the mat " * 20
        texts = ["the cat", many, "", ("the cat", "a dog")]

        counts = shared.count_tokens(texts)

        pairs = [(text, None) if isinstance(text, str) else text for text in texts]
        expected = [len(shared.tokenizer(first.strip(), second)["input_ids"]) for first, second in pairs]
        assert counts.tolist() == expected
        assert counts[1] > (shared.max_seq_length or 0)
        assert shared.count_tokens("the cat") == counts[0]
        assert shared.tokenize([many])["input_ids"].shape == (1, shared.max_seq_length)

    def test_a_prompt_counts(self, shared: SentenceTransformer) -> None:
        """So it does for encode."""
        counted = shared.count_tokens(["the cat"], prompt_name="query")

        assert counted.tolist() == shared.count_tokens([shared.prompts["query"] + "the cat"]).tolist()

    def test_no_tokens_to_count(self) -> None:
        """A first module without tokens is named."""
        with pytest.raises(ValueError, match="expected a first module that counts them, found BagOfLetters"):
            SentenceTransformer(modules=[BagOfLetters()], device="cpu").count_tokens("a")


class TestTokenOffsets:
    """Where tokens stand."""

    def test_a_row_for_each_token_embedding(self, shared: SentenceTransformer) -> None:
        """Places belong to token embeddings one by one, prompt and special tokens included."""
        texts = ["  the cat sat", "a dog", "", "the cat sat on the mat " * 20]

        for prompt in (None, "query: "):
            embeddings = shared.encode(texts, prompt=prompt, output_value="token_embeddings")
            offsets = shared.token_offsets(texts, prompt=prompt)
            assert [len(row) for row in offsets] == [len(row) for row in embeddings]

    def test_places_are_those_of_the_text_as_it_was_given(self, shared: SentenceTransformer) -> None:
        """A prompt, and what the tokenizer adds, has no place in it."""
        text = "  the cat sat"

        offsets = shared.token_offsets(text, prompt="a dog ")

        pieces = [text[start:end] for start, end in offsets if start < end]
        assert "".join(pieces) == "thecatsat"
        assert offsets[0].tolist() == offsets[-1].tolist() == [0, 0]
        assert len(offsets) > len(pieces) + 2

    def test_what_has_no_places(self, shared: SentenceTransformer) -> None:
        """What is no text, and a first module without tokens, are named."""
        with pytest.raises(TypeError, match="token_offsets: expected a text in row 1, found tuple"):
            shared.token_offsets(["a", ("a", "b")])
        with pytest.raises(ValueError, match="expected a first module that knows their places, found BagOfLetters"):
            SentenceTransformer(modules=[BagOfLetters()], device="cpu").token_offsets("a")


class TestUnload:
    """Memory that is given back."""

    def test_what_was_made_to_be_quick_goes(self, tiny_folders: dict[str, Path]) -> None:
        """The next call makes it anew, and the embeddings are the same to the last bit."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        before = model.encode(["the cat", "a dog"])
        (reading,) = model._acceleration._readings.values()
        packed = weakref.ref(reading._kept[0].encoder)
        del reading
        assert packed() is not None

        model.unload()

        assert packed() is None
        np.testing.assert_array_equal(model.encode(["the cat", "a dog"]), before)

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_a_gpu_is_left_and_entered_again(self, tiny_folders: dict[str, Path]) -> None:
        """Its memory is free until the next call takes the weights back."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cuda")
        before = model.encode("the cat")

        model.unload()

        assert torch.cuda.memory_allocated() == 0
        np.testing.assert_allclose(model.encode("the cat"), before, atol=1e-6)
        assert model.device.type == "cuda"


class TestPrompts:
    """Prompts."""

    def test_a_prompt_stands_before_each_text(self, shared: SentenceTransformer) -> None:
        """A prompt is put before the text, by itself or by its name."""
        expected = shared.encode([f"query:{text}" for text in TEXTS])

        _same(shared.encode(TEXTS, prompt="query:"), expected)
        _same(shared.encode(TEXTS, prompt_name="query"), expected)
        _same(shared.encode(TEXTS, "query"), expected)

    def test_a_prompt_goes_before_its_name(
        self, shared: SentenceTransformer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """If both are given the prompt is taken, and a log line says so."""
        ours = shared.encode(TEXTS, prompt="the ", prompt_name="query")

        _same(ours, shared.encode(TEXTS, prompt="the "))
        assert "prompt_name='query' is ignored" in caplog.text

    def test_the_default_prompt(self, tiny_folders: dict[str, Path], shared: SentenceTransformer) -> None:
        """The default prompt is used where none is given, and an empty one turns it off."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", default_prompt_name="query")

        _same(model.encode(TEXTS), shared.encode(TEXTS, prompt_name="query"))
        _same(model.encode(TEXTS, prompt=""), shared.encode(TEXTS))

    def test_a_default_prompt_that_is_missing(self, tiny_folders: dict[str, Path]) -> None:
        """A default prompt that does not exist is an error when the model is made."""
        with pytest.raises(ValueError, match="default_prompt_name='passage'"):
            SentenceTransformer(str(tiny_folders["bert"]), device="cpu", default_prompt_name="passage")

    def test_pairs_and_keys(self, shared: SentenceTransformer) -> None:
        """Of a pair the first text gets the prompt, of ``{key: text}`` the text."""
        pairs = shared.encode([("the cat", "a dog")], prompt="query: ")
        keyed = shared.encode([{"title": "the cat"}], prompt="query: ")

        _same(pairs, shared.encode([("query: the cat", "a dog")]))
        _same(keyed, shared.encode(["query: the cat"]))

    def test_the_prompt_can_be_left_out_of_the_pooling(self, model: SentenceTransformer) -> None:
        """With include_prompt false the embedding is the mean of the tokens behind the prompt."""
        tokens = model.encode("the cat", prompt="query: ", output_value="token_embeddings")

        model.set_pooling_include_prompt(False)

        _same(model.encode("the cat", prompt="query: "), tokens[3:].mean(0))
        _same(model.encode("the cat"), model.encode("the cat", output_value="token_embeddings").mean(0))

    @pytest.mark.parametrize(
        ("prompts", "query", "document"),
        [
            ({}, "", ""),
            ({"query": "q: ", "passage": "p: "}, "q: ", "p: "),
            ({"corpus": "c: ", "passage": "p: "}, "", "p: "),
            ({"document": "d: ", "passage": "p: "}, "", "d: "),
        ],
        ids=str,
    )
    def test_queries_and_documents(
        self, model: SentenceTransformer, prompts: dict[str, str], query: str, document: str
    ) -> None:
        """encode_query and encode_document take the prompt that is named so, if there is one."""
        model.prompts = prompts

        _same(model.encode_query(TEXTS), model.encode(TEXTS, prompt=query))
        _same(model.encode_document(TEXTS), model.encode(TEXTS, prompt=document))
        _same(model.encode_query(TEXTS, prompt="the "), model.encode(TEXTS, prompt="the "))

    def test_none_is_no_prompts(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """Prompts that are None are none, in every call and in a slice, and can be added to."""
        model.prompts = None

        _same(model.encode_query(TEXTS), model.encode(TEXTS, prompt=""))
        assert model[:2].prompts == {}
        model.prompts["query"] = "the "
        model.save(tmp_path)
        assert SentenceTransformer(str(tmp_path), device="cpu").prompts == {"query": "the "}


class TestTruncation:
    """Truncation."""

    @pytest.mark.parametrize("width", [5.0, "5"], ids=repr)
    def test_what_is_no_width(self, width: Any, tiny_folders: dict[str, Path], shared: SentenceTransformer) -> None:
        """A width that is no whole number is refused wherever it is given."""
        folder = str(tiny_folders["bert"])
        for give in (
            lambda: SentenceTransformer(folder, device="cpu", truncate_dim=width),
            lambda: setattr(shared, "truncate_dim", width),
            lambda: shared.truncate_sentence_embeddings(width).__enter__(),
            lambda: shared.encode(TEXTS, truncate_dim=width),
        ):
            with pytest.raises(ValueError, match=f"truncate_dim: expected a whole number or None, found {width!r}"):
                give()
        assert shared.truncate_dim is None

    def test_numbers_of_numpy(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """A whole number of numpy's is one of Python's, which is saved."""
        model.truncate_dim = np.int64(5)  # type: ignore[assignment]

        model.save(tmp_path)

        assert type(model.truncate_dim) is int
        assert SentenceTransformer(str(tmp_path), device="cpu").truncate_dim == 5

    def test_attribute_context_and_argument(self, model: SentenceTransformer) -> None:
        """The argument goes before the attribute, and a context sets the attribute and puts it back."""
        whole = model.encode(TEXTS)
        model.truncate_dim = 16

        _same(model.encode(TEXTS), whole[:, :16])
        _same(model.encode(TEXTS, truncate_dim=4), whole[:, :4])
        with model.truncate_sentence_embeddings(8):
            _same(model.encode(TEXTS), whole[:, :8])
            with model.truncate_sentence_embeddings(None):
                _same(model.encode(TEXTS), whole)
        assert model.truncate_dim == 16

    def test_the_context_ends_with_an_exception(self, model: SentenceTransformer) -> None:
        """An exception in the context puts the attribute back, too."""
        with pytest.raises(KeyError), model.truncate_sentence_embeddings(8):
            raise KeyError

        assert model.truncate_dim is None

    @pytest.mark.parametrize(("width", "expected"), [(None, 32), (8, 8), (64, 32), (0, 0), (-2, 30)])
    def test_the_dimension_that_is_told_is_that_of_encode(
        self, model: SentenceTransformer, width: int | None, expected: int
    ) -> None:
        """get_sentence_embedding_dimension is the width of what encode returns."""
        model.truncate_dim = width

        assert model.get_sentence_embedding_dimension() == expected
        assert model.get_embedding_dimension() == expected
        assert model.encode(TEXTS).shape == (len(TEXTS), expected)


class TestSimilarity:
    """Comparing."""

    def test_cosine_is_the_default(self, shared: SentenceTransformer) -> None:
        """Without a word the similarity is the cosine."""
        embeddings = shared.encode(TEXTS)

        assert shared.similarity_fn_name == "cosine"
        _same(shared.similarity(embeddings, embeddings), cos_sim(embeddings, embeddings))
        _same(shared.similarity_pairwise(embeddings, embeddings), np.ones(len(TEXTS)))

    @pytest.mark.parametrize("name", ["dot", SimilarityFunction.MANHATTAN, "euclidean"])
    def test_another_one_can_be_chosen(self, tiny_folders: dict[str, Path], name: str, tmp_path: Path) -> None:
        """Another one is chosen in the constructor or later, and saved with the model."""
        chosen = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", similarity_fn_name=name)
        value = SimilarityFunction(name).value

        chosen.save(tmp_path)

        assert chosen.similarity_fn_name == value
        assert SentenceTransformer(str(tmp_path), device="cpu").similarity_fn_name == value

    def test_an_unknown_one(self, model: SentenceTransformer) -> None:
        """One that does not exist is an error that lists those that do."""
        with pytest.raises(ValueError, match=r"\['cosine', 'dot', 'euclidean', 'manhattan'\], found 'jaccard'"):
            model.similarity_fn_name = "jaccard"

    def test_none_is_the_default(self, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
        """None sets it to the default, also of a model that was saved with another one."""
        SentenceTransformer(str(tiny_folders["bert"]), device="cpu", similarity_fn_name="dot").save(tmp_path)
        model = SentenceTransformer(str(tmp_path), device="cpu")

        model.similarity_fn_name = None
        model.save(tmp_path)

        assert model.similarity_fn_name == "cosine"
        assert SentenceTransformer(str(tmp_path), device="cpu").similarity_fn_name == "cosine"


class TestModule:
    """What it is as a module of torch."""

    def test_it_is_a_sequence_of_modules(self, shared: SentenceTransformer) -> None:
        """It can be indexed, iterated and counted."""
        assert isinstance(shared, nn.Sequential)
        assert isinstance(shared[0], Transformer)
        assert isinstance(shared[-1], Pooling)
        assert list(shared) == [shared[0], shared[1]]
        assert shared._first_module() is shared[0]
        assert shared._last_module() is shared[1]
        assert {name.partition(".")[0] for name in shared.state_dict()} == {"0"}

    def test_a_slice_is_a_model(self, tiny_folders: dict[str, Path]) -> None:
        """A slice is a model of some of the modules, with the same settings."""
        whole = SentenceTransformer(str(tiny_folders["bert-chain"]), device="cpu", default_prompt_name="query")

        part = whole[:2]

        assert isinstance(part, SentenceTransformer)
        assert len(part) == 2
        assert part[0] is whole[0]
        assert part.default_prompt_name == "query"
        tokens = whole.encode("the cat", output_value="token_embeddings")
        _same(part.encode("the cat"), torch.cat([tokens[0], tokens.max(0).values]))
        part.prompts["other"] = "x"
        assert "other" not in whole.prompts
        part.model_card_data.set_license("mit")
        assert whole.model_card_data.license is None

    def test_a_slice_keeps_ranges_of_all_modules_only(self, tiny_folders: dict[str, Path]) -> None:
        """Ranges for int8 are those of the embeddings of all modules: of fewer, nothing is known."""
        whole = SentenceTransformer(str(tiny_folders["bert-chain"]), device="cpu")
        whole.calibrate(TEXTS, prompt="")

        _same(whole[:].encode("the cat", precision="int8"), whole.encode("the cat", precision="int8"))
        with pytest.raises(ValueError, match="calibrate the model"):
            whole[:2].encode("the cat", precision="int8")

    def test_features_go_through_the_modules(self, shared: SentenceTransformer) -> None:
        """Called with features it gives features, with gradients, and leaves those that it was given alone."""
        features = shared.tokenize(TEXTS)
        given = dict(features)

        output = shared(features)
        output["sentence_embedding"].sum().backward()

        assert features.keys() == given.keys()
        assert all(features[name] is given[name] for name in given)
        _same(output["sentence_embedding"].detach(), shared.encode(TEXTS))
        assert next(shared.parameters()).grad is not None
        shared.zero_grad()

    @pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])  # noqa: S301
    def test_copies(self, shared: SentenceTransformer, again: Any) -> None:
        """A deep copy, and what comes out of a pickle, is the same model with weights of its own."""
        other = again(shared)

        _same(other.encode(TEXTS, prompt_name="query"), shared.encode(TEXTS, prompt_name="query"), 0)
        with torch.no_grad():
            next(other.parameters()).zero_()
        assert next(shared.parameters()).any()

    def test_weights_move_to_another_model(self, tiny_folders: dict[str, Path]) -> None:
        """state_dict and load_state_dict carry the weights over."""
        source = SentenceTransformer(str(tiny_folders["bert-chain"]), device="cpu")
        target = SentenceTransformer(str(tiny_folders["bert-chain"]), device="cpu")
        with torch.no_grad():
            for parameter in source.parameters():
                parameter.mul_(1.1)

        target.load_state_dict(source.state_dict())

        _same(target.encode(TEXTS), source.encode(TEXTS), 0)

    def test_no_modules(self) -> None:
        """A model can be made without modules; it says so when it is used."""
        empty = SentenceTransformer()

        assert len(empty) == 0
        assert empty.device == torch.device("cpu")
        with pytest.raises(ValueError, match="no modules"):
            empty.encode(TEXTS)

    def test_names_of_modules(self, shared: SentenceTransformer) -> None:
        """Modules are numbered, unless they come with names."""
        numbered = SentenceTransformer(modules=[shared[0], shared[1]], device="cpu")
        named = SentenceTransformer(modules=OrderedDict(encoder=shared[0], pooling=shared[1]), device="cpu")

        assert [name for name, _ in numbered.named_children()] == ["0", "1"]
        assert [name for name, _ in named.named_children()] == ["encoder", "pooling"]
        _same(named.encode(TEXTS), numbered.encode(TEXTS), 0)

    def test_settings_of_the_first_module(self, model: SentenceTransformer) -> None:
        """max_seq_length and tokenizer are those of the first module, and can be set."""
        assert model.max_seq_length == model.get_max_seq_length() == 24

        model.max_seq_length = 4

        assert model[0].max_seq_length == 4
        assert model.tokenize(["the cat sat on the mat"])["input_ids"].shape == (1, 4)
        assert model.tokenizer is model[0].tokenizer
        model.tokenizer = tokenizer = copy.deepcopy(model.tokenizer)
        assert model[0].tokenizer is tokenizer

    def test_the_older_name_of_the_device(self, model: SentenceTransformer) -> None:
        """_target_device is the device; setting it moves the model."""
        model._target_device = torch.device("meta")

        assert model._target_device == model.device == torch.device("meta")

    def test_repr_shows_the_modules_and_their_settings(self, shared: SentenceTransformer) -> None:
        """A model is printed in a few lines."""
        lines = repr(shared).splitlines()
        assert (
            lines.pop(1)
            == "  dimension=32, max_seq_length=24, similarity='cosine', device='cpu', prompts=['query', 'document']"
        )
        assert lines == [
            "SentenceTransformer(",
            "  (0): Transformer(max_seq_length=24, do_lower_case=False, architecture='BertModel')",
            "  (1): Pooling(32, 'mean', include_prompt=True)",
            ")",
        ]


class BagOfLetters(nn.Module):
    """A first module in the style of 2.7: no parameters, features made and changed in place."""

    def tokenize(self, texts: Sequence[str]) -> Features:
        """How often each letter stands in each text."""
        counts = [[text.count(letter) for letter in "abcdefgh"] for text in texts]
        return {"counts": torch.tensor(counts, dtype=torch.float32)}

    def forward(self, features: Features) -> Features:
        """The counts as an embedding."""
        features["sentence_embedding"] = features["counts"]
        return features


class WrappedTransformer(nn.Module):
    """A first module of someone else's, that has a tokenizer."""

    def __init__(self, transformer: Transformer) -> None:
        super().__init__()
        self.transformer = transformer
        self.tokenizer = transformer.tokenizer

    def tokenize(self, texts: Sequence[Any]) -> Features:
        """What the transformer makes of the texts."""
        return self.transformer.tokenize(texts)

    def forward(self, features: Features) -> Features:
        """What the transformer makes of the features."""
        return self.transformer.forward(features)


class Shouting(SentenceTransformer):
    """A model whose subclass has its own tokenize."""

    def tokenize(self, texts: Sequence[Any]) -> Features:
        """Tokenises other words."""
        return super().tokenize([f"the {text}" for text in texts])


class OwnTokenizer(Transformer):
    """A Transformer whose subclass has its own tokenize."""

    def tokenize(self, texts: Sequence[Any]) -> Features:  # type: ignore[override]  # as in many a program
        """Tokenises other words."""
        return super().tokenize([f"the {text}" for text in texts])


class TestForeignModules:
    """Modules and subclasses of others."""

    def test_a_module_without_parameters(self) -> None:
        """A module of the user's own, without parameters or a tokenizer, can encode."""
        model = SentenceTransformer(modules=[BagOfLetters(), Normalize()], device="cpu")

        embeddings = model.encode(["bag", "a head"], batch_size=1, prompt="a")

        counts = np.array([[2, 1, 0, 0, 0, 0, 1, 0], [3, 0, 0, 1, 1, 0, 0, 1]], dtype=np.float32)
        _same(embeddings, counts / np.linalg.norm(counts, axis=1, keepdims=True))
        assert model.get_sentence_embedding_dimension() is None
        assert model.get_max_seq_length() is None
        assert model.encode([], truncate_dim=3).shape == (0, 3)

    def test_a_subclass_with_its_own_tokenize(self, tiny_folders: dict[str, Path]) -> None:
        """What a subclass overrides is what encode calls."""
        folder = str(tiny_folders["bert"])
        expected = SentenceTransformer(folder, device="cpu").encode([f"the {text}" for text in TEXTS])
        own = SentenceTransformer(modules=[OwnTokenizer(folder, max_seq_length=24), Pooling(32)], device="cpu")

        _same(Shouting(folder, device="cpu").encode(TEXTS), expected)
        _same(own.encode(TEXTS), expected)

    def test_hooks_fire(self, model: SentenceTransformer) -> None:
        """encode calls the model, so that its hooks fire, once a batch."""
        calls = []
        model.register_forward_hook(lambda _module, _given, output: calls.append(output))

        model.encode(TEXTS, batch_size=2)

        assert len(calls) == 3

    def test_the_prompt_of_a_wrapped_transformer(self, tiny_folders: dict[str, Path]) -> None:
        """A first module that is not ours is asked how long the prompt is by tokenising it."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        model.set_pooling_include_prompt(False)
        wrapped = SentenceTransformer(modules=[WrappedTransformer(model[0]), model[1]], device="cpu")

        _same(wrapped.encode(TEXTS, prompt="query: "), model.encode(TEXTS, prompt="query: "))

    def test_a_first_module_that_does_not_tokenize(self) -> None:
        """A first module without tokenize is named."""
        with pytest.raises(TypeError, match=r"a first module with a tokenize method.* found Normalize"):
            SentenceTransformer(modules=[Normalize()], device="cpu").encode("a")

    def test_no_token_embeddings(self) -> None:
        """A chain without tokens says so when it is asked for their embeddings."""
        with pytest.raises(ValueError, match="expected token_embeddings from the modules, found"):
            SentenceTransformer(modules=[BagOfLetters()], device="cpu").encode("a", output_value="token_embeddings")

    def test_no_sentence_embedding(self, shared: SentenceTransformer) -> None:
        """A chain that makes no sentence embedding says what is missing."""
        model = SentenceTransformer(modules=[shared[0]], device="cpu")

        with pytest.raises(ValueError, match="a Pooling makes one"):
            model.encode(TEXTS)
        assert len(model.encode(TEXTS, output_value="token_embeddings")) == len(TEXTS)


class TestTrainingInput:
    """What a loss and an evaluator are given."""

    def test_collate(self, shared: SentenceTransformer) -> None:
        """Examples become the features of their first texts, of their second texts, and their labels."""
        batch = [
            InputExample(texts=["the cat", "a dog sat"], label=0.5),
            InputExample(texts=["hello", "world"], label=1.0),
        ]

        (firsts, seconds), labels = shared.smart_batching_collate(batch)

        assert torch.equal(firsts["input_ids"], shared.tokenize(["the cat", "hello"])["input_ids"])
        assert torch.equal(seconds["input_ids"], shared.tokenize(["a dog sat", "world"])["input_ids"])
        assert labels.tolist() == [0.5, 1.0]

    @pytest.mark.parametrize(
        ("labels", "dtype"),
        [([0, 1], torch.int64), ([0.5, 1.0], torch.float32), ([np.ones(3, np.float32)] * 2, torch.float32)],
        ids=["classes", "scores", "vectors"],
    )
    def test_labels(self, shared: SentenceTransformer, labels: list[Any], dtype: torch.dtype) -> None:
        """Labels are classes, scores or vectors, in the types that losses expect."""
        batch = [InputExample(texts=["the cat"], label=label) for label in labels]

        _, tensor = shared.smart_batching_collate(batch)

        assert tensor.dtype == dtype
        assert tensor.shape[0] == 2

    def test_ragged_examples(self, shared: SentenceTransformer) -> None:
        """Examples with different numbers of texts are an error, not cut."""
        batch = [InputExample(texts=["a", "b"]), InputExample(texts=["a"])]

        with pytest.raises(ValueError, match=r"the same number of texts, found \[1, 2\]"):
            shared.smart_batching_collate(batch)

    def test_evaluate(self, shared: SentenceTransformer, tmp_path: Path) -> None:
        """An evaluator is called with the model and a folder that exists, and its result is returned."""
        folder = tmp_path / "deep" / "eval"

        def evaluator(model: SentenceTransformer, output_path: str | None = None) -> dict[str, Any]:
            exists = output_path is not None and Path(output_path).is_dir()
            return {"score": model.encode("the cat").shape[0], "path": output_path, "exists": exists}

        assert shared.evaluate(evaluator) == {"score": 32, "path": None, "exists": False}
        assert shared.evaluate(evaluator, str(folder)) == {"score": 32, "path": str(folder), "exists": True}


class TestConstructor:
    """Arguments of the constructor."""

    def test_the_older_name_of_the_token(self, tiny_folders: dict[str, Path]) -> None:
        """use_auth_token is accepted with a warning, but not beside token."""
        folder = str(tiny_folders["bert"])

        with pytest.warns(FutureWarning, match="older name of token"):
            SentenceTransformer(folder, device="cpu", use_auth_token="hf_x")  # noqa: S106
        with pytest.raises(ValueError, match="token and use_auth_token were both given"):
            SentenceTransformer(folder, device="cpu", token="hf_x", use_auth_token="hf_y")  # noqa: S106

    def test_prompts_replace_those_of_the_model(self, tiny_folders: dict[str, Path]) -> None:
        """Prompts that are given replace the saved ones; the dict that was given stays the caller's."""
        given = {"passage": "p: "}

        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", prompts=given)

        assert model.prompts == given
        assert model.prompts is not given

    def test_other_backends_are_refused(self, tiny_folders: dict[str, Path]) -> None:
        """A backend that is not there is an error."""
        with pytest.raises(ValueError, match="backend: expected 'torch', found 'onnx'"):
            SentenceTransformer(str(tiny_folders["bert"]), backend="onnx")  # type: ignore[arg-type]

    def test_arguments_for_transformers(self, tiny_folders: dict[str, Path]) -> None:
        """Weights, tokenizer and configuration are loaded with the arguments that are given for them."""
        model = SentenceTransformer(
            str(tiny_folders["bert"]),
            device="cpu",
            model_kwargs={"dtype": "float16"},
            processor_kwargs={"padding_side": "left"},
            config_kwargs={"output_attentions": True},
        )

        assert next(model.parameters()).dtype == torch.float16
        assert model.tokenizer.padding_side == "left"
        assert model[0].auto_model.config.output_attentions

    def test_name_and_modules(self, tiny_folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
        """If both a name and modules are given, the name counts, and a log line says so."""
        model = SentenceTransformer(str(tiny_folders["bert"]), modules=[Dense(2, 2)], device="cpu")

        assert isinstance(model[0], Transformer)
        assert "modules is ignored" in caplog.text

    def test_loading_is_quiet(
        self, tiny_folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Loading, encoding and saving print nothing."""
        model = SentenceTransformer(str(tiny_folders["bert-chain"]), device="cpu")
        model.encode(TEXTS)
        model.save(tmp_path)

        captured = capfd.readouterr()
        assert captured.out == captured.err == ""


@pytest.fixture
def threads() -> Iterator[int]:
    """How many threads torch uses, put back afterwards."""
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def test_the_number_of_threads_is_the_callers(shared: SentenceTransformer, threads: int) -> None:
    """encode leaves torch's number of threads as it was."""
    shared.encode(TEXTS * 20)

    assert torch.get_num_threads() == threads


class TestOut:
    """encode(out=…)."""

    @pytest.mark.parametrize("kind", ["array", "memmap", "tensor", "half"])
    def test_rows_are_put_into_it(self, kind: str, model: SentenceTransformer, tmp_path: Path) -> None:
        """The embeddings stand in the array that was given, which is returned."""
        expected = model.encode(TEXTS)
        out: Any = np.zeros(expected.shape, dtype=np.float16 if kind == "half" else np.float32)
        if kind == "memmap":
            out = np.memmap(tmp_path / "rows", dtype=np.float32, mode="w+", shape=expected.shape)
        if kind == "tensor":
            out = torch.zeros(expected.shape)

        returned = model.encode(TEXTS, out=out, convert_to_tensor=kind == "tensor")

        assert returned is out
        _same(np.asarray(out, dtype=np.float32), expected, 1e-2 if kind == "half" else 1e-6)

    def test_a_part_of_an_array(self, model: SentenceTransformer) -> None:
        """It can be a part of a larger array; a lone text takes a row."""
        rows = np.zeros((5, 32), dtype=np.float32)

        model.encode(TEXTS[:2], out=rows[1:3])
        model.encode(TEXTS[2], out=rows[4])

        _same(rows[[1, 2, 4]], model.encode(TEXTS[:3]), 1e-6)
        assert not rows[[0, 3]].any()

    @pytest.mark.parametrize(
        ("precision", "dtype", "width"),
        [("float32", np.float32, 32), ("float32", np.float16, 32), ("int8", np.int8, 32), ("binary", np.int8, 4)],
    )
    def test_backwards(self, precision: Any, dtype: Any, width: int, model: SentenceTransformer) -> None:
        """The memory of an array may be gone through in any way, one that no tensor knows included."""
        expected = model.encode(TEXTS, precision=precision)
        memory = np.zeros((len(TEXTS), width), dtype=dtype)
        records = np.zeros(len(TEXTS), dtype=[("row", dtype, (width,)), ("other", "i1")])
        for out in (memory[::-1], memory[:, ::-1], records["row"]):
            assert model.encode(TEXTS, precision=precision, out=out) is out
            np.testing.assert_allclose(out, expected, atol=2e-3 if dtype == np.float16 else 1e-6)

    def test_of_a_lone_text(self, model: SentenceTransformer) -> None:
        """It is a row, or a table with one; anything else is refused."""
        expected = model.encode(TEXTS[0])
        row, table = np.zeros(32, np.float32), np.zeros((1, 32), np.float32)

        model.encode(TEXTS[0], out=row)
        model.encode(TEXTS[0], out=table)

        _same(row, expected, 1e-6)
        _same(table[0], expected, 1e-6)
        wrong: Any = [0.0] * 32
        with pytest.raises(ValueError, match="out: expected an array"):
            model.encode(TEXTS[0], out=wrong)

    def test_of_no_texts(self, model: SentenceTransformer) -> None:
        """It is what is returned, whatever its width; without one, an empty array of float32."""
        out = np.zeros((0, 3), np.int8)

        assert model.encode([], precision="int8", out=out) is out
        torch.set_default_dtype(torch.float64)
        try:
            assert model.encode([]).dtype == np.float32
        finally:
            torch.set_default_dtype(torch.float32)

    @pytest.mark.parametrize(("precision", "dtype", "width"), [("int8", np.int8, 32), ("ubinary", np.uint8, 4)])
    def test_quantised(self, precision: Any, dtype: Any, width: int, model: SentenceTransformer) -> None:
        """Quantised embeddings go into an array of their format."""
        out = np.zeros((len(TEXTS), width), dtype=dtype)

        assert model.encode(TEXTS, precision=precision, out=out) is out
        np.testing.assert_array_equal(out, model.encode(TEXTS, precision=precision))

    @pytest.mark.parametrize(
        ("out", "options", "message"),
        [
            (np.zeros((2, 32), np.float32), {}, r"expected the shape \(\d+, dim\), found \(2, 32\)"),
            (np.zeros((len(TEXTS), 31), np.float32), {}, r"expected the shape \(\d+, 32\), found \(\d+, 31\)"),
            (np.zeros((len(TEXTS), 32), np.int8), {}, "expected float32 or .* for float32, found int8"),
            (
                np.zeros((len(TEXTS), 32), np.float32),
                {"precision": "int8"},
                "expected int8 for int8, found float32",
            ),
            (
                np.zeros((len(TEXTS), 32), np.float32),
                {"convert_to_tensor": True},
                "a tensor with convert_to_tensor",
            ),
            (torch.zeros(len(TEXTS), 32), {}, "found Tensor"),
            (np.zeros((len(TEXTS), 32), np.float32), {"output_value": None}, "found ndarray"),
            (np.broadcast_to(np.float32(0), (len(TEXTS), 32)), {}, "that can be written to"),
            (torch.zeros(len(TEXTS), 32).to_sparse(), {"convert_to_tensor": True}, "expected a dense tensor"),
            (torch.zeros(len(TEXTS), 32, device="meta"), {"convert_to_tensor": True}, "expected a dense tensor"),
            (np.zeros((len(TEXTS), 31), np.float32)[::-1], {}, r"expected the shape \(\d+, 32\) for float32"),
        ],
    )
    def test_what_does_not_fit(self, out: Any, options: Any, message: str, model: SentenceTransformer) -> None:
        """An array that does not fit is refused, with what was expected and found."""
        with pytest.raises(ValueError, match=f"out: .*{message}"):
            model.encode(TEXTS, out=out, **options)


class TestStreams:
    """encode_iter."""

    @pytest.mark.parametrize("size", [1, 2, 100])
    def test_chunks_are_those_of_encode(self, size: int, model: SentenceTransformer) -> None:
        """Arrays of chunk_size rows come in the order of the texts, and together are what encode returns."""
        chunks = list(model.encode_iter(iter(TEXTS), chunk_size=size, normalize_embeddings=True, truncate_dim=8))

        assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
        _same(np.concatenate(chunks), model.encode(TEXTS, normalize_embeddings=True, truncate_dim=8))

    def test_a_text_that_is_too_long(self, tiny_folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
        """What is made of it is up to the caller; an error names the row in the stream, after the arrays before."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        texts = [*["the cat"] * 5, "the cat sat on the mat " * 9]

        assert sum(map(len, model.encode_iter(texts, chunk_size=3, truncation="ignore"))) == 6
        assert "were cut" not in caplog.text
        chunks = model.encode_iter(texts, chunk_size=3, truncation="error")
        assert len(next(chunks)) == 3
        with pytest.raises(ValueError, match="row 5: expected a text of no more than 24 tokens"):
            next(chunks)

    def test_deterministic(self, model: SentenceTransformer) -> None:
        """A row is bit for bit the same in a stream and in a call."""
        chunks = model.encode_iter(TEXTS, chunk_size=2, deterministic=True)

        np.testing.assert_array_equal(np.concatenate([*chunks]), model.encode(TEXTS, deterministic=True))

    @pytest.mark.parametrize("given", [np.array(TEXTS), np.array([["a cat", "a dog"]] * 3), np.array([0.1, 2])])
    def test_arrays(self, given: Any, model: SentenceTransformer) -> None:
        """The rows of an array, pairs and numbers too, are those of encode."""
        _same(np.concatenate([*model.encode_iter(given, chunk_size=2)]), model.encode(given))

    def test_texts_are_read_as_they_are_needed(self, model: SentenceTransformer) -> None:
        """An endless stream gives its first array at once."""
        read: list[int] = []

        def endless() -> Iterator[str]:
            for number in count():
                read.append(number)
                yield f"{number} cats"

        chunks = model.encode_iter(endless(), chunk_size=3, convert_to_tensor=True)

        assert read == []
        assert next(chunks).shape == (3, 32)
        assert len(read) == 3

    @pytest.mark.parametrize(
        ("texts", "options", "error", "message"),
        [
            ("one text", {}, TypeError, "expected a stream of texts, found str.*: put a lone text into a list"),
            ({"query": "a"}, {}, TypeError, "expected a stream of texts, found dict"),
            ({"a", "b"}, {}, TypeError, "expected a stream of texts, found set"),
            (b"a", {}, TypeError, "expected a stream of texts, found bytes"),
            (np.array("a"), {}, TypeError, "expected a stream of texts, found str"),
            (torch.ones(2), {}, TypeError, "expected a stream of texts, found Tensor"),
            (pd.DataFrame({"a": ["x"]}), {}, TypeError, r"found a table: pass one of its columns \['a'\]"),
            (TEXTS, {"precision": "int8"}, ValueError, "int8 needs the range of each dimension"),
            (TEXTS, {"chunk_size": 0}, ValueError, "chunk_size: expected at least 1, found 0"),
            (TEXTS, {"truncation": "maybe"}, ValueError, "truncation: expected one of"),
            (TEXTS, {"on_nonfinite": "maybe"}, ValueError, "on_nonfinite: expected one of"),
            (TEXTS, {"no_such": 1}, TypeError, r"no such argument: \['no_such'\]"),
        ],
    )
    def test_errors_come_with_the_call(
        self, texts: Any, options: Any, error: type[Exception], message: str, model: SentenceTransformer
    ) -> None:
        """What cannot be is said when encode_iter is called, not when the first array is taken."""
        with pytest.raises(error, match=message):
            model.encode_iter(texts, **options)

    def test_no_texts(self, model: SentenceTransformer) -> None:
        """No texts give no arrays."""
        assert list(model.encode_iter([])) == []

    def test_a_class_with_the_signature_of_2_7(self, tiny_folders: dict[str, Path]) -> None:
        """A class whose ``encode`` does not know newer arguments can do what does not need them."""
        model = OfOldTimes(str(tiny_folders["bert"]), device="cpu")

        (rows,) = model.encode_iter(TEXTS)
        _same(rows, model.encode(TEXTS))
        assert len(paraphrase_mining(model, TEXTS)) > 0
        for newer in ({"truncate_dim": 3}, {"truncation": "error"}, {"on_nonfinite": "raise"}, {"task": "query"}):
            with pytest.raises(TypeError, match=next(iter(newer))):
                list(model.encode_iter(TEXTS, **newer))


class OfOldTimes(SentenceTransformer):
    """A class whose ``encode`` has the signature of that of 2.7."""

    def encode(  # type: ignore[override]
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: Any = "sentence_embedding",
        precision: Any = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
    ) -> Any:
        """``encode``."""
        own = (show_progress_bar, output_value, precision, convert_to_numpy, convert_to_tensor, device)
        return super().encode(sentences, prompt_name, prompt, batch_size, *own, normalize_embeddings)


class TestEqualTexts:
    """Equal texts."""

    def test_they_are_computed_once(self, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of equal texts one is tokenised and computed; each has its row, and its place in the progress."""
        tokenized: list[str] = []
        tokenize_ahead = Transformer.tokenize_ahead

        def remembered(transformer: Transformer, texts: Any) -> Any:
            tokenized.extend(texts)
            return tokenize_ahead(transformer, texts)

        monkeypatch.setattr(Transformer, "tokenize_ahead", remembered)
        texts = ["a cat", "a dog", "a cat", "the mat", "a dog", "a cat"]

        rows = model.encode(texts, precision="float32")

        assert tokenized == ["a cat", "a dog", "the mat"]
        _same(rows, np.stack([model.encode(text) for text in texts]))

    @pytest.mark.parametrize("output_value", ["token_embeddings", None])
    def test_results_that_are_objects_are_not_shared(self, output_value: Any, model: SentenceTransformer) -> None:
        """Where each text has an object of its own, a change of one leaves the others."""
        first, second = model.encode(["a cat", "a cat"], output_value=output_value)
        if output_value is None:
            first, second = first["token_embeddings"], second["token_embeddings"]

        before = second.clone()
        first.zero_()

        assert torch.equal(second, before)


class TestDtype:
    """dtype=."""

    def test_it_is_checked_before_anything_is_loaded(self) -> None:
        """A format that does not exist is an error before a model is looked for."""
        with pytest.raises(ValueError, match="dtype: expected one of"):
            SentenceTransformer("no/such-model", device="cpu", dtype="float8")

    def test_it_is_part_of_the_acceleration(self) -> None:
        """The plain chain of modules has one format: that of the weights."""
        with pytest.raises(ValueError, match="expected 'float32' with acceleration=False, found 'auto'"):
            SentenceTransformer("no/such-model", device="cpu", dtype="auto", acceleration=False)
