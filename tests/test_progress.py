"""Progress bars."""

from __future__ import annotations

import pytest

from sentence_embedder.progress import progress_bar


@pytest.mark.parametrize("shown", [True, False])
def test_units_are_counted(shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar counts units and names them; one that is not shown prints nothing."""
    with progress_bar(5, unit="sentence", shown=shown, description="Encoding") as progress:
        progress.update(2)
        progress.update(3)

    printed = capsys.readouterr().err
    assert ("Encoding: 100%" in printed) is shown
    assert ("5/5" in printed) is shown
    assert ("sentences/s" in printed) is shown
