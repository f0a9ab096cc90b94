"""ParallelSentencesDataset: translations, and how a teacher embeds what they translate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch.utils.data import Dataset

from sentence_embedder.datasets.random_order import shuffled
from sentence_embedder.input_example import InputExample
from sentence_embedder.readers.table import lines_of


class Teacher(Protocol):
    """What is needed of a teacher."""

    def encode(
        self, sentences: list[str], *, batch_size: int, show_progress_bar: bool, convert_to_numpy: bool
    ) -> Any:
        """A row for each sentence."""


class ParallelSentencesDataset(Dataset[InputExample]):
    """Sentences in several languages, each with the embedding that a teacher gives to the first of its row, where a
    student should put all of them (Reimers and Gurevych 2020, https://arxiv.org/abs/2004.09813).

    Data sets are drawn from in proportion to their weights. From each, every row comes once, in random order,
    before any comes again. Examples come as they are drawn, by torch's global random generator, whatever
    index is asked for. The teacher embeds as many sentences at once as the weights add up to.

    Args:
        student_model: Means nothing.
        teacher_model: The teacher: anything with such an ``encode``.
        batch_size: How many sentences the teacher has in a batch.
        use_embedding_cache: Whether embeddings are kept, so that no sentence is embedded twice.

    Example:
        >>> dataset = ParallelSentencesDataset(student, teacher)
        >>> dataset.add_dataset([["hello world", "hallo Welt", "hola mundo"]])
        >>> example = dataset[0]  # with teacher.encode("hello world") as its label
        >>> example.texts[0] in {"hello world", "hallo Welt", "hola mundo"}
        True
    """

    def __init__(
        self, student_model: object, teacher_model: Teacher, batch_size: int = 8, use_embedding_cache: bool = True
    ) -> None:
        self.student_model = student_model
        self.teacher_model = teacher_model
        self.batch_size = batch_size
        self.use_embedding_cache = use_embedding_cache
        self.embedding_cache: dict[str, Any] = {}
        self.num_sentences = 0
        self._sources: list[_Sources] = []
        self._drawn: list[InputExample] = []

    def load_data(
        self,
        filepath: str,
        weight: int = 100,
        max_sentences: int | None = None,
        max_sentence_length: int | None = 128,
    ) -> None:
        """Add the rows of a file: sentences between tabs; unpacked if it is one of gzip.

        Args:
            filepath: The file.
            weight: How often rows of the file are drawn, beside those of others.
            max_sentences: How many rows are read at most; all if None or 0.
            max_sentence_length: Rows with a sentence of more characters are left out; none if None or 0.

        Raises:
            ValueError: A row is not UTF-8, or its first cell, which is what the others translate, is empty; or the
                weight is not positive.
        """
        rows = _within(_rows_of(Path(filepath)), max_sentences, max_sentence_length)
        self.add_dataset(list(rows), weight, max_sentences, max_sentence_length)

    def add_dataset(
        self,
        parallel_sentences: Iterable[Sequence[str]],
        weight: int = 100,
        max_sentences: int | None = None,
        max_sentence_length: int | None = 128,
    ) -> None:
        """Add rows: a sentence, and its translations. Rows that begin alike are one.

        Args:
            parallel_sentences: The rows.
            weight: How often they are drawn, beside those of others.
            max_sentences: How many rows are taken at most; all if None or 0.
            max_sentence_length: Rows with a sentence of more characters are left out; none if None or 0.

        Raises:
            ValueError: The weight is not positive.
        """
        if weight < 1:
            raise ValueError(f"weight: expected at least 1, found {weight}")
        translations: dict[str, dict[str, None]] = {}
        for row in _within(parallel_sentences, None, max_sentence_length):
            translations.setdefault(row[0], {}).update(dict.fromkeys(row))
            if max_sentences and len(translations) >= max_sentences > 0:
                break
        if translations:
            self._sources.append(_Sources({source: list(found) for source, found in translations.items()}, weight))
            self.num_sentences += sum(map(len, translations.values()))

    def __len__(self) -> int:
        """How many sentences there are, the first of each row among them."""
        return self.num_sentences

    def __getitem__(self, idx: int) -> InputExample:
        if not -len(self) <= idx < len(self):
            raise IndexError(
                f"ParallelSentencesDataset: expected an index below {len(self)}, found {idx}; "
                "load_data and add_dataset add sentences"
            )
        if not self._drawn:
            self._drawn = self._next_examples()
        return self._drawn.pop()

    def _next_examples(self) -> list[InputExample]:
        """As many rows of each data set as its weight says: each of their sentences is an example."""
        rows = [sources.next_row() for sources in self._sources for _ in range(sources.weight)]
        embeddings = self._embeddings([source for source, _ in rows])
        return shuffled(
            [
                InputExample(texts=[sentence], label=embeddings[source])
                for source, sentences in rows
                for sentence in sentences
            ]
        )

    def _embeddings(self, sentences: Iterable[str]) -> Mapping[str, Any]:
        """Sentence → its embedding; those that are not known are embedded together, each once."""
        known = self.embedding_cache if self.use_embedding_cache else {}
        unknown = [sentence for sentence in dict.fromkeys(sentences) if sentence not in known]
        if unknown:
            rows = self.teacher_model.encode(
                unknown, batch_size=self.batch_size, show_progress_bar=False, convert_to_numpy=True
            )
            known.update(zip(unknown, rows, strict=True))
        return known


class _Sources:
    """Sentences with their translations, without end: in random order, and when all have come, in another one."""

    def __init__(self, translations: Mapping[str, list[str]], weight: int) -> None:
        self.weight = weight
        self._rows = list(translations.items())
        self._coming: list[int] = []

    def next_row(self) -> tuple[str, list[str]]:
        self._coming = self._coming or shuffled(range(len(self._rows)))
        return self._rows[self._coming.pop()]


def _rows_of(path: Path) -> Iterator[list[str]]:
    """The cells of each line that are not empty; empty lines are none."""
    for number, line in lines_of(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells):
            continue
        if not cells[0]:
            raise ValueError(
                f"{path}, row {number}: expected a sentence in the first cell, found none: fill it or remove it"
            )
        yield [cell for cell in cells if cell]


def _within(
    rows: Iterable[Sequence[str]], max_sentences: int | None, max_length: int | None
) -> Iterator[Sequence[str]]:
    """Rows without long sentences, or so many of them."""
    taken = 0
    for row in rows:
        if max_length and max(map(len, row)) > max_length > 0:
            continue
        yield row
        taken += 1
        if max_sentences and taken >= max_sentences > 0:
            return
