"""Which optional packages are installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sentence_embedder.installed import (
    check_package_availability,
    is_accelerate_available,
    is_datasets_available,
)


def _install(folder: Path, name: str, lines: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{lines}")


@pytest.mark.parametrize(
    ("lines", "is_theirs"),
    [
        ("Home-page: https://github.com/huggingface/datasets\n", True),
        ("Project-URL: Homepage, https://github.com/huggingface/datasets\n", True),
        ("Home-page: https://example.org/datasets\n", False),
        ("", False),
    ],
)
def test_a_package_is_known_by_its_home(
    lines: str, is_theirs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of the right name counts only if its home page is that of its owner."""
    _install(tmp_path, "datasets", lines)
    _install(tmp_path, "accelerate", lines)
    monkeypatch.syspath_prepend(tmp_path)

    assert is_datasets_available() is is_accelerate_available() is is_theirs


def test_what_is_not_installed_is_not_available() -> None:
    """No package, no owner."""
    assert not check_package_availability("no-such-package", "")
