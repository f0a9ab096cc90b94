"""What is embedded: the same texts, in the same order, on every machine with the same files and Python version."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer

_STSB = Path(__file__).parents[2] / "shared" / "data"
_STSB_NAMES = ("stsb-en-dev.csv", "stsb-en-train.csv")

_SEED = 0
_SHORTEST_PARAGRAPH, _LONGEST_PARAGRAPH = 20, 256
"""Bounds of a paragraph, in tokens with the special ones."""

QUERY = "how do I renew my passport online"
"""A query of nine tokens, the special ones included."""

_WHO = (
    "young doctor",
    "retired teacher",
    "street musician",
    "careful driver",
    "hungry student",
    "local farmer",
    "famous painter",
    "patient nurse",
    "curious child",
    "busy waiter",
    "tall soldier",
    "clever engineer",
    "former champion",
    "quiet librarian",
    "lonely fisherman",
    "cheerful baker",
    "tired traveller",
    "brave firefighter",
    "old sailor",
    "nervous lawyer",
    "friendly neighbour",
    "talented dancer",
    "skilled carpenter",
    "proud grandmother",
)
_DOES = (
    "is painting",
    "has repaired",
    "was carrying",
    "will sell",
    "is looking for",
    "has forgotten",
    "was cleaning",
    "would like",
    "is talking about",
    "bought",
    "has photographed",
    "was hiding",
    "described",
    "is waiting for",
    "has borrowed",
    "will inspect",
)
_WHAT = (
    "a wooden boat",
    "the red bicycle",
    "an expensive violin",
    "two heavy suitcases",
    "the broken window",
    "a basket of apples",
    "some fresh bread",
    "the missing letter",
    "a small white dog",
    "an electric guitar",
    "the kitchen table",
    "a photograph of mountains",
    "the last train ticket",
    "a bottle of olive oil",
    "several old maps",
    "the garden fence",
    "a winter coat",
    "the morning newspaper",
    "a pair of glasses",
    "an antique clock",
    "the yellow umbrella",
    "a bowl of soup",
    "the computer keyboard",
    "a box of chocolates",
)
_WHERE = (
    "near the old harbour",
    "in front of the station",
    "at the weekly market",
    "behind the school",
    "on the second floor",
    "in a quiet village",
    "by the river",
    "at home",
    "outside the museum",
    "in the rain",
    "under the bridge",
    "across the street",
    "at the airport",
    "in a crowded cafe",
    "on the beach",
    "after dinner",
)


def generated_sentences(count: int) -> list[str]:
    """Sentences of about 13 tokens, no two the same, in a random order that is always the same one."""
    parts = (_WHO, _DOES, _WHAT, _WHERE, _WHO)
    combinations = 1
    for part in parts:
        combinations *= len(part)
    numbers = random.Random(_SEED).sample(range(combinations), count)
    return [_sentence(number, parts) for number in numbers]


def _sentence(number: int, parts: Sequence[Sequence[str]]) -> str:
    """The sentence of a number, whose digits, in a base that changes with the place, are places in the parts."""
    words = []
    for part in parts:
        number, place = divmod(number, len(part))
        words.append(part[place])
    who, does, what, where, other = words
    return f"The {who} {does} {what} {where} with the {other}."


def short_sentences(count: int) -> list[str]:
    """Distinct sentences of the STS benchmark where it lies beside the repository, then generated ones."""
    read = list(dict.fromkeys(_stsb_sentences()))[:count]
    return [*read, *generated_sentences(count - len(read))]


def _stsb_sentences() -> Iterator[str]:
    for name in _STSB_NAMES:
        if (_STSB / name).exists():
            with (_STSB / name).open(encoding="utf-8", newline="") as file:
                for first, second, _score in csv.reader(file):
                    yield from (first, second)


def paragraphs(count: int, tokenizer: Tokenizer) -> list[str]:
    """Passages of 20 to 256 tokens out of the documentation of Python, which comes with the interpreter.

    Args:
        count: How many, at most; there are about a thousand.
        tokenizer: What counts the tokens; it neither pads nor truncates.
    """
    passages = list(dict.fromkeys(documentation()))
    lengths = [len(encoding.ids) for encoding in tokenizer.encode_batch(passages)]
    fitting = [
        passage
        for passage, length in zip(passages, lengths, strict=True)
        if _SHORTEST_PARAGRAPH <= length <= _LONGEST_PARAGRAPH
    ]
    return random.Random(_SEED).sample(fitting, min(count, len(fitting)))


def documentation() -> Iterator[str]:
    """Passages of the documentation of Python: neighbouring paragraphs, put together until they have as many words
    as was drawn for the passage.
    """
    lengths = random.Random(_SEED)
    for topic in _topics():
        words: list[str] = []
        wanted = lengths.randint(10, 150)
        for paragraph in re.split(r"\n\s*\n", topic):
            words += paragraph.split()
            if len(words) >= wanted:
                yield " ".join(words)
                words, wanted = [], lengths.randint(10, 150)


def _topics() -> list[str]:
    """The pages of ``help()``, as they are wrapped for a terminal."""
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


def ragged_texts(count: int, tokenizer: Tokenizer, *, shortest: int = 5, longest: int = 256) -> list[str]:
    """Texts whose numbers of tokens, the special ones included, are spread evenly, in a random order.

    Args:
        count: How many texts.
        tokenizer: What counts the tokens; it neither pads nor truncates.
        shortest: Tokens of the shortest.
        longest: Tokens of the longest.
    """
    topics = [topic for topic in map(_one_line, _topics()) if len(topic.split()) > longest]
    draw = random.Random(_SEED)
    step = (longest - shortest) / max(count - 1, 1)
    lengths = [round(shortest + step * place) for place in range(count)]
    draw.shuffle(lengths)
    return [
        _cut(topic, length, tokenizer) for topic, length in zip(draw.sample(topics, count), lengths, strict=True)
    ]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, tokens: int, tokenizer: Tokenizer) -> str:
    """The beginning of a text that has so many tokens, of which two are taken to be special."""
    offsets: list[tuple[int, int]] = tokenizer.encode(text, add_special_tokens=False).offsets
    return text[: offsets[tokens - 3][1]]


def count_tokens(texts: Sequence[str], tokenizer: Tokenizer, limit: int) -> int:
    """How many tokens a model sees that cuts each text at a limit."""
    return sum(min(len(encoding.ids), limit) for encoding in tokenizer.encode_batch(list(texts)))
