"""Word tokenizers: texts → the places of their words in a vocabulary."""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from sentence_embedder.files import read_json, write_json
from sentence_embedder.formats import PhraseTokenizerConfig, WordTokenizerConfig

__all__ = ["ENGLISH_STOP_WORDS", "PhraseTokenizer", "WhitespaceTokenizer", "WordTokenizer"]

_Tokenizer = TypeVar("_Tokenizer", bound="_StopWordTokenizer")

_STOP_WORDS_FILE = "english_stop_words.txt"

ENGLISH_STOP_WORDS: frozenset[str] = frozenset(
    (files(__package__) / _STOP_WORDS_FILE).read_text(encoding="utf-8").split()
) | {*string.punctuation, "``", "''"}
"""Words that say little of what a text is about, and punctuation."""


class WordTokenizer(ABC):
    """Splits a text into words and looks these up in a vocabulary; words that are not in it are left out.

    A subclass for a tokenizer of your own has ``tokenize``, ``save`` and a static or class method ``load``.
    """

    @abstractmethod
    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Take these words, in the order of their ids."""

    @abstractmethod
    def get_vocab(self) -> Sequence[str]:
        """The words, in the order of their ids."""

    @abstractmethod
    def tokenize(self, text: str, **kwargs: Any) -> list[int]:
        """The ids of a text's words."""

    @abstractmethod
    def save(self, output_path: Any) -> None:
        """Write the tokenizer into a folder."""

    @staticmethod
    @abstractmethod
    def load(input_path: Any) -> Any:
        """The tokenizer that a folder holds."""


class _StopWordTokenizer(WordTokenizer):
    """What both tokenizers below have: a vocabulary, stop words, a file.

    Args:
        config: The settings.
    """

    config_class: ClassVar[type[WordTokenizerConfig]]
    config_file_name: ClassVar[str]

    def __init__(self, config: WordTokenizerConfig) -> None:
        self.stop_words = frozenset(config.stop_words)
        self.do_lower_case = config.do_lower_case
        self._config = config
        self.set_vocab(config.vocab)

    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Take these words, in the order of their ids."""
        self.vocab = list(vocab)
        self.word2idx = {word: idx for idx, word in enumerate(self.vocab)}

    def get_vocab(self) -> list[str]:
        """The words, in the order of their ids."""
        return self.vocab

    def save(self, output_path: str | Path) -> None:
        """Write the tokenizer into a folder."""
        config = replace(self._config, vocab=tuple(self.vocab), stop_words=tuple(sorted(self.stop_words)))
        write_json(Path(output_path) / self.config_file_name, config.to_dict())

    @classmethod
    def load(cls: type[_Tokenizer], input_path: str | Path) -> _Tokenizer:
        """The tokenizer that a folder holds.

        Raises:
            FormatError: Its file is not one of such a tokenizer.
        """
        path = Path(input_path) / cls.config_file_name
        config = cls.config_class.from_dict(read_json(path), str(path))
        tokenizer = cls.__new__(cls)
        _StopWordTokenizer.__init__(tokenizer, config)
        return tokenizer

    def _looked_up(self, word: str, changes: Sequence[Callable[[str], str]]) -> int | None:
        """The id of a word as it is, or else after one change, or else after the next; None for a stop word."""
        for change in (None, *changes):
            word = word if change is None else change(word)
            if word in self.stop_words:
                return None
            if word and word in self.word2idx:
                return self.word2idx[word]
        return None


def _without_punctuation(word: str) -> str:
    return word.strip(string.punctuation)


class WhitespaceTokenizer(_StopWordTokenizer):
    """Words are what stands between white space, looked up as they are, then without punctuation around them, then
    in lower case as well.

    Args:
        vocab: The words, in the order of their ids.
        stop_words: Words that are left out.
        do_lower_case: Lower the text before anything else.

    Example:
        >>> WhitespaceTokenizer(["Paris", "rain"]).tokenize("It will rain, in Paris!")
        [1, 0]
    """

    config_class = WordTokenizerConfig
    config_file_name = "whitespacetokenizer_config.json"

    def __init__(
        self,
        vocab: Iterable[str] = (),
        stop_words: Iterable[str] = ENGLISH_STOP_WORDS,
        do_lower_case: bool = False,
    ) -> None:
        super().__init__(
            WordTokenizerConfig(
                vocab=tuple(vocab), stop_words=tuple(sorted(stop_words)), do_lower_case=do_lower_case
            )
        )

    def tokenize(self, text: str, **_: Any) -> list[int]:
        """The ids of a text's words."""
        words = (text.lower() if self.do_lower_case else text).split()
        ids = (self._looked_up(word, (_without_punctuation, str.lower)) for word in words)
        return [idx for idx in ids if idx is not None]


class PhraseTokenizer(_StopWordTokenizer):
    """Words as NLTK splits them, of which those that form a phrase of the vocabulary (``New_York``) become one.

    Args:
        vocab: The words and phrases, in the order of their ids.
        stop_words: Words that are left out.
        do_lower_case: Kept with the settings; words are looked up in lower case in any case.
        ngram_separator: What stands between the words of a phrase.
        max_ngram_length: How many words a phrase has at most.

    Raises:
        ImportError: NLTK is not installed.
    """

    config_class = PhraseTokenizerConfig
    config_file_name = "phrasetokenizer_config.json"
    _config: PhraseTokenizerConfig

    def __init__(
        self,
        vocab: Iterable[str] = (),
        stop_words: Iterable[str] = ENGLISH_STOP_WORDS,
        do_lower_case: bool = False,
        ngram_separator: str = "_",
        max_ngram_length: int = 5,
    ) -> None:
        super().__init__(
            PhraseTokenizerConfig(
                vocab=tuple(vocab),
                stop_words=tuple(sorted(stop_words)),
                do_lower_case=do_lower_case,
                ngram_separator=ngram_separator,
                max_ngram_length=max_ngram_length,
            )
        )

    def set_vocab(self, vocab: Iterable[str]) -> None:
        """Take these words and phrases, in the order of their ids."""
        super().set_vocab(vocab)
        separator = self._config.ngram_separator
        phrases = [word for word in self.vocab if separator in word and separator * 2 not in word]
        lengths = {phrase: phrase.count(separator) + 1 for phrase in phrases}
        self._phrases = {
            phrase: length for phrase, length in lengths.items() if length <= self._config.max_ngram_length
        }

    def tokenize(self, text: str, **_: Any) -> list[int]:
        """The ids of a text's words and phrases."""
        words: list[str] = _word_tokenize()(text, preserve_line=True)
        for length in sorted(set(self._phrases.values()), reverse=True):
            words = self._joined(words, length)
        ids = (self._looked_up(word, (str.lower, _without_punctuation)) for word in words)
        return [idx for idx in ids if idx is not None]

    def _joined(self, words: Sequence[str], length: int) -> list[str]:
        """The words, with those that form a phrase of so many joined."""
        joined, place = [], 0
        while place < len(words):
            window = words[place : place + length]
            phrase = self._config.ngram_separator.join(window)
            forms = (phrase, phrase.lower()) if len(window) == length else ()
            known = next((form for form in forms if form in self._phrases), None)
            joined.append(words[place] if known is None else known)
            place += 1 if known is None else length
        return joined


@cache
def _word_tokenize() -> Any:
    try:
        from nltk import word_tokenize
    except ImportError as error:
        raise ImportError("PhraseTokenizer: expected NLTK: pip install 'sentence_embedder[phrases]'") from error
    return word_tokenize
