"""ModelOptions: the options that say which model, and how it is loaded."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_embedder.sentence_transformers import SentenceTransformer

DEFAULT_MODEL = "all-MiniLM-L6-v2"
_FORMATS = ("float32", "bfloat16", "float16", "auto")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``--model`` and the options for loading it."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help="a folder, or a name on the Hub (default: %(default)s)",
    )
    add_loading(parser)


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add the options for loading a model."""
    group = parser.add_argument_group("loading the model")
    group.add_argument("--device", metavar="DEVICE", help="cuda, cpu, mps … (default: the best there is)")
    group.add_argument(
        "--dtype", choices=_FORMATS, default="float32", help="number format of the products (default: %(default)s)"
    )
    group.add_argument("--revision", metavar="REVISION", help="branch, tag or commit on the Hub")
    group.add_argument("--local-files-only", action="store_true", help="fetch nothing")
    group.add_argument(
        "--trust-remote-code", action="store_true", help="let code in the model's repository run on this machine"
    )


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found {text!r}")
    return int(text)


def load_model(args: argparse.Namespace) -> SentenceTransformer:
    """The model that the options name."""
    from sentence_embedder.sentence_transformers import SentenceTransformer

    return SentenceTransformer(
        args.model,
        device=args.device,
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        local_files_only=args.local_files_only,
        dtype=args.dtype,
    )
