"""The command ``info``: what a model is."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from typing import Any

from sentence_embedder.cli.json_text import json_text
from sentence_embedder.cli.model_options import add_loading, load_model

EXAMPLES = """\
examples:
  sentence-embedder info all-MiniLM-L6-v2
  sentence-embedder info all-MiniLM-L6-v2 --json
"""


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "info",
        help="what a model is",
        description="Print what a model is, and how it is computed on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="a folder, or a name on the Hub")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_loading(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Do what the arguments say."""
    facts = _facts(args.model, load_model(args), args.dtype)
    if args.json:
        sys.stdout.write(f"{json_text(facts, indent=2)}\n")
        return
    lines = list(_lines(facts))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        sys.stdout.write(f"{name:<{width}}  {text}".rstrip() + "\n")


def _facts(name: str, model: Any, dtype: str) -> dict[str, Any]:
    from sentence_embedder.acceleration.way import way_of

    model.eval()
    parameters = list(model.parameters())
    way = way_of(model, dtype)
    limit = model.get_max_seq_length()
    return {
        "model": name,
        "base_model": model.model_card_data.base_model,
        "modules": [{"name": module, "class": type(part).__name__} for module, part in model._modules.items()],
        "dimension": model.get_embedding_dimension(),
        "max_seq_length": None if limit == math.inf else limit,  # which is no JSON
        "truncate_dim": model.truncate_dim,
        "similarity": model.similarity_fn_name,
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
        "parameters": sum(parameter.numel() for parameter in parameters),
        "bytes": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        "formats": sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters}),
        "device": str(model.device),
        "encode": {"way": way.name, "description": way.description, "why_not_packed": way.why_not},
    }


def _lines(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Name and text of each line."""
    yield "model", facts["model"]
    yield "base model", facts["base_model"] or "not known"
    yield "modules", " → ".join(module["class"] for module in facts["modules"])
    yield "dimension", _or(facts["dimension"], "not known")
    yield "longest text", "no limit" if facts["max_seq_length"] is None else f"{facts['max_seq_length']:,} tokens"
    if facts["truncate_dim"] is not None:
        yield "cut to", str(facts["truncate_dim"])
    yield "similarity", facts["similarity"]
    for name, prompt in facts["prompts"].items():
        mark = " (default)" if name == facts["default_prompt_name"] else ""
        yield f"prompt {name}", f"{json_text(prompt)}{mark}"
    if not facts["prompts"]:
        yield "prompts", "none"
    formats = " and ".join(facts["formats"])
    yield "parameters", f"{facts['parameters']:,} in {facts['bytes']:,} bytes ({formats})"
    yield "device", facts["device"]
    yield "encode", f"{facts['encode']['way']}: {facts['encode']['description']}"
    if facts["encode"]["why_not_packed"]:
        yield "why not packed", facts["encode"]["why_not_packed"]


def _or(value: Any, instead: str) -> str:
    return instead if value is None else str(value)
