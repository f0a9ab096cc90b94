"""Real clients give what they give on sentence-transformers (``make test-clients``)."""

from __future__ import annotations

import pytest

from tests.clients.comparison import difference, run
from tests.clients.programs import PROGRAMS


@pytest.mark.clients
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_same_results(program: str) -> None:
    """A client finds, predicts and embeds the same, though another class than it asked for is at work."""
    theirs, ours = run(program, here=False), run(program, here=True)

    assert theirs.class_name.startswith("sentence_transformers.")
    assert ours.class_name.startswith("sentence_embedder.")
    assert difference(theirs.result, ours.result) < 1e-5


def test_differences() -> None:
    """Numbers may differ a little, anything else may not."""
    assert difference({"a": [1.0, "x"]}, {"a": [1.5, "x"]}) == 0.5
    for other in ({"a": [1.0, "y"]}, {"a": [1.0]}, {"b": [1.0, "x"]}):
        with pytest.raises(ValueError, match="is not"):
            difference({"a": [1.0, "x"]}, other)
