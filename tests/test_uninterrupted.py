"""Ctrl-C ends the wait for what must not be broken off, and leaves no half of it."""

from __future__ import annotations

import importlib
import signal
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sentence_embedder.uninterrupted import uninterrupted
from tests.programs import run_program

PACKAGE = {
    "__init__.py": "from slow_package import part\nfrom slow_package.other import value",
    "part.py": """
        import time
        from pathlib import Path
        with (Path(__file__).parent / "count").open("a") as file:
            file.write("x")
        time.sleep(0.5)
    """,
    "other.py": "import slow_package.part\nvalue = slow_package.part.__name__",
    "broken.py": "raise ValueError('not today')",
    "circular.py": """
        from importlib import import_module
        from sentence_embedder.uninterrupted import uninterrupted
        itself = uninterrupted(lambda: import_module("slow_package.circular"))
    """,
}


def imported(name: str) -> Any:
    """A module, imported whole."""
    return uninterrupted(lambda: importlib.import_module(name))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that takes long, whose parts need each other."""
    folder = tmp_path / "slow_package"
    folder.mkdir()
    for name, text in PACKAGE.items():
        (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "slow_package"]:
        del sys.modules[name]


def test_what_an_object_does_when_the_interpreter_is_taken_down() -> None:
    """There no other thread runs: what is done in one as a rule, is done at once."""
    printed = run_program("""
        import sys
        from sentence_embedder.uninterrupted import uninterrupted
        class Late:
            def __del__(self, call=uninterrupted, write=sys.stdout.write, flush=sys.stdout.flush):
                write(call(lambda: "done"))
                flush()
        late = Late()
    """)

    assert printed == "done"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers that interrupt")
def test_an_import_that_is_interrupted(package: Path) -> None:
    """The caller is free at once; the module is there for who asks next, imported once."""

    def interrupt(_signal: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            imported("slow_package.other")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert imported("slow_package.other").value == "slow_package.part"
    assert (package / "count").read_text(encoding="utf-8") == "x"


@pytest.mark.usefixtures("package")
def test_errors_are_those_of_the_import() -> None:
    """What a module raises, and that there is none, reach who asked for it."""
    with pytest.raises(ValueError, match="not today"):
        imported("slow_package.broken")
    with pytest.raises(ModuleNotFoundError, match="nothing"):
        imported("slow_package.nothing")


@pytest.mark.usefixtures("package")
def test_a_module_that_asks_for_itself() -> None:
    """What is being imported already is not waited for in another thread, for ever."""
    assert imported("slow_package.circular").itself.__name__ == "slow_package.circular"
