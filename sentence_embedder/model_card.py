"""The model card: what is known of a model → the text of its README.md."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

_QUERY = "How do I bake bread?"
_SENTENCES = ("The loaf is in the oven.", "The tyre of my bike is flat.", "Jupiter has four large moons.")

_MOST_LOGS = 50


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What the card of a model says.

    Args:
        name: The name under which it is loaded.
        architecture: Its modules, as ``repr`` shows them.
        dimension: Width of its embeddings, if it is known.
        max_seq_length: Its longest input in tokens, if it has a limit.
        similarity: The similarity that it is made for.
        prompts: Its prompts.
        tells_queries_apart: Whether queries and documents are embedded in different ways.
        title: The heading; by default the name.
        task_name: What it is for, in words.
        language: The languages of its texts, as codes.
        license: Its licence.
        tags: Tags for the Hub.
        base_model: The model on the Hub that it was made from.
        base_model_revision: The commit of that.
        datasets: Data sets that it was trained on: each has a ``name``, an ``id`` on the Hub, or both.
        eval_datasets: Data sets that it was judged by.
        training: How it was trained: ``objectives``, ``arguments``, ``evaluator``, ``logs``, ``evaluations``.
        versions: Package → version, of what it was saved by.
        citations: BibTeX entries.
    """

    name: str
    architecture: str
    dimension: int | None
    max_seq_length: float | None
    similarity: str
    prompts: Mapping[str, str] = field(default_factory=dict)
    tells_queries_apart: bool = False
    title: str | None = None
    task_name: str | None = None
    language: Sequence[str] = ()
    license: str | None = None
    tags: Sequence[str] = ("sentence-transformers", "feature-extraction", "sentence-similarity")
    base_model: str | None = None
    base_model_revision: str | None = None
    datasets: Sequence[Mapping[str, str]] = ()
    eval_datasets: Sequence[Mapping[str, str]] = ()
    training: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    citations: Sequence[str] = ()


def render(facts: CardFacts) -> str:
    """The text of the card: YAML for the Hub, then Markdown for people."""
    template = Template(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    text = template.substitute(
        front=_front(facts),
        title=_line(facts.title or facts.name),
        base=f" made from {_model_link(facts)}" if facts.base_model else "",
        tasks=f"Use it for {_line(facts.task_name)}." if facts.task_name else "",
        dimension=facts.dimension or "an unknown number of",
        max_seq_length="any number of" if facts.max_seq_length in (None, math.inf) else facts.max_seq_length,
        similarity=_line(facts.similarity),
        more=_more(facts),
        usage=_usage(facts),
        prompts=_prompts_section(facts.prompts),
        architecture=_block(facts.architecture),
        training=_training_section(facts.training),
        evaluation=_evaluation_section(facts.training),
        versions=_table(["package", "version"], facts.versions.items()),
        citations=_citations_section(facts.citations),
    )
    return f"{text.rstrip()}\n"


# ── The front, for the Hub ────────────────────────────────────────────────────────────────────────────────────


def _front(facts: CardFacts) -> str:
    """The YAML, in which every value is written as JSON: what stands in it cannot become anything else."""
    datasets = [known["id"] for known in (*facts.datasets, *facts.eval_datasets) if "id" in known]
    values = {
        "language": [*facts.language],
        "license": facts.license,
        "library_name": "sentence-transformers",
        "pipeline_tag": "sentence-similarity",
        "tags": [*facts.tags],
        "base_model": facts.base_model,
        "datasets": [*dict.fromkeys(datasets)],
        "model-index": _model_index(facts),
    }
    return "\n".join(f"{name}: {_yaml(value)}" for name, value in values.items() if value)


def _yaml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_yaml, value)) + "]"
    if isinstance(value, float):
        return f"{value:.6f}"  # an exponent without a dot would be a string
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)


def _model_index(facts: CardFacts) -> list[Any]:
    """The scores of the best evaluation, as the Hub lists them."""
    evaluator, best = facts.training.get("evaluator"), _best(facts.training)
    figures = _finite(best.get("metrics") or {}) if best else {}
    if not evaluator or not figures:
        return []
    name = evaluator.get("name") or "unknown"
    result = {
        "task": {"type": evaluator["task"].lower().replace(" ", "-"), "name": evaluator["task"]},
        "dataset": {"name": name, "type": "unknown"},
        "metrics": [{"type": key, "value": value, "name": key} for key, value in figures.items()],
    }
    return [{"name": facts.title or facts.name, "results": [result]}]


def _finite(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in metrics.items() if math.isfinite(value)}


def _best(training: Mapping[str, Any]) -> Mapping[str, Any]:
    best = [found for found in training.get("evaluations", ()) if found["is_best"]]
    return best[-1] if best else {}


# ── The body, for people ──────────────────────────────────────────────────────────────────────────────────────


def _model_link(facts: CardFacts) -> str:
    name = _line(facts.base_model or "")
    commit = f" at commit {_code(facts.base_model_revision)}" if facts.base_model_revision else ""
    is_plain = re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name, re.ASCII)
    return f"[{name}](https://huggingface.co/{name}){commit}" if is_plain else f"{_code(name)}{commit}"


def _more(facts: CardFacts) -> str:
    rows = {
        "Languages": ", ".join(facts.language),
        "Licence": facts.license or "",
        "Trained on": ", ".join(map(_dataset_name, facts.datasets)),
        "Judged by": ", ".join(map(_dataset_name, facts.eval_datasets)),
    }
    return "".join(f"- **{name}:** {_line(value)}\n" for name, value in rows.items() if value)


def _dataset_name(dataset: Mapping[str, str]) -> str:
    return dataset.get("name") or dataset.get("id") or "unknown"


def _usage(facts: CardFacts) -> str:
    name = json.dumps(facts.name)
    count, width = len(_SENTENCES), facts.dimension or "dim"
    sentences = ",\n".join(f"    {json.dumps(sentence)}" for sentence in _SENTENCES)
    head = f"""from sentence_embedder import SentenceTransformer  # or: from sentence_transformers import …

model = SentenceTransformer({name})
sentences = [
{sentences},
]
"""
    if not facts.tells_queries_apart:
        return f"""{head}embeddings = model.encode(sentences)
print(embeddings.shape)  # ({count}, {width})
print(model.similarity(embeddings, embeddings))"""
    return f"""{head}documents = model.encode_document(sentences)
query = model.encode_query({json.dumps(_QUERY)})
print(documents.shape, query.shape)  # ({count}, {width}) ({width},)
print(model.similarity(query, documents))"""


def _prompts_section(prompts: Mapping[str, str]) -> str:
    if not prompts:
        return ""
    rows = [(_code(name), _code(json.dumps(text, ensure_ascii=False))) for name, text in prompts.items()]
    return f"\n## Prompts\n\n{_table(['`prompt_name`', 'put before the text'], rows)}\n"


def _training_section(training: Mapping[str, Any]) -> str:
    if not training:
        return ""
    parts = ["\n## Training"]
    for number, objective in enumerate(training.get("objectives", ()), 1):
        parts.append(f"### Objective {number}\n\n{_objective(objective)}")
    if training.get("arguments"):
        rows = [(_code(name), _code(value)) for name, value in training["arguments"].items()]
        parts.append(f"### Arguments of `fit`\n\n{_table(['argument', 'value'], rows)}")
    if training.get("logs"):
        parts.append(f"### Losses\n\n{_logs(training['logs'])}")
    return "\n\n".join(parts) + "\n"


def _objective(objective: Mapping[str, Any]) -> str:
    labels = {
        "loader": "Loader",
        "batch_size": "Batch size",
        "examples": "Examples",
        "columns": "Columns",
        "loss": "Loss",
    }
    known = [(label, objective.get(key)) for key, label in labels.items()]
    lines = "\n".join(f"- {label}: {_code(value)}" for label, value in known if value is not None)
    settings = objective.get("settings")
    shown = json.dumps(settings, indent=2, ensure_ascii=False) if settings else ""
    return f"{lines}\n\nwith the parameters\n\n{_block(shown, 'json')}" if shown else lines


def _logs(logs: Sequence[Mapping[str, Any]]) -> str:
    every = -(-len(logs) // _MOST_LOGS)
    shown = [log for number, log in enumerate(logs, 1) if number % every == 0 or number == len(logs)]
    rows = [(log["epoch"] + 1, log["step"], ", ".join(f"{loss:.4f}" for loss in log["losses"])) for log in shown]
    return _table(["epoch", "step", "loss"], rows)


def _evaluation_section(training: Mapping[str, Any]) -> str:
    evaluations = training.get("evaluations", ())
    if not evaluations:
        return ""
    rows = [
        (found["epoch"] + 1, found["step"], f"{found['score']:.4f}", "✓" if found["is_best"] else "")
        for found in evaluations
    ]
    parts = ["\n## Evaluation", _table(["epoch", "step", "score", "best yet"], rows)]
    metrics = _best(training).get("metrics")
    if metrics:
        by_name = [(_code(name), f"{value:.4f}") for name, value in metrics.items()]
        parts.append(f"The best of them:\n\n{_table(['metric', 'value'], by_name)}")
    return "\n\n".join(parts) + "\n"


def _citations_section(citations: Sequence[str]) -> str:
    if not citations:
        return ""
    return f"\n## Citations\n\n{_block(chr(10).join([*dict.fromkeys(citations)]), 'bibtex')}"


# ── Markdown out of which nothing breaks ──────────────────────────────────────────────────────────────────────


def _line(text: object) -> str:
    """A text within a line."""
    return re.sub(r"\s+", " ", str(text)).replace("<", "&lt;").strip()


def _code(value: object) -> str:
    """A value as code within a line, or within a row of a table."""
    text = re.sub(r"\s+", " ", str(value)) or " "
    fence = "`" * (1 + max([0, *map(len, re.findall("`+", text))]))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", r"\|")


def _block(text: str, language: str = "") -> str:
    """A text as a block of code."""
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return f"{fence}{language}\n{text}\n{fence}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
