"""Transformer: tokenising, and the forward pass of models of Hugging Face transformers."""

from __future__ import annotations

import copy
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sentence_embedder.models import Dense, Transformer, checkpoint
from tests.crowd import in_threads
from tests.tiny_models import TINY_MODELS

TEXTS = ["the cat sat on the mat", "", "hello"]


@pytest.fixture(scope="module")
def transformers(tiny_folders: dict[str, Path]) -> dict[str, Transformer]:
    """Name of a tiny model → its Transformer, which no test changes."""
    return {name: Transformer.load(folder) for name, folder in tiny_folders.items()}


class TestTokenize:
    """Texts to token ids."""

    @pytest.mark.parametrize("name", TINY_MODELS)
    def test_the_tokenizers_own_padding(self, name: str, transformers: dict[str, Transformer]) -> None:
        """Ids, masks and padding are those that the tokenizer makes when it pads by itself."""
        transformer = transformers[name]
        tokenizer = copy.deepcopy(transformer.tokenizer)  # what pads changes the tokenizer's state
        expected = tokenizer(TEXTS, padding=True, return_tensors="pt", truncation=True, max_length=24)

        features = transformer.tokenize(TEXTS)

        assert features.keys() == expected.keys()
        for key, tensor in expected.items():
            assert torch.equal(features[key], tensor), key

    def test_long_texts_are_cut(self, transformers: dict[str, Transformer]) -> None:
        """No text has more tokens than max_seq_length, of which the last is still the closing one."""
        ids = transformers["bert"].tokenize(["cat " * 100, "the"])["input_ids"]

        assert ids.shape == (2, 24)
        assert ids[0, -1] == transformers["bert"].tokenizer.sep_token_id

    def test_many_texts_at_once(self, transformers: dict[str, Transformer]) -> None:
        """Texts are tokenised in chunks, in their order."""
        texts = [str(number) for number in range(2500)]

        tokenized = transformers["bert"].tokenize_ahead(texts)

        assert len(tokenized.lengths) == 2500
        for row in (0, 1023, 1024, 2499):
            ids = tokenized.packed([row]).columns["input_ids"].tolist()
            assert ids == transformers["bert"].tokenizer(texts[row])["input_ids"]

    def test_no_texts(self, transformers: dict[str, Transformer]) -> None:
        """No texts make a batch of none."""
        assert transformers["bert"].tokenize([])["input_ids"].shape[0] == 0

    def test_a_lone_text_is_one_text(self, transformers: dict[str, Transformer]) -> None:
        """A text that is not in a list is not taken for a list of letters."""
        assert torch.equal(
            transformers["bert"].tokenize("cat")["input_ids"], transformers["bert"].tokenize(["cat"])["input_ids"]
        )

    def test_keys_travel_along(self, transformers: dict[str, Transformer]) -> None:
        """``{key: text}`` gives the text's tokens, and the key as a feature."""
        features = transformers["bert"].tokenize([{"query": "cat"}, {"document": "dog"}])

        assert features["text_keys"] == ["query", "document"]
        assert torch.equal(features["input_ids"], transformers["bert"].tokenize(["cat", "dog"])["input_ids"])

    def test_texts_of_all_kinds_together(self, transformers: dict[str, Transformer]) -> None:
        """Texts, pairs and ``{key: text}`` can stand side by side, each tokenised as it would be alone."""
        rows: list[Any] = ["the cat", ("a dog", "sat"), {"query": "hello"}, ["world", "on"], "is"]

        tokenized = transformers["bert"].tokenize_ahead(rows)

        for place, row in enumerate(rows):
            alone = transformers["bert"].tokenize_ahead([row])
            for name, column in tokenized.packed([place]).columns.items():
                np.testing.assert_array_equal(column, alone.columns[name])
        assert tokenized.text_keys == [None, None, "query", None, None]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (["a", ("b", "c", "d")], r"row 1: expected a text, a pair of texts or \{key: text\}, found \('b'"),
            ([["a"]], "row 0: expected"),
            ([{}], "row 0: expected"),
            ([{"a": "b", "c": "d"}], "row 0: expected"),
        ],
    )
    def test_what_is_no_text(self, rows: list[Any], message: str, transformers: dict[str, Transformer]) -> None:
        """What is neither a text nor a pair is an error that names the row; nothing is dropped."""
        with pytest.raises(ValueError, match=message):
            transformers["bert"].tokenize(rows)

    @pytest.mark.parametrize("missing", [None, {"query": None}, (None, "a"), ["a", None]], ids=repr)
    def test_a_missing_text(self, missing: Any, transformers: dict[str, Transformer]) -> None:
        """A text that is missing is no text ``None``, but an error that names the row."""
        with pytest.raises(TypeError, match=r"row 1: expected a text, a pair of texts or .* found .*None"):
            transformers["bert"].tokenize(["a", missing])

    @pytest.mark.parametrize("name", ["bert", "roberta", "decoder", "decoder-all-modes"])
    def test_a_prompt_takes_the_tokens_that_it_has_in_a_text(
        self, name: str, transformers: dict[str, Transformer]
    ) -> None:
        """The length of a prompt is that of what a prompted text and a plain one do not share."""
        transformer = transformers[name]
        tokenized = transformer.tokenize_ahead(["query:?", "?"])
        prompted, plain = (tokenized.packed([row]).columns["input_ids"] for row in (0, 1))

        opening = 1 if plain[0] == prompted[0] and name in ("bert", "roberta") else 0
        assert transformer.prompt_length("query: ") == len(prompted) - len(plain) + opening

    def test_the_state_of_the_tokenizer_stays(self, transformers: dict[str, Transformer]) -> None:
        """No call changes the tokenizer: threads can share it."""
        transformer = transformers["bert"]
        backend = transformer.tokenizer.backend_tokenizer
        before = (backend.truncation, backend.padding)

        transformer.tokenize(["cat"])
        transformer.prompt_length("query: ")
        transformer.tokenize_ahead(TEXTS * 3)

        assert (backend.truncation, backend.padding) == before


class TestLimits:
    """max_seq_length."""

    @pytest.mark.parametrize(
        ("positions", "tokenizer_limit", "expected"),
        [(64, 48, 48), (64, 512, 64), (64, None, 64), (-1, 48, None)],
    )
    def test_by_default_the_lower_limit(
        self, positions: int, tokenizer_limit: int | None, expected: int | None, checkpoint: Path
    ) -> None:
        """Without a saved limit it is the lower one of model and tokenizer, if both have one."""
        from sentence_embedder.models.transformer import _own_limit

        class Config:
            max_position_embeddings = positions

        class Tokenizer:
            model_max_length = int(1e30) if tokenizer_limit is None else tokenizer_limit

        assert _own_limit(Config(), Tokenizer()) == expected
        assert Transformer(str(checkpoint)).max_seq_length == 48

    def test_no_limit(self, transformers: dict[str, Transformer]) -> None:
        """Where neither has a limit nothing is cut."""
        transformer = copy.deepcopy(transformers["decoder"])
        transformer.max_seq_length = None
        transformer.tokenizer.model_max_length = int(1e30)

        assert transformer.tokenize(["a" * 200])["input_ids"].shape[1] == 201

    @pytest.mark.parametrize("limit", [20.0, "20", float("inf")], ids=repr)
    def test_what_is_no_number_of_tokens(self, limit: Any, transformers: dict[str, Transformer]) -> None:
        """A limit that is no whole number, which no file could hold, is refused when it is set."""
        with pytest.raises(ValueError, match="max_seq_length: expected a whole number or None, found "):
            transformers["bert"].max_seq_length = limit

    @pytest.mark.parametrize("limit", [0, -1])
    def test_too_few_tokens(self, limit: int, transformers: dict[str, Transformer]) -> None:
        """A limit that leaves nothing is refused when it is set."""
        with pytest.raises(ValueError, match=f"max_seq_length: expected 1 or more, or None, found {limit}"):
            transformers["bert"].max_seq_length = limit

    @pytest.mark.parametrize("limit", [2**63, 2**64, 10**20])
    def test_more_tokens_than_there_are(self, limit: int, transformers: dict[str, Transformer]) -> None:
        """A limit beyond all numbers is none."""
        transformer = copy.deepcopy(transformers["decoder"])
        transformer.max_seq_length = limit

        assert transformer.tokenize(["a" * 40])["input_ids"].shape[1] == 41

    def test_numbers_of_numpy(self, transformers: dict[str, Transformer]) -> None:
        """A whole number of numpy's is one of Python's, which a file can hold."""
        transformer = copy.deepcopy(transformers["bert"])
        transformer.max_seq_length = np.int64(20)  # type: ignore[assignment]

        assert json.dumps(transformer.get_config_dict()["max_seq_length"]) == "20"

    def test_lower_case(self, transformers: dict[str, Transformer]) -> None:
        """With do_lower_case a text is lowered before it is tokenised."""
        lowering, plain = transformers["roberta"], transformers["decoder-all-modes"]

        assert torch.equal(lowering.tokenize(["CAT"])["input_ids"], lowering.tokenize(["cat"])["input_ids"])
        assert not torch.equal(plain.tokenize(["CAT"])["input_ids"], plain.tokenize(["cat"])["input_ids"])


class Wrapper(nn.Module):
    """A model inside another, as adapters wrap it."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.config = inner.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the inner model says."""
        return self.inner(*args, **kwargs)


class TestForward:
    """Token ids to token embeddings."""

    @pytest.mark.parametrize("name", TINY_MODELS)
    def test_it_is_the_models_own(self, name: str, transformers: dict[str, Transformer]) -> None:
        """Token embeddings are the last hidden state of the model, and the features given stay as they are."""
        transformer = transformers[name]
        features = transformer.tokenize(TEXTS[:1])
        given = dict(features)

        output = transformer({**features, "prompt_length": 1, "text_keys": ["a"]})

        expected = transformer.auto_model(**features).last_hidden_state
        assert torch.equal(output["token_embeddings"], expected)
        assert output["text_keys"] == ["a"]
        assert features == given

    def test_features_that_a_model_does_not_take(self, transformers: dict[str, Transformer]) -> None:
        """A feature that the model's forward does not name is not given to it."""
        features = transformers["distilbert"].tokenize(["cat"])
        types = torch.zeros_like(features["input_ids"])

        output = transformers["distilbert"]({**features, "token_type_ids": types})

        assert torch.equal(output["token_embeddings"], transformers["distilbert"](features)["token_embeddings"])

    def test_another_model_can_be_put_in(self, transformers: dict[str, Transformer]) -> None:
        """auto_model can be replaced, by a wrapper that takes any arguments, say."""
        transformer = copy.deepcopy(transformers["bert"])
        features = transformer.tokenize(["the cat"])
        expected = transformer(features)["token_embeddings"]

        transformer.auto_model = Wrapper(transformer.auto_model)

        assert torch.equal(transformer(features)["token_embeddings"], expected)


class TestFiles:
    """Settings in the folder."""

    def test_arguments_in_the_file(self, checkpoint: Path, tmp_path: Path) -> None:
        """Arguments in the settings file are used, those of the caller before them, and trust is never taken
        from a file.
        """
        for path in checkpoint.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        settings = {
            "max_seq_length": 12,
            "model_args": {"dtype": "float16", "trust_remote_code": True},
            "tokenizer_args": {"padding_side": "left"},
        }
        (tmp_path / "sentence_bert_config.json").write_text(json.dumps(settings))

        from_file = Transformer.load(tmp_path)
        from_caller = Transformer.load(tmp_path, model_args={"dtype": "bfloat16"})

        assert next(from_file.parameters()).dtype == torch.float16
        assert next(from_caller.parameters()).dtype == torch.bfloat16
        assert (from_file.max_seq_length, from_file.tokenizer.padding_side) == (12, "left")
        assert "trust_remote_code" not in json.dumps(from_file.get_config_dict())

    def test_the_tokenizer_is_spelt_for_old_readers(
        self, transformers: dict[str, Transformer], tmp_path: Path
    ) -> None:
        """A saved tokenizer has the class name and the merges that tokenizers of 2024 read, and means the same."""
        transformers["roberta"].save(tmp_path)

        settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
        merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["merges"]
        assert settings["tokenizer_class"] == "PreTrainedTokenizerFast"
        assert merges[:2] == ["t h", "th e"]
        features = Transformer.load(tmp_path).tokenize(TEXTS)
        assert torch.equal(features["input_ids"], transformers["roberta"].tokenize(TEXTS)["input_ids"])

    def test_added_tokens_are_spelt_for_old_readers(
        self, transformers: dict[str, Transformer], tmp_path: Path
    ) -> None:
        """A special token that somebody has added is where tokenizers of 2024 look for it, and means the same."""
        transformer = copy.deepcopy(transformers["bert"])
        transformer.tokenizer.add_special_tokens({"additional_special_tokens": ["cat"]})
        transformer.save(tmp_path)

        settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
        assert settings["additional_special_tokens"] == ["cat"]
        assert "extra_special_tokens" not in settings
        loaded = Transformer.load(tmp_path)
        assert loaded.tokenizer.all_special_tokens == transformer.tokenizer.all_special_tokens
        assert torch.equal(loaded.tokenize(["a cat"])["input_ids"], transformer.tokenize(["a cat"])["input_ids"])

    @pytest.mark.skipif(os.name == "nt", reason="needs modes of files")
    @pytest.mark.parametrize("is_safe", [True, False])
    def test_weights_have_the_mode_of_other_files(
        self, is_safe: bool, transformers: dict[str, Transformer], tmp_path: Path
    ) -> None:
        """Whoever may read the settings may read the weights."""
        before = os.umask(0o027)
        try:
            transformers["bert"].save(tmp_path / "bert", safe_serialization=is_safe)
            Dense(3, 2).save(str(tmp_path), safe_serialization=is_safe)
        finally:
            os.umask(before)

        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.suffix for path in files} == {".json", ".safetensors" if is_safe else ".bin"}
        assert {path.stat().st_mode & 0o777 for path in files} == {0o640}

    def test_the_switches_of_transformers_are_put_back(self, tiny_folders: dict[str, Path]) -> None:
        """Loading in many threads leaves transformers' progress bars and verbosity as they were."""
        from transformers.utils import logging as transformers_logging

        log: Any = transformers_logging
        its_logger = log.get_logger("transformers")

        def switches() -> Any:
            return log.get_verbosity(), log.is_progress_bar_enabled(), its_logger.handlers, its_logger.propagate

        before = switches()
        loaded: list[Any] = []

        folders = list(tiny_folders.values())

        in_threads(len(folders), lambda number: loaded.append(Transformer.load(folders[number]).tokenize(["cat"])))

        assert len(loaded) == len(tiny_folders)
        assert switches() == before
        assert before[0] <= logging.WARNING

    def test_only_errors_of_transformers_are_heard(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """While something is loaded its warnings are dropped; its errors go where they always go."""
        its_logger = logging.getLogger("transformers")
        heard: list[str] = []
        handler = logging.Handler()
        monkeypatch.setattr(handler, "emit", lambda record: heard.append(record.getMessage()))
        monkeypatch.setattr(its_logger, "handlers", [handler])

        with checkpoint._quiet_transformers():
            logging.getLogger("transformers.loading").warning("a table")
            logging.getLogger("transformers.loading").error("a fault")
        logging.getLogger("transformers.loading").warning("something else")

        assert heard == ["a fault", "something else"]

    @pytest.mark.parametrize("name", ["bert", "decoder"])
    def test_padding(self, name: str, tiny_folders: dict[str, Path]) -> None:
        """Texts are padded to the longest of them, to the limit, or, if they are of one length, not at all."""
        transformer = Transformer.load(tiny_folders[name])
        limit = transformer.max_seq_length or 0
        longest = transformer.tokenize(TEXTS)
        width = longest["input_ids"].shape[1]
        assert limit > width

        full = transformer.tokenize(TEXTS, padding="max_length")

        on_right = transformer.tokenizer.padding_side == "right"
        kept, added = (slice(width), slice(width, None)) if on_right else (slice(-width, None), slice(-width))
        for column, pad in (("input_ids", transformer.tokenizer.pad_token_id), ("attention_mask", 0)):
            assert full[column].shape == (len(TEXTS), limit)
            assert torch.equal(full[column][:, kept], longest[column])
            assert (full[column][:, added] == pad).all()
        assert torch.equal(transformer.tokenize(TEXTS, "longest")["input_ids"], longest["input_ids"])
        assert transformer.tokenize(["the cat", "a dog"], padding=False)["attention_mask"].all()
        with pytest.raises(ValueError, match="padding: expected some, for texts of"):
            transformer.tokenize(["a", "the cat sat on"], padding=False)
        with pytest.raises(ValueError, match=r"padding: expected True, .* found 'most'"):
            transformer.tokenize(TEXTS, padding="most")

    def test_width(self, transformers: dict[str, Transformer]) -> None:
        """The width of token embeddings is known."""
        assert {transformer.get_word_embedding_dimension() for transformer in transformers.values()} == {32}
        assert np.prod(transformers["bert"](transformers["bert"].tokenize(["a"]))["token_embeddings"].shape) == 96
