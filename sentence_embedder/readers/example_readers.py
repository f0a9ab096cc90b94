"""Readers: files of well-known forms → training examples."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import islice, zip_longest
from pathlib import Path
from typing import ClassVar

from sentence_embedder.input_example import InputExample
from sentence_embedder.readers.table import cells_of, most, opened


class LabelSentenceReader:
    """Texts with a label each. Labels become numbers, in the order in which they come first.

    Args:
        folder: Where the files are.
        label_col_idx: The column of the labels.
        sentence_col_idx: The column of the texts.
        separator: What stands between columns, one character or several; None for spaces of any number.
    """

    def __init__(
        self, folder: str, label_col_idx: int = 0, sentence_col_idx: int = 1, separator: str | None = "\t"
    ) -> None:
        self.folder = folder
        self.label_map: dict[str, int] = {}
        self.label_col_idx = label_col_idx
        self.sentence_col_idx = sentence_col_idx
        self.separator = separator

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """The examples of a file, or so many of them.

        Raises:
            ValueError: A line has not so many columns.
        """
        rows = islice(self._rows(Path(self.folder) / filename), most(max_examples))
        return [
            InputExample(
                guid=f"{filename}-{number}",
                texts=[text],
                label=self.label_map.setdefault(label, len(self.label_map)),
            )
            for number, (label, text) in enumerate(rows)
        ]

    def _rows(self, path: Path) -> Iterator[tuple[str, str]]:
        """The label and the text of each line."""
        with opened(path) as lines:
            for number, line in enumerate(lines, start=1):
                cells = line.strip().split(self.separator)
                try:
                    row = cells[self.label_col_idx], cells[self.sentence_col_idx]
                except IndexError as error:
                    raise ValueError(
                        f"{path}, row {number}: expected columns {self.label_col_idx} and {self.sentence_col_idx}, "
                        f"found {len(cells)} between separators {self.separator!r}"
                    ) from error
                yield row


class NLIDataReader:
    """Premise, hypothesis and what follows, in three files side by side: ``s1.…``, ``s2.…`` and ``labels.…``,
    packed by gzip (AllNLI), whatever their names end in.

    Args:
        dataset_folder: Where the files are.
    """

    _LABELS: ClassVar[Mapping[str, int]] = {"contradiction": 0, "entailment": 1, "neutral": 2}

    def __init__(self, dataset_folder: str) -> None:
        self.dataset_folder = dataset_folder

    @classmethod
    def get_labels(cls) -> dict[str, int]:
        """Label → number."""
        return dict(cls._LABELS)

    @classmethod
    def get_num_labels(cls) -> int:
        """How many labels there are."""
        return len(cls._LABELS)

    @classmethod
    def map_label(cls, label: str) -> int:
        """The number of a label.

        Raises:
            ValueError: There is no such label.
        """
        name = label.strip().lower()
        if name not in cls._LABELS:
            raise ValueError(f"expected one of {sorted(cls._LABELS)}, found {label!r}")
        return cls._LABELS[name]

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """The examples of the three files that end alike, or so many of them.

        Raises:
            ValueError: There is no such label, or a file ends before the others.
        """
        folder = Path(self.dataset_folder)
        rows = islice(
            self._rows([folder / f"{part}.{filename}" for part in ("s1", "s2", "labels")]), most(max_examples)
        )
        return [
            InputExample(guid=f"{filename}-{number}", texts=[first, second], label=label)
            for number, (first, second, label) in enumerate(rows)
        ]

    def _rows(self, paths: Sequence[Path]) -> Iterator[tuple[str, str, int]]:
        """Premise, hypothesis and number of the label of each row."""
        with ExitStack() as files:
            parts = [files.enter_context(opened(path)) for path in paths]
            for number, row in enumerate(zip_longest(*parts), start=1):
                if None in row:
                    path = paths[row.index(None)]
                    raise ValueError(f"{path}, row {number}: expected a line, as in the other files, found the end")
                first, second, label = (line.rstrip("\r\n") for line in row)
                try:
                    known = self.map_label(label)
                except ValueError as error:
                    raise ValueError(f"{paths[-1]}, row {number}: {error}") from error
                yield first, second, known


class STSDataReader:
    """Two texts and how similar they are, a row each; scores become numbers from 0 to 1.

    Args:
        dataset_folder: Where the files are.
        s1_col_idx: The column of the first text.
        s2_col_idx: The column of the second.
        score_col_idx: The column of the score.
        delimiter: What stands between columns.
        quoting: How cells are quoted, a constant of ``csv``.
        normalize_scores: Whether scores are brought to 0 … 1.
        min_score: What becomes 0.
        max_score: What becomes 1.
    """

    def __init__(
        self,
        dataset_folder: str,
        s1_col_idx: int = 0,
        s2_col_idx: int = 1,
        score_col_idx: int = 2,
        delimiter: str = "\t",
        quoting: int = csv.QUOTE_NONE,
        normalize_scores: bool = True,
        min_score: float = 0,
        max_score: float = 5,
    ) -> None:
        self.dataset_folder = dataset_folder
        self.s1_col_idx = s1_col_idx
        self.s2_col_idx = s2_col_idx
        self.score_col_idx = score_col_idx
        self.delimiter = delimiter
        self.quoting = quoting
        self.normalize_scores = normalize_scores
        self.min_score = min_score
        self.max_score = max_score

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """The examples of a file, or so many of them."""
        columns = (self.s1_col_idx, self.s2_col_idx, self.score_col_idx)
        path = Path(self.dataset_folder) / filename
        rows = islice(cells_of(path, columns, delimiter=self.delimiter, quoting=self.quoting), most(max_examples))
        return [
            InputExample(guid=f"{filename}{number}", texts=[first, second], label=self._label(score, path, number))
            for number, (first, second, score) in enumerate(rows)
        ]

    def _label(self, score: str, path: Path, number: int) -> float:
        try:
            label = float(score)
        except ValueError as error:
            raise ValueError(f"{path}, row {number + 1}: expected a score, found {score!r:.40}") from error
        return (label - self.min_score) / (self.max_score - self.min_score) if self.normalize_scores else label


class STSBenchmarkDataReader(STSDataReader):
    """The same for the files of the STS benchmark, which have other columns.

    Args:
        dataset_folder: Where the files are.
        s1_col_idx: The column of the first text.
        s2_col_idx: The column of the second.
        score_col_idx: The column of the score.
        delimiter: What stands between columns.
        quoting: How cells are quoted, a constant of ``csv``.
        normalize_scores: Whether scores are brought to 0 … 1.
        min_score: What becomes 0.
        max_score: What becomes 1.
    """

    def __init__(
        self,
        dataset_folder: str,
        s1_col_idx: int = 5,
        s2_col_idx: int = 6,
        score_col_idx: int = 4,
        delimiter: str = "\t",
        quoting: int = csv.QUOTE_NONE,
        normalize_scores: bool = True,
        min_score: float = 0,
        max_score: float = 5,
    ) -> None:
        super().__init__(
            dataset_folder,
            s1_col_idx,
            s2_col_idx,
            score_col_idx,
            delimiter,
            quoting,
            normalize_scores,
            min_score,
            max_score,
        )


class TripletReader:
    """Three texts a row: an anchor, one that belongs to it, and one that does not.

    Args:
        dataset_folder: Where the files are.
        s1_col_idx: The column of the anchor.
        s2_col_idx: The column of the positive.
        s3_col_idx: The column of the negative.
        has_header: Whether the first row is none.
        delimiter: What stands between columns.
        quoting: How cells are quoted, a constant of ``csv``.
    """

    def __init__(
        self,
        dataset_folder: str,
        s1_col_idx: int = 0,
        s2_col_idx: int = 1,
        s3_col_idx: int = 2,
        has_header: bool = False,
        delimiter: str = "\t",
        quoting: int = csv.QUOTE_NONE,
    ) -> None:
        self.dataset_folder = dataset_folder
        self.s1_col_idx = s1_col_idx
        self.s2_col_idx = s2_col_idx
        self.s3_col_idx = s3_col_idx
        self.has_header = has_header
        self.delimiter = delimiter
        self.quoting = quoting

    def get_examples(self, filename: str, max_examples: int = 0) -> list[InputExample]:
        """The examples of a file, or so many of them."""
        rows = cells_of(
            Path(self.dataset_folder) / filename,
            (self.s1_col_idx, self.s2_col_idx, self.s3_col_idx),
            delimiter=self.delimiter,
            quoting=self.quoting,
            skipped=int(self.has_header),
        )
        return [InputExample(texts=texts) for texts in islice(rows, most(max_examples))]


class PairedFilesReader:
    """Files of which line i belongs to line i of the others, such as a text in several languages.

    Args:
        filepaths: The files.
    """

    def __init__(self, filepaths: Sequence[str]) -> None:
        self.filepaths = filepaths

    def get_examples(self, max_examples: int = 0) -> list[InputExample]:
        """The examples, or so many of them; they end with the shortest file."""
        return list(islice(self._examples(), most(max_examples)))

    def _examples(self) -> Iterator[InputExample]:
        with ExitStack() as files:
            parts = [files.enter_context(opened(Path(path))) for path in self.filepaths]
            for number, lines in enumerate(zip(*parts, strict=False)):
                yield InputExample(guid=str(number), texts=[line.rstrip("\r\n") for line in lines], label=1)
