"""The examples run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.training import cut_minilm
from tests.minilm import minilm_folder

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MiniLM with half of its layers, which is trained in less time."""
    return str(cut_minilm(tmp_path_factory.mktemp("cut")))


def run_example(name: str, *arguments: str) -> str:
    """What an example prints, run as a user would, without a network."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_semantic_search() -> None:
    """Each query finds what it is about first."""
    printed = run_example("semantic_search.py", "--model", str(minilm_folder()))

    best = [block.splitlines()[1].split(maxsplit=1)[1] for block in printed.strip().split("\n\n")]
    assert [hit.split(maxsplit=2)[1] for hit in best] == ["recipe", "bicycle", "four", "prices"]


def test_fetch_model() -> None:
    """Without the Hub the model comes from the package."""
    assert Path(run_example("fetch_model.py").strip()) == minilm_folder()


def scores(printed: str) -> list[tuple[float, float]]:
    """The scores before and after a training, as an example prints them."""
    return [(float(one), float(other)) for one, other in re.findall(r"before: ([\d.]+), after: ([\d.]+)", printed)]


def test_training_material() -> None:
    """The small set has pairs for training and others for judging."""
    printed = run_example("training_material.py", "--small", "--model", str(minilm_folder()))

    assert "train: 60 pairs" in printed
    assert "dev: 20 pairs" in printed


def test_training_for_similarity(small_model: str) -> None:
    """A model comes nearer to people's scores."""
    ((before, after),) = scores(run_example("train_similarity.py", "--small", "--model", small_model))

    assert after > before + 0.01


def test_contrastive_training(small_model: str) -> None:
    """A model finds what says the same more often."""
    ((before, after),) = scores(run_example("train_contrastive.py", "--small", "--model", small_model))

    assert after > before + 0.02


@pytest.mark.xdist_group("distillation")  # which takes longest, and so comes early
def test_distillation() -> None:
    """A student comes nearer to its teacher; on STS-B, where that is at hand, much nearer."""
    small = [] if (EXAMPLES.parents[1] / "shared" / "data").exists() else ["--small"]
    ((before, after),) = scores(run_example("train_distillation.py", *small, "--model", str(minilm_folder())))

    assert after > before + (0 if small else 0.1)


def test_matryoshka_training(small_model: str) -> None:
    """Embeddings that are cut mean more than before, the shortest most."""
    found = scores(run_example("train_matryoshka.py", "--small", "--model", small_model))

    assert len(found) == 3
    assert all(after >= before for before, after in found)
    assert found[-1][1] > found[-1][0] + 0.05


def run_notebook(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the cells of a notebook leave, run one after the other in the current folder."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = json.loads((EXAMPLES / name).read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells), "a notebook is kept without its outputs"
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"]).replace('"all-MiniLM-L6-v2"', repr(str(minilm_folder())))
            exec(compile(source, f"{name}, {cell['id']}", "exec"), namespace)  # noqa: S102
    return namespace


def test_the_notebook_to_begin_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its cells run, and the search in it finds what it is about."""
    monkeypatch.chdir(tmp_path)

    run_notebook("quickstart.ipynb", monkeypatch)

    printed = capsys.readouterr().out
    assert "losses on the stock exchange → [('The stock market went down." in printed
    assert "baking → [('Dough needs time to rise." in printed


def test_the_notebook_that_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells run, and leave two pictures; neighbours are of the same topic."""
    monkeypatch.chdir(tmp_path)

    left = run_notebook("compare.ipynb", monkeypatch)

    for name in ("similarities.png", "map.png"):
        picture = (tmp_path / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000
    assert (left["labels"][left["nearest"]] == left["labels"]).mean() > 0.9


@pytest.mark.parametrize(
    "path", sorted([*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.ipynb")]), ids=lambda path: str(path.name)
)
def test_every_example_has_its_test(path: Path) -> None:
    """No example is forgotten here."""
    assert f'("{path.name}"' in Path(__file__).read_text(encoding="utf-8")
