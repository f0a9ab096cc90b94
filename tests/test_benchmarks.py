"""The benchmark: it runs from end to end, and what it says of the figures is right."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from benchmarks import __main__ as command_line
from benchmarks import engines, models, newcomer, products, serving, soak, training
from benchmarks.engines import OURS, Engine, Library, engines_for
from benchmarks.measurement import Agreement, Results, agreement
from benchmarks.models import ModelFolders, RandomModel
from benchmarks.products import Products, flop_per_token
from benchmarks.report import table
from benchmarks.targets import TARGETS, outcomes
from benchmarks.texts import QUERY, generated_sentences, paragraphs, ragged_texts, short_sentences
from benchmarks.worker import Worker
from benchmarks.workloads import WORKLOADS, sizes_for
from sentence_embedder import SentenceTransformer
from tests.minilm import minilm_folder

LIGHT = Library(loader="sentence_embedder", statement="import json")
"""This package, but that importing it costs nothing."""
TWINS = (Engine("one", "the one", LIGHT), Engine("other", "the other", LIGHT))
ABSENT = Engine(
    "absent", "not there", Library("openvino", "import openvino", environment=".venv-that-is-not-there")
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """The tokenizer of the real MiniLM."""
    return ModelFolders(Path("unused"), minilm=minilm_folder()).tokenizer()


def test_the_whole_path(
    tiny_folders: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two engines that are the same agree to the last bit; the table, the JSON and the chart say so."""
    for module in (engines, command_line):
        monkeypatch.setattr(module, "ENGINES", (*TWINS, ABSENT))
    monkeypatch.setattr(products, "_SECONDS", 0.001)
    workloads = ["short", "ragged32", "single", "single-busy", "import"]

    folders = ["--model", str(tiny_folders["bert"]), "--out", str(tmp_path)]
    command_line.main(["--quick", "--threads", "1", *folders, "--workloads", *workloads])

    printed = capsys.readouterr().out
    assert "| the one " in printed
    assert "not run: absent (short, ragged32, single, single-busy, import): " in printed
    content = json.loads((tmp_path / "performance.json").read_text(encoding="utf-8"))
    assert content["baseline"] == "one"
    assert content["is_quick"]
    assert list(content["workloads"]) == workloads
    assert content["versions"]["other"]["torch"] == version("torch")
    figures = {(figure["engine"], figure["workload"]): figure for figure in content["figures"]}
    assert set(figures) == {(twin.key, workload) for twin in TWINS for workload in workloads}
    assert all(cost > 0 for figure in figures.values() for cost in figure["costs"])
    assert figures["one", "short"]["speedup"]["median"] == 1
    assert figures["other", "short"]["agreement"]["difference"] == 0
    assert figures["other", "import"]["agreement"] is None
    assert {row["engine"] for row in content["not_run"]} == {"absent"}
    assert {limit["workload"] for limit in content["limits"]} == {"short"}
    assert (tmp_path / "performance.png").exists() == (find_spec("matplotlib") is not None)


# ── Engines ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_of_engines_are_unique() -> None:
    """Each engine and each of the workloads has a name of its own."""
    keys = [engine.key for engine in engines.ENGINES]

    assert len(set(keys)) == len(keys)


def test_engines_on_a_gpu() -> None:
    """On a GPU everything runs in one environment; a plain loop is the baseline if the reference is not in it."""
    chosen = engines_for("cuda")

    assert {engine.library.interpreter("cuda") for engine in chosen} == {OURS.interpreter("cuda")}
    if find_spec("sentence_transformers") is None:
        assert chosen[0].key == "transformers-fp32"


def test_the_baseline_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever order the engines are asked for in, the reference leads them if it can be had."""
    monkeypatch.setattr(Library, "is_installed", lambda *_: True)

    assert [engine.key for engine in engines_for("cpu", ["ours-fp32", "reference-fp32"])] == [
        "reference-fp32",
        "ours-fp32",
    ]


@pytest.mark.parametrize("name", ["bert", "decoder"])
def test_the_worker_embeds(name: str, tiny_folders: Mapping[str, Path], tmp_path: Path) -> None:
    """The plain loop over a model of transformers gives the rows that this package gives, in the same order."""
    folder = str(tiny_folders[name])
    texts = ["a cat", "hello world, hello kitten, hello paris", "the model runs", QUERY] * 10
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    worker = Worker()
    rows = {}
    for loader in ("sentence_embedder", "transformers"):
        worker.load(loader, folder, "cpu", 1, {})
        assert worker.read("texts", str(tmp_path / "texts.jsonl")) == len(texts)
        assert len(worker.encode("texts", repeats=2)) == 2
        worker.save(str(tmp_path / "rows.npy"))
        rows[loader] = np.load(tmp_path / "rows.npy")

    np.testing.assert_allclose(rows["transformers"], rows["sentence_embedder"], atol=1e-5)
    assert worker.growth("texts") >= 0
    assert worker.versions()["torch"] == version("torch")


# ── Texts and models ──────────────────────────────────────────────────────────────────────────────────────────


def test_texts_are_distinct_and_always_the_same(tokenizer: Tokenizer) -> None:
    """No text comes twice, so that computing equal texts once gains nothing; another call gives the same texts."""
    for make in (generated_sentences, short_sentences, lambda count: paragraphs(count, tokenizer)):
        texts = make(400)

        assert len(set(texts)) == 400
        assert make(400) == texts


def test_lengths_of_texts(tokenizer: Tokenizer) -> None:
    """Paragraphs have 20 to 256 tokens; the ragged batch spreads from 5 to 256; the query has 9."""

    def lengths(texts: list[str]) -> list[int]:
        return sorted(len(encoding.ids) for encoding in tokenizer.encode_batch(texts))

    long = lengths(paragraphs(400, tokenizer))
    assert 20 <= long[0] < 40
    assert 200 < long[-1] <= 256
    assert abs(np.subtract(lengths(ragged_texts(32, tokenizer)), np.linspace(5, 256, 32))).max() <= 2
    assert lengths([QUERY]) == [9]
    assert 10 <= np.mean(lengths(generated_sentences(400))) <= 20


def test_every_workload_can_be_made(tokenizer: Tokenizer) -> None:
    """Each workload has the key that it is found under; those of one model come one after the other."""
    made = {key: make(sizes_for("cpu", is_quick=True), tokenizer) for key, make in WORKLOADS.items()}

    assert all(workload.key == key for key, workload in made.items())
    of_models = [workload.model for workload in made.values()]
    changes = sum(one != other for one, other in pairwise(of_models))
    assert changes == len(set(of_models)) - 1


@pytest.mark.parametrize("pooling_mode", ["mean", "lasttoken"])
def test_random_models(pooling_mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model with random weights is written once, with a tokenizer of its own where the real one is not there."""
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    monkeypatch.setattr(models, "RANDOM_MODELS", {"small": RandomModel("bert", config, pooling_mode=pooling_mode)})
    monkeypatch.setattr(models, "_packaged_minilm", lambda: None)
    folders = ModelFolders(tmp_path / "cache")

    folder = folders.folder("small")

    assert not folders.has_real_minilm
    assert ModelFolders(tmp_path / "cache").folder("small") == folder
    model = SentenceTransformer(str(folder), device="cpu")
    assert model[1].get_pooling_mode_str() == pooling_mode
    assert model.max_seq_length == 256
    rows = model.encode(["a sentence of a few words", "another one"])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    assert flop_per_token(folder) == 2 * (4 * 16 * 16 + 2 * 16 * 32)


def test_an_interrupted_model_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    """Where writing a folder breaks off, the next try begins anew."""
    folders = ModelFolders(tmp_path, minilm=minilm_folder())

    def fail(_folder: Path, out: Path) -> None:
        out.mkdir()
        raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        folders.exported("minilm", "onnx", fail)
    out = folders.exported("minilm", "onnx", lambda _folder, out: (out / "onnx").mkdir(parents=True))

    assert [path.name for path in out.iterdir()] == ["onnx"]


# ── Figures ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def results() -> Results:
    """Three rounds of two engines, in the second of which the machine was slow."""
    return Results(
        baseline="reference-fp32",
        costs={
            ("reference-fp32", "short"): [3.0, 6.0, 3.0],
            ("ours-fp32", "short"): [1.0, 2.0, 1.5],
            ("onnx-fp32", "short"): [1.5, 2.0, 1.5],
            ("ours-fp32", "memory"): [1.2],
        },
        agreements={("ours-fp32", "short"): Agreement(2e-7, 1.0), ("ours-fp32", "mixed"): Agreement(4e-7, 0.99999)},
    )


def test_ratios_are_medians_of_ratios(results: Results) -> None:
    """Each round is a comparison of its own."""
    speedup = results.speedup("ours-fp32", "short")
    assert speedup is not None
    assert (speedup.median, speedup.lowest, speedup.highest) == (3, 2, 3)
    share = results.share("ours-fp32", "short", of="onnx-fp32")
    assert share is not None
    assert share.median == 1
    assert results.speedup("ours-fp32", "memory") is None
    assert results.speedup("openvino-bf16", "short") is None
    assert results.cost("ours-fp32", "short") == 1.5


def test_targets(results: Results) -> None:
    """The targets are compared with what was measured; those without figures are left out."""
    reached = {outcome.target.figure: (outcome.figure, outcome.is_met) for outcome in outcomes(results, "cpu")}

    assert reached == {
        "fp32, short sentences, speed": (3, True),
        "fp32 over the best other fp32 engine, short": (1, False),
        "peak memory growth, in sizes of the result": (1.2, True),
        "fp32, largest difference of a value": (4e-7, True),
    }
    assert outcomes(results, "cuda")[-1].figure == 3
    assert len({target.figure for target in TARGETS}) == len(TARGETS)


def test_agreement() -> None:
    """The largest difference of a value, and the smallest cosine of a row."""
    expected = np.array([[1, 0], [0, 2]], dtype=np.float32)

    near = agreement(np.array([[1, 0], [2, 2]], dtype=np.float32), expected)

    assert near.difference == 2
    assert near.cosine == pytest.approx(0.5**0.5)


def test_products() -> None:
    """Every way to compute products has a rate, F.linear among them, and threads are left as they were."""
    before = torch.get_num_threads()
    measured = Products("cpu", 1, width=8, inner_width=16)

    measured.sample()

    rates = measured.rates()
    assert rates["F.linear", "fp32"] > 0
    assert all(rate > 0 for rate in rates.values())
    assert torch.get_num_threads() == before


def test_flop_per_token(tmp_path: Path) -> None:
    """Two for each weight of a matrix that every token is multiplied with."""
    tensors: dict[str, Any] = {
        "embeddings.word_embeddings.weight": {"shape": [100, 4]},
        "encoder.layer.0.query.weight": {"shape": [4, 4]},
        "encoder.layer.0.query.bias": {"shape": [4]},
        "pooler.dense.weight": {"shape": [4, 4]},
    }
    head = json.dumps({"__metadata__": {}, **tensors}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)

    assert flop_per_token(tmp_path) == 32


def test_table() -> None:
    """Columns are aligned, whatever is in them."""
    lines = table(["engine", "a"], [["ours", "1.00 ×"], ["the other", "–"]]).splitlines()

    assert lines[1] == "| --------- | ------ |"
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("joined", [None, 8])
def test_a_training_is_measured(joined: int | None, tiny_folders: Mapping[str, Path], tmp_path: Path) -> None:
    """A training in a process of its own says what a step cost, and how the model did."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("".join(f"the cat sat,text {number},{number % 6}\n" for number in range(60)))

    found = training.trained(
        "ours",
        folder=str(tiny_folders["bert"]),
        train=str(pairs),
        dev=str(pairs),
        threads=1,
        batch_size=4,
        steps=8,
        evaluation_steps=4,
        effective_batch_size=joined,
    )

    assert (found["seconds_per_step"] is None) == (joined is not None)
    assert found["peak"] >= found["peak_before"] > 10e6
    assert [steps for _, steps, _ in found["scores"]] == [0, 4, 8, -1]


def test_a_page_is_read_as_a_newcomer_does(tmp_path: Path) -> None:
    """The blocks of a page build on each other; what one prints, or fails with, is noted, and the next one runs."""
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 2\nprint(x)\n```\n\n```console\n$ no Python\n```\n\n"
        "```python\nx / 0\n```\n\n```python\nprint(x + 1)\n```\n"
    )

    done = subprocess.run(
        [sys.executable, engines.ROOT / "benchmarks" / "page_process.py", page],
        capture_output=True,
        text=True,
        check=True,
    )

    blocks = [json.loads(line) for line in done.stdout.splitlines()]
    assert [block["source"] for block in blocks] == ["x = 2\nprint(x)\n", "x / 0\n", "print(x + 1)\n"]
    assert [block["output"] for block in blocks] == ["2\n", "ZeroDivisionError: division by zero\n", "3\n"]


def test_the_page_of_a_walk() -> None:
    """Each step has its time, what was done and what it printed; the test of the docs does not run it again."""
    steps = [newcomer.Step("make demo", 60.0, "found"), newcomer.Step("x = 2\n", 0.04, "", "py")]

    page = newcomer.page_of(steps, "`make walk`")

    assert "1.0 minutes in all" in page
    assert "**1.** 60.0 s\n\n```console\n$ make demo\n```\n\n```text\nfound\n```" in page
    assert page.endswith("**2.** 0.0 s\n\n```py\nx = 2\n```\n")


def test_callers_are_served(capsys: pytest.CaptureFixture[str]) -> None:
    """Each way serves all callers, each text once, and the table says how long they waited."""
    serving.main(["--callers", "1", "3", "--calls", "12", "--rounds", "1"])

    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["1"] * 3 + ["3"] * 3
    assert [line.split("|")[2].strip() for line in lines[2:]] == ["encode", "batcher", "aencode"] * 2


def test_what_is_said_of_callers() -> None:
    """Rates are over all calls; a percentile is the latency that so many keep to; ratios are to calls of encode."""
    slow = serving.Served(2.0, [0.01 * n for n in range(1, 101)])
    quick = serving.Served(0.5, [0.001] * 100)

    assert (slow.rate, quick.rate) == (50.0, 200.0)
    assert slow.percentile(0.5) == pytest.approx(510)
    assert slow.percentile(0.99) == pytest.approx(1000)
    rows = serving.rows_of(8, {"encode": [slow], "batcher": [quick], "aencode": [quick]})
    assert [row[-1] for row in rows] == ["1.00", "4.00", "4.00"]


def test_a_short_soak(tiny_folders: dict[str, Path]) -> None:
    """Callers, cancelled tasks, bad texts, modules that fail, short memory and Ctrl-C: every answer is right.

    It has a process of its own: Ctrl-C, thrown into threads, may hit whatever else there is.
    """
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.05", "--callers", "1"]
    done = subprocess.run(
        [*command, "--model", str(tiny_folders["bert"])],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).parents[1],
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing was wrong" in done.stdout
    expected = ["mixed work", "by the batcher", "by tasks", "cancelled", "failed", "left halfway", "wrong input"]
    assert [what for what in expected if f"| {what} " not in done.stdout] == []
    assert re.search(r"\| descriptors +\| \d", done.stdout)


def test_memory_over_calls(tiny_folders: dict[str, Path]) -> None:
    """Before and after calls it is told how much memory the process has."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")

    before, after = soak.growth_over_calls(model, 20)

    assert 10 < before <= after + 50
