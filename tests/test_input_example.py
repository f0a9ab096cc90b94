"""InputExample."""

from __future__ import annotations

from sentence_embedder import InputExample


def test_what_it_holds() -> None:
    """It holds texts and a label, and shows both."""
    example = InputExample(texts=["one", "two"], label=0.5)

    assert (example.guid, example.texts, example.label) == ("", ["one", "two"], 0.5)
    assert str(example) == "<InputExample> label: 0.5, texts: one; two"
    assert InputExample().label == 0
