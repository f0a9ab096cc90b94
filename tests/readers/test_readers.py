"""Readers: rows of files become training examples."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest

from sentence_embedder import readers


def _write(path: Path, *lines: str) -> None:
    """A file with these lines, packed if its name says so."""
    text = "".join(f"{line}\n" for line in lines)
    if path.suffix == ".gz":
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write(text)
    else:
        path.write_text(text, encoding="utf-8")


def _found(examples: list[readers.InputExample]) -> list[tuple[object, object]]:
    return [(example.texts, example.label) for example in examples]


def test_texts_with_labels(tmp_path: Path) -> None:
    """Labels become numbers in the order in which they come first, the same ones in every file."""
    _write(tmp_path / "train.tsv", "spam\tbuy now", "ham\thello", "spam\tcheap")
    _write(tmp_path / "dev.tsv", "ham\tsee you")
    reader = readers.LabelSentenceReader(str(tmp_path))

    assert _found(reader.get_examples("train.tsv")) == [(["buy now"], 0), (["hello"], 1), (["cheap"], 0)]
    assert _found(reader.get_examples("dev.tsv")) == [(["see you"], 1)]
    assert len(reader.get_examples("train.tsv", max_examples=2)) == 2


def test_labels_between_other_separators(tmp_path: Path) -> None:
    """A line is stripped and then split, by a separator of any length, or by spaces; it may be very long, and what
    csv takes for special is text. A line without a text is named.
    """
    _write(tmp_path / "plain.tsv", "spam\tbuy now  ", f"ham\t{'x' * 200_000}", 'ham\ta\0b "c')
    _write(tmp_path / "bars.txt", "spam ||| buy | now", "ham ||| hello")
    _write(tmp_path / "spaces.txt.gz", "  spam   buy", "hello")

    def rows(name: str, separator: str | None) -> list[tuple[object, object]]:
        return _found(readers.LabelSentenceReader(str(tmp_path), separator=separator).get_examples(name))

    assert rows("plain.tsv", "\t") == [(["buy now"], 0), (["x" * 200_000], 1), (['a\0b "c'], 1)]
    assert rows("bars.txt", " ||| ") == [(["buy | now"], 0), (["hello"], 1)]
    with pytest.raises(ValueError, match=r"spaces\.txt\.gz, row 2: expected columns 0 and 1, found 1"):
        rows("spaces.txt.gz", None)


def test_packed_files_are_known_by_their_first_bytes(tmp_path: Path) -> None:
    """What gzip has packed is unpacked, whatever the names of the files end in."""
    for name, text in (("s1", "A man sleeps."), ("s2", "He is awake."), ("labels", "neutral")):
        (tmp_path / f"{name}.dev").write_bytes(gzip.compress(text.encode()))

    found = readers.NLIDataReader(str(tmp_path)).get_examples("dev")

    assert _found(found) == [(["A man sleeps.", "He is awake."], 2)]


def test_inferences(tmp_path: Path) -> None:
    """Three packed files side by side are premises, hypotheses and labels; an unknown label, and a file that is
    shorter, are errors.
    """
    _write(tmp_path / "s1.dev.gz", "A man sleeps.", "A dog runs.")
    _write(tmp_path / "s2.dev.gz", "He is awake.", "An animal moves.")
    _write(tmp_path / "labels.dev.gz", "contradiction", "entailment")
    reader = readers.NLIDataReader(str(tmp_path))

    assert _found(reader.get_examples("dev.gz")) == [
        (["A man sleeps.", "He is awake."], 0),
        (["A dog runs.", "An animal moves."], 1),
    ]
    assert reader.get_num_labels() == len(reader.get_labels()) == 3
    _write(tmp_path / "labels.dev.gz", "maybe", "entailment")
    with pytest.raises(ValueError, match=r"labels\.dev\.gz, row 1: expected one of .*, found 'maybe"):
        reader.get_examples("dev.gz")
    _write(tmp_path / "labels.dev.gz", "neutral")
    with pytest.raises(ValueError, match=r"labels\.dev\.gz, row 2: expected a line, .*, found the end"):
        reader.get_examples("dev.gz")


@pytest.mark.parametrize("name", ["sts.tsv", "sts.tsv.gz"])
def test_similarities(tmp_path: Path, name: str) -> None:
    """Scores are brought to 0 … 1, unless they are to stay."""
    _write(tmp_path / name, 'a "quoted" text\tb\t5.0', "c\td\t2.5")

    assert _found(readers.STSDataReader(str(tmp_path)).get_examples(name)) == [
        (['a "quoted" text', "b"], 1.0),
        (["c", "d"], 0.5),
    ]
    _write(tmp_path / "bad.tsv", "a\tb\tmuch")
    with pytest.raises(ValueError, match=r"bad\.tsv, row 1: expected a score, found 'much'"):
        readers.STSDataReader(str(tmp_path)).get_examples("bad.tsv")
    raw = readers.STSDataReader(str(tmp_path), normalize_scores=False).get_examples(name, max_examples=1)
    assert _found(raw) == [(['a "quoted" text', "b"], 5.0)]


def test_the_benchmark_of_similarities(tmp_path: Path) -> None:
    """The files of the STS benchmark have their columns elsewhere; cells can be quoted."""
    _write(tmp_path / "sts.csv", 'main,news,2015,1,4,"one, two",three')
    reader = readers.STSBenchmarkDataReader(str(tmp_path), delimiter=",", quoting=csv.QUOTE_MINIMAL)

    assert _found(reader.get_examples("sts.csv")) == [(["one, two", "three"], 0.8)]


def test_triplets(tmp_path: Path) -> None:
    """Three cells are an anchor, a positive and a negative; a header is none; a row that is too short is named."""
    _write(tmp_path / "triplets.tsv", "anchor\tpositive\tnegative", "a\tb\tc", "d\te")
    reader = readers.TripletReader(str(tmp_path), has_header=True)

    assert _found(reader.get_examples("triplets.tsv", max_examples=1)) == [(["a", "b", "c"], 0)]
    with pytest.raises(ValueError, match=r"triplets\.tsv, row 3: expected 3 cells, found 2"):
        reader.get_examples("triplets.tsv")


def test_files_side_by_side(tmp_path: Path) -> None:
    """Line i of one file belongs to line i of the others, as far as all of them go."""
    _write(tmp_path / "en.txt", "one", "two", "three")
    _write(tmp_path / "de.txt.gz", "eins", "zwei")
    reader = readers.PairedFilesReader([str(tmp_path / "en.txt"), str(tmp_path / "de.txt.gz")])

    assert _found(reader.get_examples()) == [(["one", "eins"], 1), (["two", "zwei"], 1)]
    assert len(reader.get_examples(max_examples=1)) == 1
