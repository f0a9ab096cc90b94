"""The command ``search``: the texts of a file that are nearest to a query."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentence_embedder.cli.json_text import json_text
from sentence_embedder.cli.model_options import add_model, load_model, positive
from sentence_embedder.cli.searched_file import SearchedFile
from sentence_embedder.cli.text_file import TextFile

EXAMPLES = """\
examples:
  sentence-embedder search texts.txt --query "where is the cat?" --top-k 3
  sentence-embedder search table.csv --column title --query cat --query dog --json
  sentence-embedder search texts.txt < queries.txt
"""


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "search",
        help="the texts of a file that are nearest to a query",
        description="Print score, row (from 0) and text of what is nearest, separated by tabs; with several "
        "queries the query first. Without --query, queries are read from the standard input, a line each. The "
        "embeddings of FILE are kept beside it, in a hidden file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="as INPUT of encode")
    parser.add_argument("--query", nargs="+", action="extend", metavar="TEXT", help="what to look for")
    parser.add_argument(
        "--top-k", type=positive, default=5, metavar="N", help="how many texts (default: %(default)s)"
    )
    parser.add_argument("--column", metavar="NAME", help="column of the texts (default: text, or the only one)")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each query, a line each")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="(default: %(default)s)")
    add_model(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Do what the arguments say."""
    texts = TextFile(args.file, args.column)
    _ = texts.stamp
    model = load_model(args)
    searched = SearchedFile.of(texts, model, dtype=args.dtype, batch_size=args.batch_size)
    queries = args.query or _asked()
    names_query = args.query is None or len(args.query) > 1
    is_asked = args.query is None and sys.stdin.isatty()
    for query in queries:
        hits = searched.nearest(query, args.top_k)
        if args.json:
            sys.stdout.write(f"{json_text({'query': query, 'hits': hits})}\n")
        else:
            start = f"{_in_a_line(query)}\t" if names_query and not is_asked else ""
            for hit in hits:
                text = _in_a_line(str(hit["text"]))
                sys.stdout.write(f"{start}{hit['score']:.4f}\t{hit['row']}\t{text}\n")
        sys.stdout.flush()


def _asked() -> Iterator[str]:
    """The queries of the standard input, for each of which a terminal is asked."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            if line.strip():
                yield line.strip()
        return
    while True:
        sys.stderr.write("query> ")
        sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:  # Ctrl-D
            sys.stderr.write("\n")
            return
        if line.strip():
            yield line.strip()


def _in_a_line(text: str) -> str:
    return " ".join(text.split())
