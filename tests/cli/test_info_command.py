"""The command ``info``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sentence_embedder import SentenceTransformer
from sentence_embedder.models import BoW, Router, StaticEmbedding
from tests.cli.conftest import Run
from tests.tiny_models import TINY_MODELS, write_model


def _facts(run: Run, *arguments: object) -> Any:
    done = run("info", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_facts_are_those_of_the_model(run: Run, bert: Path, model: SentenceTransformer) -> None:
    """What is printed is what the model says of itself."""
    facts = _facts(run, bert)

    assert [module["class"] for module in facts["modules"]] == ["Transformer", "Pooling"]
    assert facts["dimension"] == model.get_embedding_dimension()
    assert facts["max_seq_length"] == model.max_seq_length
    assert facts["prompts"] == model.prompts
    assert facts["similarity"] == "cosine"
    assert facts["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["bytes"] == 4 * facts["parameters"]
    assert facts["base_model"] is None


def test_facts_have_a_line_each(run: Run, bert: Path) -> None:
    """Without ``--json`` each fact has a line, that tell how ``encode`` computes among them."""
    lines = run("info", bert).out.splitlines()

    assert any(line.startswith("modules ") and line.endswith("Transformer → Pooling") for line in lines)
    assert any(line.startswith("encode ") and "packed: a lean forward pass" in line for line in lines)


@pytest.mark.parametrize("name", [name for name in TINY_MODELS if name != "bert-chain"])
def test_known_architectures_are_packed(name: str, run: Run, tiny_folders: dict[str, Path]) -> None:
    """Architectures with a lean forward pass are said to have it, with nothing against it."""
    way = _facts(run, tiny_folders[name])["encode"]

    assert (way["way"], way["why_not_packed"]) == ("packed", None)


def test_why_not_is_told(run: Run, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a model is not computed in the quickest way, the reason is told: here that nothing reads it."""
    from sentence_embedder.acceleration import architectures

    monkeypatch.setattr(architectures, "READERS", {})

    way = _facts(run, bert)["encode"]

    assert way["way"] in ("shadow", "plain")
    assert way["why_not_packed"] == "there is no lean forward pass for bert"


def test_padding_on_the_left_is_a_reason(run: Run, bert: Path, tmp_path: Path) -> None:
    """A BERT that is padded on the left is computed by its modules, and told why."""
    model = SentenceTransformer(str(bert))
    model.tokenizer.padding_side = "left"
    model.save(str(tmp_path / "left"))

    way = _facts(run, tmp_path / "left")["encode"]

    assert way["way"] == "plain"
    assert "pads on the left" in way["why_not_packed"]


def test_what_is_no_transformer_is_a_reason(run: Run, tmp_path: Path) -> None:
    """A model whose first module is another one is computed by its modules, and told why."""
    SentenceTransformer(modules=[BoW(["cat", "dog"])]).save(str(tmp_path / "bow"))

    assert "no Transformer but BoW" in _facts(run, tmp_path / "bow")["encode"]["why_not_packed"]


def test_no_limit_is_none(run: Run, model: SentenceTransformer, tmp_path: Path) -> None:
    """A StaticEmbedding, whose limit is infinite, has none: JSON has no such number, and people no such word."""
    static = SentenceTransformer(modules=[StaticEmbedding(model.tokenizer, torch.ones(len(model.tokenizer), 6))])
    static.save(str(tmp_path / "static"))

    assert static.max_seq_length == math.inf
    assert _facts(run, tmp_path / "static")["max_seq_length"] is None
    assert "longest text  no limit" in " ".join(run("info", tmp_path / "static").out.split(" ")).replace("   ", " ")
    assert "any number of tokens" in (tmp_path / "static" / "README.md").read_text()


def test_a_router_is_not_guessed_at(run: Run, bert: Path, tmp_path: Path) -> None:
    """Of a model with several ways through it none is named."""
    router = Router.for_query_document([SentenceTransformer(str(bert))[0]], [SentenceTransformer(str(bert))[0]])
    SentenceTransformer(modules=[router]).save(str(tmp_path / "router"))

    assert _facts(run, tmp_path / "router")["encode"]["way"] == "unknown"


def test_prompts_have_a_line_each(run: Run, tmp_path: Path) -> None:
    """Prompts are printed in quotation marks; that which is the default is marked."""
    write_model(tmp_path / "bert", TINY_MODELS["bert"])
    model = SentenceTransformer(str(tmp_path / "bert"), prompts={"q": "find: "}, default_prompt_name="q")
    model.save(str(tmp_path / "with-prompt"))

    assert '"find: " (default)' in run("info", tmp_path / "with-prompt").out
