"""The model card."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from sentence_embedder.model_card import CardFacts, render


def _card(**facts: Any) -> str:
    known = {"name": "me/mine", "architecture": "SentenceTransformer()", "dimension": 3, "max_seq_length": 8}
    return render(CardFacts(**{"similarity": "cosine", **known, **facts}))


@pytest.mark.parametrize("datasets", [(), ("snli",), ("a: b", "- c", '"quoted" # not a comment', "d\ne")], ids=str)
def test_the_front_matter_is_yaml(datasets: tuple[str, ...]) -> None:
    """The YAML says what the Hub needs, whatever the names of data sets."""
    _, front, body = _card(datasets=datasets).split("---\n", 2)

    matter = yaml.safe_load(front)
    assert matter["pipeline_tag"] == "sentence-similarity"
    assert matter["library_name"] == "sentence-transformers"
    assert matter["tags"] == ["sentence-transformers", "feature-extraction", "sentence-similarity"]
    assert tuple(matter.get("datasets", ())) == datasets
    assert body.lstrip().startswith("# me/mine")


def test_the_usage_compiles() -> None:
    """The code of the card is Python."""
    code = _card().split("```python\n")[1].split("```")[0]

    assert 'SentenceTransformer("me/mine")' in code
    compile(code, "card", "exec")


def test_what_is_known() -> None:
    """Facts stand in the card, prompts too, and what is not known is said not to be."""
    card = _card(prompts={"query": "Frage: "}, architecture="A(\n  (0): B\n)")
    unknown = _card(dimension=None, max_seq_length=None)

    assert "- **Dimensions:** 3" in card
    assert '| `query` | `"Frage: "` |' in card
    assert "A(\n  (0): B\n)" in card
    assert "an unknown number of" in unknown
    assert "any number of tokens" in unknown
    assert "## Prompts" not in unknown
