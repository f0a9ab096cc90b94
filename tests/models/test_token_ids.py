"""Token ids, by a tokenizer whose state is left alone."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import PreTokenizer
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from sentence_embedder.models import token_ids
from sentence_embedder.models.token_ids import TokenIds

TEXTS = ["the cat sat on the mat", "", "hello", "[SEP] the [PAD] dog", "the " * 40]


@pytest.fixture(scope="module")
def bert(tiny_folders: dict[str, Path]) -> Any:
    """The tokenizer of a tiny BERT."""
    return AutoTokenizer.from_pretrained(tiny_folders["bert"])


def _expected(tokenizer: Any, limit: int | None, *texts: list[str] | None) -> dict[str, Any]:
    cut: dict[str, Any] = {"truncation": False}
    if limit is not None:
        cut = {"truncation": "longest_first", "max_length": limit}
    return dict(copy.deepcopy(tokenizer)(*texts, padding=False, return_attention_mask=False, **cut))


@pytest.mark.parametrize("name", ["bert", "roberta", "mpnet", "distilbert", "decoder"])
@pytest.mark.parametrize("limit", [None, 5, 30])
@pytest.mark.parametrize("side", ["right", "left"])
def test_the_ids_are_those_of_transformers(
    name: str, limit: int | None, side: str, tiny_folders: dict[str, Path]
) -> None:
    """Texts and pairs get the ids and token types that a call of the tokenizer gives, whatever is cut."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_folders[name], truncation_side=side)
    tokenizer.model_max_length = int(1e30)

    for seconds in (None, [text[::-1] for text in TEXTS]):
        found = TokenIds().tokenized(tokenizer, limit, TEXTS, seconds).columns
        assert {key: [*value] for key, value in found.items()} == _expected(tokenizer, limit, TEXTS, seconds)


def test_changes_of_the_tokenizer_are_noticed(bert: Any) -> None:
    """Added tokens, another limit, another side: the next call tokenises with them."""
    tokenizer, ids = copy.deepcopy(bert), TokenIds()

    def check(limit: int) -> None:
        found = ids.tokenized(tokenizer, limit, TEXTS, None).columns
        assert found["input_ids"] == _expected(tokenizer, limit, TEXTS)["input_ids"]

    check(20)
    tokenizer.add_tokens(["cat sat"])
    check(20)
    tokenizer.add_special_tokens({"additional_special_tokens": ["mat"]})  # which was a word before
    assert ids.special_tokens(tokenizer, 20, "the mat")[2] == 0
    check(20)
    tokenizer.backend_tokenizer.model.max_input_chars_per_word = 3
    check(20)
    tokenizer.truncation_side = "left"
    check(20)
    check(6)
    tokenizer.backend_tokenizer.post_processor = bert.backend_tokenizer.post_processor
    check(6)


def test_a_step_written_in_python_is_taken(bert: Any) -> None:
    """A tokenizer one of whose steps cannot be copied does what it does elsewhere."""

    class AtDashes:
        """Splits texts at dashes only."""

        def pre_tokenize(self, text: Any) -> None:
            """Split a text."""
            text.split(lambda _, part: part.split("-", "removed"))

    tokenizer, ids, texts = copy.deepcopy(bert), TokenIds(), ["the-cat", "the cat", "dog"]
    tokenizer.backend_tokenizer.pre_tokenizer = PreTokenizer.custom(AtDashes())

    found = ids.tokenized(tokenizer, 30, texts, None).columns["input_ids"]

    assert found == tokenizer(texts)["input_ids"]
    assert len(found[0]) == 4
    assert len(ids.special_tokens(tokenizer, 30, "the-cat")) == 4
    assert len(ids.offsets(tokenizer, 30, "the-cat")) == 4


def _from_file(folder: Path, content: Any) -> Any:
    """A tokenizer as transformers reads it from a file."""
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_file=str(path))


def test_words_that_share_an_id(bert: Any, tmp_path: Path) -> None:
    """A vocabulary that gives an id to two words gives it to both, whichever comes back from the id."""
    content = json.loads(bert.backend_tokenizer.to_str())
    content["model"]["vocab"]["cat"] = content["model"]["vocab"]["dog"]
    tokenizer = _from_file(tmp_path, content)

    for _ in range(4):
        ((*_, cat, _), (*_, dog, _)) = TokenIds().tokenized(tokenizer, 9, ["cat", "dog"], None).columns["input_ids"]

        assert cat == dog == content["model"]["vocab"]["dog"]


def test_ids_of_added_tokens(bert: Any, tmp_path: Path) -> None:
    """Added tokens keep their ids, even those that only a file can give them."""
    content = json.loads(bert.backend_tokenizer.to_str())
    plain = {**content["added_tokens"][0], "special": False, "normalized": True}
    free = len(content["model"]["vocab"])
    for words in (["cat sat", "on the"], ["on the", "cat sat"]):
        added = [{**plain, "id": free + place, "content": word} for place, word in enumerate(words)]
        changed = {**content, "added_tokens": [*content["added_tokens"], *added]}
        changed["model"] = {**content["model"], "vocab": {**content["model"]["vocab"], "far": free + 9}}
        tokenizer = _from_file(tmp_path, changed)

        found = TokenIds().tokenized(tokenizer, 30, TEXTS, None).columns["input_ids"]

        assert found == _expected(tokenizer, 30, TEXTS)["input_ids"]


def test_a_tokenizer_of_somebodys_own_is_called(bert: Any, tiny_folders: dict[str, Path]) -> None:
    """A tokenizer that overrides how it is called is called."""

    class Shouting(BertTokenizer):
        """Adds a word to each text."""

        def __call__(self, text: Any = None, *arguments: Any, **options: Any) -> Any:
            """Adds a word to each text."""
            return super().__call__([f"{one} cat" for one in text], *arguments, **options)

    tokenizer = Shouting.from_pretrained(tiny_folders["bert"])

    found = TokenIds().tokenized(tokenizer, 30, ["the"], None).columns

    assert found["input_ids"] == bert(["the cat"])["input_ids"]


@settings(max_examples=40)
@given(
    words=st.lists(st.sampled_from(["the", "cat", "zzzz" * 60, "\n", "a-b", "ü"]), max_size=60),
    limit=st.integers(3, 9),
)
def test_long_texts_are_cut_to_the_same_tokens(words: list[str], limit: int, bert: Any) -> None:
    """Looking at the beginning of a long text only does not change its tokens."""
    text = " ".join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_ids, "_CHARACTERS_A_TOKEN", 2)
        patch.setattr(token_ids, "_SHORTEST_CUT", 4)
        found = TokenIds().tokenized(bert, limit, [text, "the cat"], None).columns

    assert found["input_ids"] == _expected(bert, limit, [text, "the cat"])["input_ids"]


def test_an_absurdly_long_text_is_not_read_to_its_end(bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a text of millions of characters only the beginning reaches the tokenizer."""
    seen: list[int] = []
    beginning = token_ids._beginning

    def remembered(text: str, limit: int) -> str:
        seen.append(len(beginning(text, limit)))
        return beginning(text, limit)

    monkeypatch.setattr(token_ids, "_beginning", remembered)

    (ids,) = TokenIds().tokenized(bert, 16, ["the cat " * 500_000], None).columns["input_ids"]

    assert len(ids) == 16
    assert {*seen} == {4095}
