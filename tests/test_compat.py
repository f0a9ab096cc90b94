"""``import sentence_transformers`` means this package: every module, one class, no way past it."""

from __future__ import annotations

import abc
import copy
import importlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from packaging.version import Version

import sentence_embedder
from sentence_embedder import SentenceTransformer, compat, losses
from sentence_embedder.compat import absent_classes, module_paths
from sentence_embedder.compat.absent_classes import AbsentClassError
from tests.crowd import in_threads
from tests.reference.environment import ROOT, VERSIONS, python_of
from tests.reference.golden import GOLDEN

SURFACES: dict[str, Any] = {
    version: json.loads((GOLDEN / f"surface-{version}.json").read_text(encoding="utf-8")) for version in VERSIONS
}
MODULES = sorted({module for surface in SURFACES.values() for module in surface["modules"]})
KNOWN = [path for path in MODULES if module_paths.is_known(path)]
PARTS = ("datasets", "evaluation", "losses", "models", "quantization", "readers", "util")
FAMILIES = {"cross_encoder", "sparse_encoder", "multi_vector_encoder"}
ABSENT = [name for name, value in vars(absent_classes).items() if hasattr(value, "instead") and name[0] != "_"]


@pytest.fixture(autouse=True)
def cleaned_up() -> Iterator[None]:
    """No test leaves anything installed."""
    yield
    compat.uninstall()


@pytest.fixture
def theirs() -> Any:
    """The package, under their name."""
    compat.install()
    return importlib.import_module("sentence_transformers")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A folder with a package of that name, which is not ours."""
    package = tmp_path / "site" / "sentence_transformers"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "9.9"\nclass SentenceTransformer: ...\n')
    (package / "backend.py").write_text("")
    return package.parent


def _run(*command: str | Path, path: Path | None = None, code: int = 0) -> str:
    """What a fresh Python prints, on one of its two streams."""
    paths = [str(part) for part in (path, ROOT) if part]
    done = subprocess.run(
        [sys.executable, "-W", "error", *map(str, command)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout or done.stderr


class TestModules:
    """Every module that there ever was."""

    @pytest.mark.parametrize("path", MODULES)
    def test_each_is_there_or_says_why_not(self, path: str, theirs: Any) -> None:
        """A module of 2.7 or 6.2 can be imported and has names, or is missing for a reason that the error gives."""
        name = f"{theirs.__name__}.{path}"
        if module_paths.is_known(path):
            module = importlib.import_module(name)
            assert module is sys.modules[name]
            assert all(getattr(module, each) is not None for each in module.__all__)
        else:
            reason = module_paths.why_missing(path)
            assert reason is not None
            with pytest.raises(ModuleNotFoundError, match=reason) as caught:
                importlib.import_module(name)
            assert caught.value.name is not None
            assert f"{name}.".startswith(f"{caught.value.name}.")

    @pytest.mark.parametrize("path", [path for path in KNOWN if path.rpartition(".")[2][0].isupper()])
    def test_a_module_with_the_name_of_a_class_has_it(self, path: str, theirs: Any) -> None:
        """Up to 5.3 each class had a module of its name: it has the class, and does not take its place."""
        folder, _, name = f"{theirs.__name__}.{path}".rpartition(".")
        before = getattr(importlib.import_module(folder), name)

        module = importlib.import_module(f"{folder}.{name}")

        assert getattr(module, name) is getattr(importlib.import_module(folder), name) is before
        assert isinstance(before, type)

    @pytest.mark.parametrize("path", sorted(module_paths.HOMES))
    def test_no_table_names_what_is_not_there(self, path: str, theirs: Any) -> None:
        """Each module has names, and these are of this package."""
        module = importlib.import_module(f"{theirs.__name__}.{path}")

        assert module.__all__
        named = [getattr(module, name) for name in module.__all__]
        homes = {each.__module__ for each in named if hasattr(each, "__module__")}  # a set of words has none
        assert homes
        assert all(home.startswith("sentence_embedder.") for home in homes)

    def test_every_module_of_the_tables_once_was(self) -> None:
        """The tables know no module that was in neither version."""
        packages = {path for path in MODULES if path in FAMILIES}
        known = (module_paths.HOMES.keys() | module_paths.PICKED.keys() | module_paths.MISSING.keys()) - packages

        assert known - set(MODULES) == {"losses.EmbedDistillLoss", "losses.GlobalOrthogonalRegularizationLoss"}

    @pytest.mark.parametrize("part", PARTS)
    def test_the_same_objects_under_both_names(self, part: str, theirs: Any) -> None:
        """What both have is one object, on whichever way it is reached."""
        ours = importlib.import_module(f"sentence_embedder.{part}")

        module = importlib.import_module(f"sentence_transformers.{part}")

        assert getattr(theirs, part) is module
        assert module.__all__
        assert all(getattr(module, name) is getattr(ours, name) for name in module.__all__)

    def test_modules_come_with_the_package(self) -> None:
        """``sentence_transformers.util`` and the like need no import of their own."""
        program = "import sentence_embedder as s; s.compat.install(); import sentence_transformers as t; "

        assert _run("-c", f"{program} print(t.util.cos_sim([1.0], [1.0]).item())") == "1.0\n"

    def test_installing_imports_nothing_heavy(self) -> None:
        """Neither ``install`` nor the import of the package takes torch."""
        program = "import sentence_embedder.compat as c, sys; c.install(); import sentence_transformers; "

        assert _run("-c", f"{program} print('torch' in sys.modules)") == "False\n"

    def test_star_imports(self, theirs: Any) -> None:
        """``import *`` takes all that is exported, and no name that is only ours."""
        namespace: dict[str, Any] = {}

        exec("from sentence_transformers import *", namespace)  # noqa: S102

        assert namespace["SentenceTransformer"] is SentenceTransformer
        assert set(theirs.__all__) <= set(dir(theirs))
        assert not {"EncodePool", "PoolError", "AbsentClassError"} & namespace.keys()


class TestObjects:
    """One class, under two names."""

    def test_one_class(self, theirs: Any, model: SentenceTransformer) -> None:
        """A model is an instance under both names, on every path."""
        old: Any = importlib.import_module("sentence_transformers.SentenceTransformer")
        new: Any = importlib.import_module("sentence_transformers.sentence_transformer.model")

        for found in (theirs, old, new):
            assert found.SentenceTransformer is SentenceTransformer
            assert isinstance(model, found.SentenceTransformer)
        assert isinstance(model[1], importlib.import_module("sentence_transformers.models.Pooling").Pooling)

    def test_copies(self, theirs: Any, tiny_folders: dict[str, Path]) -> None:
        """A model is copied and pickled as ever; its pickle can be read where nothing is installed."""
        loaded = theirs.SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        pickled = pickle.dumps(loaded)
        compat.uninstall()

        for made in (copy.deepcopy(loaded), pickle.loads(pickled)):  # noqa: S301
            assert type(made) is SentenceTransformer
            assert (made.encode("two vectors") == loaded.encode("two vectors")).all()

    def test_what_others_read_by_the_version(self, theirs: Any) -> None:
        """The version is that of the calls: from 5.0 on ``encode_query``, before 6.0 no MultiVectorEncoder."""
        level = Version(theirs.__version__)

        assert Version("5.4") <= level < Version("6.0")
        assert theirs.__version__ == compat.API_LEVEL != sentence_embedder.__version__

    @pytest.mark.parametrize("name", ABSENT)
    def test_absent_classes(self, name: str) -> None:
        """A class that is not part of this package has no instances, can have subclasses, says what there is."""
        absent = getattr(absent_classes, name)
        derived = type("Derived", (absent,), {})

        assert not isinstance(object(), absent)
        assert issubclass(derived, absent)
        for made in (absent, derived):
            with pytest.raises(
                AbsentClassError, match=f"{name} is not part of sentence_embedder: {absent.instead}"
            ):
                made("name", device="cpu")

    def test_a_parent_beside_others(self, theirs: Any) -> None:
        """A class that can be derived from can be so with others, which have a class of their own."""

        class Reranker(theirs.CrossEncoder, abc.ABC):  # type: ignore[misc]
            """As somebody may have written it."""

        with pytest.raises(AbsentClassError, match="CrossEncoder is not part of"):
            Reranker()

    def test_the_package_has_no_more_than_it_had(self, theirs: Any) -> None:
        """No name is in the package itself that was in none of its versions."""
        once = {name for surface in SURFACES.values() for name in surface["names"][""]}

        assert set(theirs.__all__) - set(sentence_embedder.__all__) <= once
        assert not hasattr(theirs, "NoDuplicatesBatchSampler")
        assert importlib.import_module(f"{theirs.__name__}.base").NoDuplicatesBatchSampler

    def test_absent_classes_are_those_that_others_import(self, theirs: Any) -> None:
        """Each class that 6.2 exports is there or absent; functions are not made up."""
        exported = SURFACES["6.2"]["names"][""]

        missing = {name for name in exported if not hasattr(theirs, name)}

        assert missing == {
            *("export_dynamic_quantized_onnx_model", "export_optimized_onnx_model", "mine_hard_negatives"),
            *("export_static_quantized_openvino_model", "resolve_ids"),
        }


class TestWhatIsNotThere:
    """Nothing falls through to what is installed."""

    @pytest.mark.parametrize("name", ["utils", "losses.MSELos", "SentenceTransformer.util", "cross_encoder.losses"])
    def test_modules(self, name: str, theirs: Any) -> None:
        """A module that is not there is the usual error, with its name."""
        full = f"{theirs.__name__}.{name}"

        with pytest.raises(ModuleNotFoundError, match=f"No module named '{full}'") as caught:
            importlib.import_module(full)

        assert caught.value.name == full

    def test_who_only_asks_is_told_that_there_is_none(self, theirs: Any) -> None:
        """Asking for a module is no import: it has no error, neither here nor for a module that is there."""
        assert importlib.util.find_spec(f"{theirs.__name__}.backend") is None
        assert importlib.util.find_spec(f"{theirs.__name__}.util") is not None
        with pytest.raises(ModuleNotFoundError, match=r"No module named 'sentence_transformers.backend' .*PyTorch"):
            importlib.util.find_spec(f"{theirs.__name__}.backend.load")  # which imports what it would be in

    def test_members_of_absent_classes(self, theirs: Any) -> None:
        """They have a reason, too, and are absent for who asks."""
        arguments = importlib.import_module(f"{theirs.__name__}.training_args")
        sampler = importlib.import_module(f"{theirs.__name__}.sampler")

        with pytest.raises(
            AttributeError, match=r"'NO_DUPLICATES': BatchSamplers is not part of .*: the loader decides"
        ):
            _ = arguments.BatchSamplers.NO_DUPLICATES
        assert not hasattr(sampler.NoDuplicatesBatchSampler, "set_epoch")

    def test_stop_words(self, theirs: Any) -> None:
        """What is no class or function is there, too."""
        tokenizer = importlib.import_module(f"{theirs.__name__}.models.tokenizer")

        assert "the" in tokenizer.ENGLISH_STOP_WORDS

    def test_attributes(self, theirs: Any) -> None:
        """So is an attribute; a name with a reason for its absence has it in the message."""
        with pytest.raises(AttributeError, match=r"no attribute 'SentenceTransfomer'$") as caught:
            _ = theirs.SentenceTransfomer
        with pytest.raises(AttributeError, match="no attribute 'backend': PyTorch alone"):
            _ = theirs.backend

        assert caught.value.name == "SentenceTransfomer"

    def test_imported_names(self, theirs: Any) -> None:
        """``from … import`` of it is an ImportError."""
        with pytest.raises(ImportError, match="cannot import name 'cosine'") as caught:
            exec("from sentence_transformers.util import cosine")  # noqa: S102

        assert caught.value.name == f"{theirs.__name__}.util"


class TestInstalling:
    """When, how often, and back again."""

    def test_the_spec_is_found(self) -> None:
        """``find_spec`` finds it, before it is imported and after."""
        compat.install()
        before = importlib.util.find_spec("sentence_transformers")
        module = importlib.import_module("sentence_transformers")

        after = importlib.util.find_spec("sentence_transformers")

        assert before is not None
        assert after is module.__spec__

    def test_twice_is_once(self) -> None:
        """A second call changes nothing, but that the finder is the first again."""
        compat.install()
        sys.meta_path.insert(0, PathFinder)
        compat.install()

        names = [type(finder).__name__ for finder in sys.meta_path]

        sys.meta_path.remove(PathFinder)
        assert names.count("AliasFinder") == 1
        assert names[0] == "AliasFinder"

    def test_uninstalling_leaves_nothing(self) -> None:
        """Afterwards everything is as it was."""
        before = list(sys.meta_path), {name for name in sys.modules if name.startswith("sentence_transformers")}
        compat.install()
        importlib.import_module("sentence_transformers.sentence_transformer.losses.mse")
        compat.uninstall()
        compat.uninstall()

        after = list(sys.meta_path), {name for name in sys.modules if name.startswith("sentence_transformers")}

        assert after == before
        assert importlib.util.find_spec("sentence_transformers") is None

    def test_many_threads(self) -> None:
        """Threads may install and import at the same time."""
        found: list[Any] = []

        def use(_: int) -> None:
            compat.install()
            found.append(importlib.import_module("sentence_transformers.losses.MSELoss").MSELoss)

        in_threads(8, use)

        assert found == [losses.MSELoss] * 8
        assert [type(finder).__name__ for finder in sys.meta_path].count("AliasFinder") == 1

    def test_it_stands_before_what_is_installed(self, real: Path) -> None:
        """What is installed is not found, not even a module that is only there; after ``uninstall`` it is."""
        program = """
            import sentence_embedder.compat as compat
            compat.install()
            import sentence_transformers
            print(sentence_transformers.SentenceTransformer.__module__)
            try:
                import sentence_transformers.backend
            except ModuleNotFoundError as error:
                print(error.name)
            compat.uninstall()
            import sentence_transformers.backend
            print(sentence_transformers.__version__, sentence_transformers.SentenceTransformer.__module__)
        """

        printed = _run("-c", dedent(program), path=real)

        assert printed.splitlines() == [
            "sentence_embedder.sentence_transformers",
            "sentence_transformers.backend",
            "9.9 sentence_transformers",
        ]

    def test_it_does_not_come_too_late(self, real: Path) -> None:
        """Where the real one is imported already, ``install`` is an error that says so, and changes nothing."""
        program = (
            "import sentence_transformers, sentence_embedder.compat as c, sys\nn = len(sys.meta_path)\n"
            "try: c.install()\nexcept RuntimeError as e: print(e, len(sys.meta_path) - n)"
        )

        printed = _run("-c", program, path=real)

        assert "found version 9.9 imported" in printed
        assert printed.endswith("above the first import that needs it 0\n")


SCRIPT = """
import multiprocessing
import sys
from dataclasses import dataclass

from sentence_transformers import SentenceTransformer

@dataclass
class Question:
    text: str

def answer(question):
    import sentence_transformers.losses
    return question.text, SentenceTransformer.__module__, sentence_transformers.losses.MSELoss.__name__, __name__

if __name__ == "__main__":
    print(__file__, sys.path[0], sys.argv)
    for method in ("spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            print(*pool.apply(answer, [Question(method)]))
    sys.exit(3)
"""


def _answers() -> list[str]:
    home = "sentence_embedder.sentence_transformers"
    return [f"{method} {home} MSELoss __mp_main__" for method in ("spawn", "forkserver")]


class TestPrograms:
    """Scripts and modules that stay as they are, and the processes that they start."""

    def test_a_script_that_installs(self, tmp_path: Path, real: Path) -> None:
        """Processes that a script starts import it again, and have what its top level installs."""
        script = tmp_path / "script.py"
        script.write_text(f"import sentence_embedder.compat\nsentence_embedder.compat.install()\n{SCRIPT}")

        assert _run(script, path=real, code=3).splitlines()[1:] == _answers()

    def test_a_script_as_it_is(self, tmp_path: Path, real: Path) -> None:
        """A script runs as Python would run it, with its arguments and exit status, and so do its processes."""
        script = tmp_path / "script.py"
        script.write_text(SCRIPT)

        printed = _run("-m", "sentence_embedder.compat", script, "-m", "2", path=real, code=3).splitlines()

        assert printed == [f"{script} {tmp_path} {[str(script), '-m', '2']}", *_answers()]

    def test_a_module_as_it_is(self, real: Path) -> None:
        """So does a module, with imports from its package."""
        package = real / "package"
        package.mkdir()
        (package / "__init__.py").write_text("")
        (package / "words.py").write_text("WORD = 'found'\n")
        (package / "program.py").write_text(f"from .words import WORD\n{SCRIPT}")

        printed = _run("-m", "sentence_embedder.compat", "-m", "package.program", "-v", path=real, code=3)

        program = package / "program.py"
        first, *answers = printed.splitlines()
        assert first.startswith(f"{program} ")
        assert first.endswith(f" {[str(program), '-v']}")
        assert answers == _answers()

    def test_a_package_as_it_is(self, real: Path) -> None:
        """Of a package it is the main module."""
        (real / "package").mkdir()
        (real / "package" / "__init__.py").write_text("")
        (real / "package" / "__main__.py").write_text(
            "from sentence_transformers import SentenceTransformer\nfrom . import __name__ as n\n"
            "print(n, SentenceTransformer.__module__)"
        )

        printed = _run("-m", "sentence_embedder.compat", "-m", "package", path=real)

        assert printed == "package sentence_embedder.sentence_transformers\n"

    def test_a_script_is_in_no_package(self, tmp_path: Path) -> None:
        """A relative import fails in a script as it does in Python."""
        script = tmp_path / "script.py"
        script.write_text("from . import install\n")

        printed = _run("-m", "sentence_embedder.compat", script, code=1)

        assert "attempted relative import with no known parent package" in printed

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (["-h"], 0, "usage: python -m sentence_embedder.compat (script.py | -m module)"),
            ([], 2, "usage: "),
            (["-x"], 2, "usage: "),
            (["no_such_script.py"], 1, "No such file or directory: "),
            (["-m", "no_such_module"], 1, "No module named no_such_module"),
        ],
    )
    def test_what_cannot_be_run(self, arguments: list[str], code: int, message: str) -> None:
        """Without a program there is a line that says what is expected, and no traceback."""
        printed = _run("-m", "sentence_embedder.compat", *arguments, code=code)

        assert message in printed
        assert "Traceback" not in printed


@pytest.mark.reference
@pytest.mark.parametrize("version", VERSIONS)
def test_beside_the_installed_one(version: str) -> None:
    """Where the real sentence-transformers is installed, ours stands before it, and it is back afterwards."""
    program = (
        "import sentence_embedder.compat as c; c.install(); import sentence_transformers as t; "
        "import sentence_transformers.losses; print(t.__version__, t.losses.MSELoss.__module__); "
        "c.uninstall(); import sentence_transformers.losses as l, sentence_transformers as t; "
        "print(t.__version__, l.MSELoss.__module__)"
    )

    done = subprocess.run(
        [python_of(version), "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    first, second = done.stdout.splitlines()
    assert first == "5.7.0 sentence_embedder.losses.distillation_losses"
    assert second.startswith(f"{version}.0 sentence_transformers.")
