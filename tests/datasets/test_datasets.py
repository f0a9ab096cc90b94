"""Data sets that make examples of texts, or put examples in an order."""

from __future__ import annotations

import gzip
import pickle
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sentence_embedder import InputExample
from sentence_embedder.datasets import (
    DenoisingAutoEncoderDataset,
    ParallelSentencesDataset,
    SentenceLabelDataset,
    SentencesDataset,
)

SENTENCE = "It isn't true (they say) that a man eats a piece of bread."


class _Teacher:
    """Embeds a sentence as its length, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], int]] = []

    def encode(
        self, sentences: list[str], *, batch_size: int, show_progress_bar: bool, convert_to_numpy: bool
    ) -> Any:
        assert convert_to_numpy
        assert not show_progress_bar
        self.calls.append((sentences, batch_size))
        return np.array([[len(sentence)] for sentence in sentences])


def _labelled(counts: dict[str, int]) -> list[InputExample]:
    """So many examples of each label, with a text each."""
    return [
        InputExample(texts=[f"{label}{number}"], label=label)
        for label, count in counts.items()
        for number in range(count)
    ]


def _texts(examples: Any) -> list[str]:
    return [example.texts[0] for example in examples]


# Denoising.


@given(text=st.text("ab .,'", max_size=30), ratio=st.sampled_from([0, 0.3, 1]))
def test_noise_leaves_words_out_and_never_all(text: str, ratio: float) -> None:
    """What is left of a text are words of it in their order; one at least, if there was one."""
    rest = DenoisingAutoEncoderDataset.delete(text, ratio)

    letters = iter(text.replace(" ", ""))
    assert all(letter in letters for letter in rest.replace(" ", "").replace('"', "''"))
    assert bool(rest.strip()) is bool(text.strip())


def test_the_ratio_of_noise() -> None:
    """0 leaves every word, 1 a single one, 0.6 two in five; anything else than a ratio is an error."""
    noise = DenoisingAutoEncoderDataset.delete
    words = " ".join(["word"] * 1000)

    assert noise(SENTENCE, 0) == SENTENCE
    assert noise(words, 1) == "word"
    assert 300 < len(noise(words).split()) < 500
    with pytest.raises(ValueError, match="del_ratio: expected a number from 0 to 1, found 60"):
        noise(SENTENCE, 60)


def test_denoising_examples() -> None:
    """An example is a text with noise and the text; the noise is another one each time, and the same with a seed.
    The data set can be pickled, for loaders with processes.
    """
    dataset = pickle.loads(pickle.dumps(DenoisingAutoEncoderDataset([SENTENCE] * 20)))  # noqa: S301
    torch.manual_seed(0)
    found = [dataset[place].texts for place in range(len(dataset))]
    torch.manual_seed(0)

    assert dataset[0].texts == found[0]
    assert {clean for _, clean in found} == {SENTENCE}
    assert len({noisy for noisy, _ in found}) > 10
    assert DenoisingAutoEncoderDataset(["a"], str.upper)[0].texts == ["A", "a"]


def test_noise_without_nltk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NLTK a data set says at once what to install, unless it has a noise of its own."""
    from sentence_embedder.datasets import denoising_dataset

    denoising_dataset._nltk.cache_clear()
    monkeypatch.setitem(sys.modules, "nltk", None)

    with pytest.raises(ImportError, match=r"sentence-embedder\[phrases\]"):
        DenoisingAutoEncoderDataset(["a"])
    assert len(DenoisingAutoEncoderDataset(["a"], str.upper)) == 1


# Labels.


@given(
    counts=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 9)),
    size=st.integers(1, 4),
    replaced=st.booleans(),
)
def test_groups_have_one_label_and_no_example_twice(counts: dict[str, int], size: int, replaced: bool) -> None:
    """An epoch is made of groups of different examples of one label; labels come equally often, those with too few
    examples never.
    """
    dataset = SentenceLabelDataset(_labelled(counts), size, with_replacement=replaced)
    examples = list(dataset)
    groups = [examples[start : start + size] for start in range(0, len(examples), size)]

    usable = {label: count for label, count in counts.items() if count >= size}
    turns = Counter(dict.fromkeys(usable, 0))
    for group in groups:
        (label,) = {example.label for example in group}
        assert len(set(_texts(group))) == size
        turns[label] += 1
    assert turns.keys() == usable.keys()
    assert max(turns.values(), default=0) - min(turns.values(), default=0) <= 1
    assert sum(usable.values()) <= len(examples) == len(dataset) < sum(usable.values()) + size


def test_labels_take_turns() -> None:
    """In each round every label comes once; the order of rounds differs."""
    groups = list(SentenceLabelDataset(_labelled(dict.fromkeys("abcdef", 20))))[::2]
    rounds = ["".join(example.label for example in groups[start : start + 6]) for start in range(0, 60, 6)]

    assert {"".join(sorted(labels)) for labels in rounds} == {"abcdef"}
    assert len(set(rounds)) > 5


def test_examples_come_again_when_their_label_has_no_others() -> None:
    """Labels of equal size: without replacement each example comes once in an epoch, with it some come twice."""
    examples = _labelled({"a": 40, "b": 40})

    assert set(Counter(_texts(SentenceLabelDataset(examples))).values()) == {1}
    assert max(Counter(_texts(SentenceLabelDataset(examples, with_replacement=True))).values()) > 1


def test_an_order_of_labels_depends_on_the_random_state_at_its_start_alone() -> None:
    """A seed gives an order again, whatever is drawn meanwhile; the next epoch has another one."""
    dataset = SentenceLabelDataset(_labelled({"a": 5, "b": 8, "c": 3}))
    torch.manual_seed(1)
    first, second = _texts(dataset), _texts(dataset)
    torch.manual_seed(1)
    epoch = iter(dataset)
    torch.manual_seed(2)

    assert _texts(epoch) == first != second


def test_a_loader_takes_labels_as_they_come() -> None:
    """In a DataLoader, batches are groups of one label each, side by side."""
    loader = DataLoader(SentenceLabelDataset(_labelled({"a": 4, "b": 4})), batch_size=4, collate_fn=list)

    batches = list(loader)
    assert len(batches) == len(loader) == 2
    assert all(Counter(example.label for example in batch) == {"a": 2, "b": 2} for batch in batches)
    with pytest.raises(ValueError, match="samples_per_label: expected at least 1, found 0"):
        SentenceLabelDataset([], samples_per_label=0)


# Translations.


@pytest.mark.parametrize("name", ["talks.tsv", "talks.tsv.gz"])
def test_translations_have_the_embedding_of_what_they_translate(tmp_path: Path, name: str) -> None:
    """All sentences of a row, each once, have the teacher's embedding of the first; empty cells are none."""
    data = b"one\teins\tuno\r\n\nthree\t\ttres\n"
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    teacher = _Teacher()
    dataset = ParallelSentencesDataset(None, teacher, batch_size=5)
    dataset.load_data(str(tmp_path / name), weight=2)

    examples = [dataset[place] for place in range(len(dataset))]

    embeddings = [int(example.label[0]) for example in examples]
    assert set(zip(_texts(examples), embeddings, strict=True)) == {
        *(("one", 3), ("eins", 3), ("uno", 3)),
        *(("three", 5), ("tres", 5)),
    }
    assert len(examples) == 5
    assert [(sorted(sentences), size) for sentences, size in teacher.calls] == [(["one", "three"], 5)]


def test_rows_that_begin_alike_are_one() -> None:
    """Their translations are those of all, each once."""
    dataset = ParallelSentencesDataset(None, _Teacher())
    dataset.add_dataset([["one", "eins"], ["one", "uno"], ["one", "eins"]], weight=1)

    assert sorted(_texts(dataset[place] for place in range(3))) == ["eins", "one", "uno"]
    assert len(dataset) == 3


def test_limits_of_rows_and_lengths(tmp_path: Path) -> None:
    """Rows with a sentence that is too long do not count; 0 and None are no limit."""
    path = tmp_path / "talks.tsv"
    path.write_text("a\tlong sentence\nb\tB\nc\tC\nd\tD\n", encoding="utf-8")

    def count(**limits: Any) -> int:
        dataset = ParallelSentencesDataset(None, _Teacher())
        dataset.load_data(str(path), **limits)
        return len(dataset)

    assert count(max_sentences=2, max_sentence_length=5) == 4
    assert count(max_sentence_length=5) == 6
    assert count(max_sentences=0, max_sentence_length=0) == count(max_sentence_length=None) == 8


def test_weights_are_proportions() -> None:
    """Of a data set with three times the weight, three times as many rows come, each before any comes again."""
    dataset = ParallelSentencesDataset(None, _Teacher())
    dataset.add_dataset([[f"a{number}"] for number in range(30)], weight=3)
    dataset.add_dataset([[f"b{number}"] for number in range(30)], weight=1)

    found = _texts(dataset[0] for _ in range(40))

    assert Counter(text[0] for text in found) == {"a": 30, "b": 10}
    assert len(set(found)) == 40


@pytest.mark.parametrize("cached", [True, False])
def test_no_sentence_is_embedded_twice(cached: bool) -> None:
    """With the cache a sentence is embedded once, in all data sets and for ever; without it once a draw."""
    teacher = _Teacher()
    dataset = ParallelSentencesDataset(None, teacher, use_embedding_cache=cached)
    dataset.add_dataset([["one", "eins"]], weight=2)
    dataset.add_dataset([["one", "uno"]], weight=2)

    assert len({int(dataset[0].label[0]) for _ in range(24)}) == 1

    assert [sentences for sentences, _ in teacher.calls] == [["one"]] * (1 if cached else 3)
    assert dataset.embedding_cache.keys() == ({"one"} if cached else set())


def test_translations_are_drawn_by_the_seed() -> None:
    """A seed gives the same examples again; they come in no order of theirs."""

    def drawn(seed: int) -> list[str]:
        torch.manual_seed(seed)
        dataset = ParallelSentencesDataset(None, _Teacher())
        dataset.add_dataset([[f"{number}", f"{number}!"] for number in range(100)])
        return _texts(dataset[place] for place in range(200))

    assert drawn(1) == drawn(1) != drawn(2)
    assert any(int(later.strip("!")) < int(former.strip("!")) for former, later in pairwise(drawn(1)))


def test_errors_of_translations(tmp_path: Path) -> None:
    """They name the file and the row; a weight is positive; without sentences there is no example."""
    dataset = ParallelSentencesDataset(None, _Teacher())
    path = tmp_path / "talks.tsv"

    path.write_bytes(b"one\teins\n\tzwei\n")
    with pytest.raises(ValueError, match=r"talks\.tsv, row 2: expected a sentence in the first cell, found none"):
        dataset.load_data(str(path))
    path.write_bytes(b"one\teins\ntwo\tzwei\nfive\tf\xfcnf\n")
    with pytest.raises(ValueError, match=r"talks\.tsv, row 3: expected UTF-8, found b'\\xfc'"):
        dataset.load_data(str(path))
    with pytest.raises(ValueError, match="weight: expected at least 1, found 0"):
        dataset.add_dataset([["one"]], weight=0)
    dataset.add_dataset([])
    with pytest.raises(IndexError, match="load_data and add_dataset add sentences"):
        dataset[0]


# Examples as they are.


def test_examples_as_a_data_set() -> None:
    """A SentencesDataset is the examples that it was given."""
    examples = _labelled({"a": 2})
    dataset = SentencesDataset(examples, model=None)

    assert [dataset[place] for place in range(len(dataset))] == examples
