"""The command ``similarity``: how alike texts are."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from sentence_embedder.cli.json_text import json_text
from sentence_embedder.cli.model_options import add_model, load_model
from sentence_embedder.cli.usage_error import UsageError

EXAMPLES = """\
examples:
  sentence-embedder similarity "the cat sat" "a kitten sat" "hello world"
  sentence-embedder similarity "the cat sat" "a kitten sat" --json
"""


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "similarity",
        help="how alike texts are",
        description="Print a line for each TEXT: its similarity to each of them, in their order, and the text.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("texts", nargs="+", metavar="TEXT", help="two or more texts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_model(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Do what the arguments say."""
    if len(args.texts) < 2:
        raise UsageError("similarity: expected two texts or more, found one: put each in quotation marks")
    model = load_model(args)
    embeddings = model.encode(args.texts, show_progress_bar=False)
    matrix = model.similarity(embeddings, embeddings).tolist()
    if args.json:
        found = {"similarity": model.similarity_fn_name, "texts": args.texts, "matrix": matrix}
        sys.stdout.write(f"{json_text(found)}\n")
        return
    for text, row in zip(args.texts, matrix, strict=True):
        numbers = "\t".join(f"{value:.4f}" for value in row)
        sys.stdout.write(f"{numbers}\t{' '.join(text.split())}\n")
