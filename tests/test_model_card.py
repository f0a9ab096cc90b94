"""The model card."""

from __future__ import annotations

import copy
import gc
import json
import math
import pickle
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from sentence_embedder import InputExample, SentenceTransformer, SentenceTransformerModelCardData, losses, models
from sentence_embedder.evaluation import EmbeddingSimilarityEvaluator, SequentialEvaluator
from sentence_embedder.model_card import CardFacts, render

FACTS = CardFacts(
    name="me/mine",
    architecture="SentenceTransformer()",
    dimension=3,
    max_seq_length=8,
    similarity="cosine",
    versions={"torch": "2"},
)
HOSTILE = "```\n---\n# Not a heading\n| `x` | <b> \x7f \u2028 \ud800 😀 ${name} $name \\"


def parts_of(card: str) -> tuple[dict[str, Any], str]:
    """The front of a card, and its body."""
    nothing, front, body = card.split("---\n", 2)
    assert nothing == ""
    return yaml.safe_load(front), body


def code_of(card: str) -> str:
    """The usage code of a card."""
    return card.split("```python\n")[1].split("```")[0]


# ── The front ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_the_hub_needs() -> None:
    """The front has the tags, the kind and the library, and nothing that is not known."""
    front, body = parts_of(render(FACTS))

    assert front == {
        "pipeline_tag": "sentence-similarity",
        "library_name": "sentence-transformers",
        "tags": ["sentence-transformers", "feature-extraction", "sentence-similarity"],
    }
    assert body.lstrip().startswith("# me/mine")


def test_what_the_owner_says() -> None:
    """Languages, licence, base model and data sets on the Hub stand in the front, and in the body, too."""
    facts = replace(
        FACTS,
        language=["en", "no"],
        license="apache-2.0",
        base_model="them/theirs",
        base_model_revision="c0ffee",
        datasets=[{"name": "SNLI", "id": "stanfordnlp/snli"}, {"name": "my own"}],
        eval_datasets=[{"id": "mteb/sts"}],
        title="A good model",
        task_name="finding things",
    )

    front, body = parts_of(render(facts))

    assert front["language"] == ["en", "no"]  # which would be False in YAML without quotes
    assert front["license"] == "apache-2.0"
    assert front["base_model"] == "them/theirs"
    assert front["datasets"] == ["stanfordnlp/snli", "mteb/sts"]
    assert "# A good model" in body
    assert "made from [them/theirs](https://huggingface.co/them/theirs) at commit `c0ffee`" in body
    assert "Use it for finding things." in body
    assert "- **Trained on:** SNLI, my own" in body
    assert "- **Judged by:** mteb/sts" in body


@given(text=st.text(st.characters(), max_size=40) | st.sampled_from([HOSTILE, "a: b", "- c", '"q" # no', "1e3"]))
def test_any_text_is_a_value_of_the_front(text: str) -> None:
    """Whatever its owner has written, the front is YAML and says just that."""
    facts = replace(
        FACTS,
        language=[text],
        license=text or None,
        tags=[text, "x"],
        base_model=text or None,
        datasets=[{"name": text, "id": text}],
    )

    front, _ = parts_of(render(facts))

    assert front["tags"] == [text, "x"]
    assert front["language"] == [text]
    assert front.get("license", "") == text
    assert front.get("base_model", "") == text
    assert front["datasets"] == [text]


def test_scores_for_the_hub() -> None:
    """The scores of the best evaluation are there as the Hub lists them; what is no number is left out."""
    evaluation = {"epoch": 0, "steps": -1, "step": 5, "score": 0.5, "is_best": True}
    metrics = {"dev_spearman_cosine": 0.5, "dev_tiny": 1e-05, "dev_nan": math.nan}
    training = {
        "evaluator": {"task": "Semantic Similarity", "name": "dev"},
        "evaluations": [{**evaluation, "metrics": metrics}, {**evaluation, "is_best": False, "metrics": {}}],
    }

    card = render(replace(FACTS, training=training))

    data: Any = ModelCard(card).data
    results = data.eval_results
    assert [(found.task_type, found.dataset_name, found.metric_type, found.metric_value) for found in results] == [
        ("semantic-similarity", "dev", "dev_spearman_cosine", 0.5),
        ("semantic-similarity", "dev", "dev_tiny", 1e-05),
    ]


# ── The body ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_known() -> None:
    """Facts stand in the card, prompts too, and what is not known is said not to be."""
    card = render(replace(FACTS, prompts={"query": "Frage: "}, architecture="A(\n  (0): B\n)"))
    unknown = render(replace(FACTS, dimension=None, max_seq_length=None))

    assert "- **Dimensions:** 3" in card
    assert '| `query` | `"Frage: "` |' in card
    assert "A(\n  (0): B\n)" in card
    assert "an unknown number of" in unknown
    assert "any number of tokens" in unknown
    assert "## Prompts" not in unknown


def test_nothing_breaks_out() -> None:
    """Fences, pipes, line ends and headings in texts stay what they are: parts of these texts."""
    plain = render(replace(FACTS, prompts={"q": "p"}, training={"arguments": {"a": "b"}}))
    facts = replace(
        FACTS,
        name=HOSTILE,
        title=HOSTILE,
        architecture=HOSTILE,
        similarity=HOSTILE,
        prompts={HOSTILE: HOSTILE},
        training={"arguments": {HOSTILE: HOSTILE}},
    )

    card = render(facts)

    def outline(text: str) -> list[str]:
        """Headings outside of blocks of code, and how many cells each row of a table has."""
        found, fence = [], ""
        for line in text.split("\n"):
            ticks = line[: len(line) - len(line.lstrip("`"))]
            if fence:
                fence = "" if line.rstrip() == fence else fence
            elif len(ticks) >= 3:
                fence = ticks
            elif line.startswith("#"):
                found.append(line if line.startswith("##") else "#")
            elif line.startswith("|"):
                found.append(str(line.replace(r"\|", "").count("|")))
        return found

    assert outline(card) == outline(plain)
    assert "${name}" in card


@pytest.mark.parametrize("dimension", [3, None])
def test_the_usage_is_python(dimension: int | None) -> None:
    """The code of the card is Python, whatever the name."""
    for tells in (False, True):
        card = render(replace(FACTS, name='"a\\b"', dimension=dimension, tells_queries_apart=tells))
        compile(code_of(card), "card", "exec")
        assert json.dumps('"a\\b"') in code_of(card)


def test_many_logs_are_thinned_out() -> None:
    """Of a long training the card shows some of the losses, the last ones among them."""
    logs = [{"epoch": 0, "step": step, "losses": (1 / step,)} for step in range(1, 1001)]

    card = render(replace(FACTS, training={"logs": logs}))

    rows = [line for line in card.splitlines() if line.startswith("| 1 |")]
    assert 40 <= len(rows) <= 51
    assert rows[-1] == "| 1 | 1000 | 0.0010 |"


# ── The card of a model ───────────────────────────────────────────────────────────────────────────────────────


def card_of(model: SentenceTransformer, folder: Path, **arguments: Any) -> str:
    """The card with which a model is saved."""
    model.save(folder, **arguments)
    return (folder / "README.md").read_text(encoding="utf-8")


def run_usage(card: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What the usage code of a card prints, when the name in it means the folder."""
    namespace: dict[str, Any] = {}
    exec(code_of(card).replace('"me/mine"', repr(str(folder))), namespace)  # noqa: S102
    return capsys.readouterr().out


def shapes_said(card: str) -> str:
    """The shapes that the comment of a card promises."""
    return next(line.split("# ")[1] for line in code_of(card).splitlines() if ".shape" in line)


class TestCardsOfModels:
    """The cards of models of all kinds: their code runs, and gives what it says."""

    @pytest.mark.parametrize("similarity", ["cosine", "dot"])
    @pytest.mark.parametrize("truncate_dim", [None, 8])
    def test_a_plain_model(
        self,
        similarity: str,
        truncate_dim: int | None,
        tiny_folders: dict[str, Path],
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Of a model, also one that is cut."""
        model = SentenceTransformer(
            str(tiny_folders["bert"]), device="cpu", truncate_dim=truncate_dim, similarity_fn_name=similarity
        )
        card = card_of(model, tmp_path / "saved", model_name="me/mine")

        printed = run_usage(card, tmp_path / "saved", capsys)

        assert printed.startswith(shapes_said(card))
        assert "tensor([[" in printed
        assert f"- **Similarity:** {similarity}" in card

    def test_prompts(
        self, tiny_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Of a model that tells queries and documents apart."""
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", prompts={"query": "q: "})
        card = card_of(model, tmp_path / "saved", model_name="me/mine")

        assert "model.encode_query(" in card
        assert run_usage(card, tmp_path / "saved", capsys).startswith(shapes_said(card))

    def test_a_router(
        self, tiny_folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Of a model with routes."""
        inner = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        router = models.Router.for_query_document(query_modules=[*inner], document_modules=[*inner])
        model = SentenceTransformer(modules=[router], device="cpu")
        card = card_of(model, tmp_path / "saved", model_name="me/mine")

        assert "model.encode_query(" in card
        assert run_usage(card, tmp_path / "saved", capsys).startswith(shapes_said(card))

    def test_a_card_is_kept(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """The card that a model was loaded with is kept, unless a new one is asked for, in which the languages and
        the licence stay.
        """
        model.save(tmp_path / "loaded")
        text = "---\nlanguage: de\nlicense: mit\ntags: [x]\n---\n# By hand\n"
        (tmp_path / "loaded" / "README.md").write_text(text, encoding="utf-8")
        loaded = SentenceTransformer(str(tmp_path / "loaded"), device="cpu")

        assert card_of(loaded, tmp_path / "kept") == text
        front, body = parts_of(card_of(loaded, tmp_path / "new", replace_model_card=True))
        assert (front["language"], front["license"]) == (["de"], "mit")
        assert "By hand" not in body
        loaded.model_card_data.set_license("apache-2.0")
        loaded.save_pretrained(tmp_path / "other", replace_model_card=True)
        assert 'license: "apache-2.0"' in (tmp_path / "other" / "README.md").read_text(encoding="utf-8")

    @pytest.mark.parametrize("front", ["license: [", "- a\n- b", "license: 3\nlanguage: {a: b}", "x: !!python/y z"])
    def test_a_front_that_cannot_be_read(self, front: str, model: SentenceTransformer, tmp_path: Path) -> None:
        """What a stranger wrote in the front of a card does not keep a model from being saved."""
        model.save(tmp_path / "loaded")
        (tmp_path / "loaded" / "README.md").write_text(f"---\n{front}\n---\n# Odd\n", encoding="utf-8")
        loaded = SentenceTransformer(str(tmp_path / "loaded"), device="cpu")

        known, _ = parts_of(card_of(loaded, tmp_path / "new", replace_model_card=True))

        assert not {"license", "language"} & known.keys()

    def test_nothing_of_this_machine(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """No path of this machine stands in a card."""
        card = card_of(model, tmp_path / "saved")

        assert str(tmp_path) not in card
        assert "/tmp" not in card  # noqa: S108
        assert str(Path.home()) not in card

    def test_what_the_owner_says_of_it(self, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
        """model_card_data is given to the constructor, and can be changed; what was handed in is not."""
        data = SentenceTransformerModelCardData(language="en", license="mit", model_id="me/mine", model_name="Mine")
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu", model_card_data=data)
        model.model_card_data.add_tags("mine")
        model.model_card_data.set_base_model("them/theirs", "c0ffee")

        front, body = parts_of(card_of(model, tmp_path / "saved"))

        assert (front["language"], front["license"], front["base_model"]) == (["en"], "mit", "them/theirs")
        assert "mine" in front["tags"]
        assert "mine" not in (data.tags or ())
        assert 'SentenceTransformer("me/mine")' in body
        assert "# Mine" in body


# ── After training ────────────────────────────────────────────────────────────────────────────────────────────


def trained(model: SentenceTransformer, folder: Path, **arguments: Any) -> Any:
    """A model after a short training, and its record."""
    texts, labels = [f"a text {number}" for number in range(8)], [number / 8 for number in range(8)]
    examples = [
        InputExample(texts=[text, "another"], label=label) for text, label in zip(texts, labels, strict=True)
    ]
    evaluator = EmbeddingSimilarityEvaluator(texts, ["another"] * 8, labels, name="dev")
    loss = losses.MatryoshkaLoss(model, losses.CoSENTLoss(model), [32, 16])
    return model.fit(
        [(DataLoader(examples, batch_size=4), loss)],  # type: ignore[arg-type]
        **{"evaluator": evaluator, "epochs": 2, "warmup_steps": 1, "output_path": str(folder), **arguments},
        show_progress_bar=False,
    )


class TestTraining:
    """The card of a model that was trained."""

    def test_what_it_says(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """Data, loss and its parameters, hyper-parameters, scores, losses and papers stand in the card."""
        record = trained(model, tmp_path / "best")

        card = card_of(model, tmp_path / "last", model_name="me/mine")
        front, body = parts_of(card)
        for expected in (
            "- Loader: `DataLoader`",
            "- Batch size: `4`",
            "- Examples: `8`",
            "- Columns: `2 texts, and a label (float)`",
            "- Loss: `MatryoshkaLoss`",
            '"matryoshka_dims": [',
            "| `epochs` | `2` |",
            "| `optimizer_class` | `torch.optim.adamw.AdamW` |",
            f"| 2 | 4 | {record.evaluations[1].score:.4f} |",
            "| `dev_spearman_cosine` |",
            "kusupati-2022-matryoshka",
            "huang-2024-cosent",
        ):
            assert expected in body
        result = front["model-index"][0]["results"][0]
        assert result["dataset"]["name"] == "dev"
        values = {metric["type"]: metric["value"] for metric in result["metrics"]}
        assert values["dev_spearman_cosine"] == pytest.approx(record.best.metrics["dev_spearman_cosine"], abs=1e-6)
        assert str(tmp_path) not in card

    def test_nothing_of_a_training_that_failed_at_once(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """If training fails before its first step, the card stays the one that was there."""
        model.save(tmp_path / "before")
        (tmp_path / "before" / "README.md").write_text("# My own card\n", encoding="utf-8")
        loaded = SentenceTransformer(str(tmp_path / "before"), device="cpu")
        data: Any = [InputExample(texts=["a", "b"], label=1.0)]
        objective = (DataLoader(data), losses.CosineSimilarityLoss(loaded))

        with pytest.raises(OSError, match="expected a checkpoint"):
            loaded.fit([objective], resume_from_checkpoint=str(tmp_path / "nowhere"), show_progress_bar=False)

        assert card_of(loaded, tmp_path / "after") == "# My own card\n"

    def test_settings_are_plain(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """Whatever a loss says of its settings, the card shows it, and the trained model holds on to none of it."""

        class Loss(losses.CosineSimilarityLoss):
            settings: dict[str, Any]

            def get_config_dict(self) -> dict[str, Any]:
                return self.settings

        loss = Loss(model)
        loss.settings = {"guide": copy.deepcopy(model), "function": lambda: 0, "limits": {(1, 2): np.float32(0.5)}}
        held = weakref.ref(loss.settings["guide"])
        data: Any = [InputExample(texts=["a", "b"], label=1.0)]
        model.fit([(DataLoader(data), loss)], warmup_steps=0, show_progress_bar=False)
        del loss
        gc.collect()

        assert held() is None
        pickle.dumps(model)
        card = card_of(model, tmp_path / "out")
        for expected in ('"guide": "SentenceTransformer"', '<lambda>"', '"(1, 2)": 0.5'):
            assert expected in card

    def test_the_best_model_has_the_scores_so_far(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """The card of the model that was saved during training tells of the evaluation that it was saved for."""
        record = trained(model, tmp_path / "best")

        card = (tmp_path / "best" / "README.md").read_text(encoding="utf-8")

        rows = [line for line in card.splitlines() if line.endswith("| ✓ |")]
        assert rows[-1].split(" | ")[1] == str(record.best.step)

    def test_after_a_checkpoint(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """A training that goes on from a checkpoint tells of all of it."""
        folders = {"checkpoint_path": str(tmp_path / "checkpoints"), "checkpoint_save_steps": 2}
        trained(model, tmp_path / "best", **folders, epochs=1)

        trained(model, tmp_path / "best", **folders, epochs=2, resume_from_checkpoint=True)

        card = card_of(model, tmp_path / "last")
        evaluation = card.split("## Evaluation")[1].split("## Versions")[0]
        assert [line[:9] for line in evaluation.splitlines() if line[2:3].isdigit()] == ["| 1 | 2 |", "| 2 | 4 |"]

    def test_evaluators_of_all_kinds(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """A function that returns a number, and several evaluators at once, have their place in the card."""
        functions: list[Any] = [lambda *_, **__: 0.25, lambda *_, **__: 0.5]
        for number, evaluator in enumerate((lambda *_, **__: 0.125, SequentialEvaluator(functions))):
            trained(model, tmp_path / str(number), evaluator=evaluator)
            card = card_of(model, tmp_path / f"last {number}")
            parts_of(card)
            assert ("| 0.1250 |" if number == 0 else "| 0.5000 |") in card

    def test_the_licence_of_what_was_trained(self, model: SentenceTransformer, tmp_path: Path) -> None:
        """A model made from another keeps its licence, while the card is a new one."""
        model.save(tmp_path / "base")
        (tmp_path / "base" / "README.md").write_text("---\nlicense: mit\n---\n# Theirs\n", encoding="utf-8")
        base = SentenceTransformer(str(tmp_path / "base"), device="cpu")
        trained(base, tmp_path / "best")

        front, body = parts_of((tmp_path / "best" / "README.md").read_text(encoding="utf-8"))

        assert front["license"] == "mit"
        assert "Theirs" not in body


@pytest.mark.parametrize("name", [name for name in losses.__all__ if name.endswith("Loss")])
def test_every_loss_has_its_paper(name: str) -> None:
    """Each loss says by which paper it can be cited, in BibTeX; so does a class that derives from it."""
    from sentence_embedder.losses.citations import citation_of

    loss = getattr(losses, name)
    citation = citation_of(type("Own", (loss,), {}))

    assert citation.startswith("@")
    assert citation.count("{") == citation.count("}")
    assert citation == citation_of(loss)
