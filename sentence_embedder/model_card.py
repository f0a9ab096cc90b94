"""The model card: what is known of a model → the text of its README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

_TAGS = ("sentence-transformers", "feature-extraction", "sentence-similarity")


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
        datasets: Names of the data sets that it was trained on.
        training: How it was trained: objectives and arguments, as JSON.
    """

    name: str
    architecture: str
    dimension: int | None
    max_seq_length: int | None
    similarity: str
    prompts: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[str] = ()
    training: Mapping[str, Any] = field(default_factory=dict)


def render(facts: CardFacts) -> str:
    """The text of the card: YAML for the Hub, then Markdown for people."""
    template = Template(Path(__file__).with_suffix(".md").read_text(encoding="utf-8"))
    return template.substitute(
        name=facts.name,
        tags=_yaml_list(_TAGS),
        datasets=f"datasets:\n{_yaml_list(facts.datasets)}\n" if facts.datasets else "",
        dimension=facts.dimension or "an unknown number of",
        max_seq_length=facts.max_seq_length or "any number of",
        similarity=facts.similarity,
        prompts=_prompts_section(facts.prompts),
        architecture=facts.architecture,
        training=_training_section(facts.training),
    )


def _yaml_list(values: Sequence[str]) -> str:
    # A JSON string is a YAML string, whatever stands in it.
    return "\n".join(f"- {json.dumps(value, ensure_ascii=False)}" for value in values)


def _prompts_section(prompts: Mapping[str, str]) -> str:
    if not prompts:
        return ""
    rows = "\n".join(f"| `{name}` | `{json.dumps(text, ensure_ascii=False)}` |" for name, text in prompts.items())
    return f"\n## Prompts\n\n| `prompt_name` | put before the text |\n|---|---|\n{rows}\n"


def _training_section(training: Mapping[str, Any]) -> str:
    if not training:
        return ""
    # Settings may hold functions and models.
    text = json.dumps(training, indent=2, ensure_ascii=False, default=repr)
    return f"\n## Training\n\nTrained by `fit`:\n\n```json\n{text}\n```\n"
