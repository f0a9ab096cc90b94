"""The documentation: what it shows is what happens."""

from __future__ import annotations

import doctest
import pkgutil
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import sentence_embedder
from sentence_embedder import SentenceTransformer, hub
from tests.hub.server import TOKEN, HubServer
from tests.minilm import minilm_folder

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MODEL_NAME = "all-MiniLM-L6-v2"

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> list[str]:
    """The Python blocks of a page, each moved down to its own line of it, for tracebacks."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in _BLOCK.finditer(text)]


@pytest.fixture
def model_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one name that the pages load means the real model's folder; every other is looked for as ever."""
    locate = hub.locate

    def of_the_pages(source: hub.ModelSource, *arguments: Any) -> Path:
        name = str(minilm_folder()) if source.name == MODEL_NAME else source.name
        return locate(replace(source, name=name), *arguments)

    monkeypatch.setattr(hub, "locate", of_the_pages)


@pytest.fixture
def their_hub(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub where the models of the pages can be put: the reader is ``me``, and somebody else has a model."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add_user("them")
    hub.add_repository("them/their-model", {"README.md": b"# Theirs"})


@pytest.mark.usefixtures("model_by_name", "their_hub")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: str(page.name))
def test_every_code_block_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: Sequence[Any]
) -> None:
    """Every Python block of the docs runs, after those above it on its page, without a network."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}

    for block in blocks_of(page):
        exec(compile(block, str(page), "exec"), namespace)  # noqa: S102

    assert not no_network


def test_the_pages_that_teach_have_code() -> None:
    """The README, the front page and the quickstart show code: no change of fence hides it from the test above."""
    with_code = {page.name for page in PAGES if blocks_of(page)}

    assert {"README.md", "index.md", "quickstart.md"} <= with_code


WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "sentence_embedder").rglob("*.py"))
    if re.search(">>> .*(?<!SKIP)$", path.read_text(encoding="utf-8"), re.MULTILINE)
]
"""The modules with examples in their docstrings that need neither Ray nor a Hub nor an event loop."""


@pytest.mark.usefixtures("model_by_name")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings(name: str) -> None:
    """Every example in a docstring gives what it says, with models and texts of the usual names at hand."""
    model = SentenceTransformer(MODEL_NAME, device="cpu")
    at_hand = {"model": model, "student": model, "teacher": model, "texts": ["a text", "another"]}

    found = doctest.testmod(pkgutil.resolve_name(name), extraglobs=at_hand)

    assert found.attempted
    assert not found.failed


REFERENCE = [
    line.removeprefix("::: ").strip()
    for page in sorted((ROOT / "docs" / "api").glob("*.md"))
    for line in page.read_text(encoding="utf-8").splitlines()
    if line.startswith("::: ")
]
"""What the reference shows: dotted names of objects and of modules."""


@pytest.mark.parametrize("name", REFERENCE)
def test_what_the_reference_shows_is_there(name: str) -> None:
    """Every name in the reference leads to something that can be imported."""
    assert pkgutil.resolve_name(name) is not None


def test_the_reference_is_complete() -> None:
    """Every public name of the package is in the reference: by itself, or by the module that lists it."""
    shown = [pkgutil.resolve_name(name) for name in REFERENCE]
    listed = [getattr(page, name) for page in shown for name in getattr(page, "__all__", ())]
    public = [getattr(sentence_embedder, name) for name in sentence_embedder.__all__ if name != "__version__"]

    missing = [found for found in public if not any(found is known for known in (*shown, *listed))]
    assert missing == []


def test_every_page_has_its_place() -> None:
    """Every page of the docs is in the navigation, and every entry of that is a page."""
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    def pages(entry: Any) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        inner = entry if isinstance(entry, list) else list(entry.values())
        return [page for part in inner for page in pages(part)]

    docs = ROOT / "docs"
    assert sorted(pages(navigation)) == sorted(path.relative_to(docs).as_posix() for path in docs.rglob("*.md"))
