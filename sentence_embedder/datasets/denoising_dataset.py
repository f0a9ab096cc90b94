"""DenoisingAutoEncoderDataset: texts with noise, and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.data import Dataset

from sentence_embedder.input_example import InputExample


class DenoisingAutoEncoderDataset(Dataset[InputExample]):
    """Examples of a text with noise and the text itself, from which a model learns to undo the noise (TSDAE,
    Wang et al. 2021, https://arxiv.org/abs/2104.06979). The noise is another one each time.

    Args:
        sentences: The texts.
        noise_fn: Text → text with noise; ``delete`` if there is none.

    Raises:
        ImportError: NLTK, which ``delete`` needs, is not installed.

    Example:
        >>> DenoisingAutoEncoderDataset(["A man eats."], noise_fn=lambda text: text.replace("man ", ""))[0].texts
        ['A eats.', 'A man eats.']
    """

    def __init__(self, sentences: Sequence[str], noise_fn: Callable[[str], str] | None = None) -> None:
        if noise_fn is None:
            _nltk()
        self.sentences = sentences
        self.noise_fn: Callable[[str], str] = self.delete if noise_fn is None else noise_fn

    def __getitem__(self, item: int) -> InputExample:
        text = self.sentences[item]
        return InputExample(texts=[self.noise_fn(text), text])

    def __len__(self) -> int:
        return len(self.sentences)

    @staticmethod
    def delete(text: str, del_ratio: float = 0.6) -> str:
        """The text without some of its words, drawn by torch's global random generator; one stays at least.

        Args:
            text: The text.
            del_ratio: How likely each word is left out, from 0 to 1.

        Raises:
            ImportError: NLTK, which knows what a word is, is not installed.
            ValueError: The ratio is none.
        """
        if not 0 <= del_ratio <= 1:
            raise ValueError(f"del_ratio: expected a number from 0 to 1, found {del_ratio}")
        # The line is kept whole: to find sentences first, NLTK would need data that has to be fetched.
        words = _nltk().word_tokenize(text, preserve_line=True)
        if not words:
            return text
        kept = [
            word for word, draw in zip(words, torch.rand(len(words)).tolist(), strict=True) if draw >= del_ratio
        ]
        kept = kept or [words[int(torch.randint(len(words), ()))]]
        return str(_nltk().TreebankWordDetokenizer().detokenize(kept))


@cache
def _nltk() -> Any:
    try:
        import nltk
    except ImportError as error:
        raise ImportError(
            "DenoisingAutoEncoderDataset: expected the package nltk, which splits texts into words: "
            "pip install 'sentence-embedder[phrases]'"
        ) from error
    return nltk
