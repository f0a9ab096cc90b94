"""The command ``encode``: a file of texts to a file of embeddings."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from sentence_embedder.cli.embeddings_file import check_suffix, schema_for
from sentence_embedder.cli.file_encoding import FileEncoding
from sentence_embedder.cli.journal import Journal
from sentence_embedder.cli.model_options import add_model, load_model, positive
from sentence_embedder.cli.text_file import TextFile
from sentence_embedder.cli.usage_error import UsageError
from sentence_embedder.version import __version__

EXAMPLES = """\
examples:
  sentence-embedder encode texts.txt embeddings.npy
  sentence-embedder encode table.csv rows.jsonl --column title --normalize
  sentence-embedder encode rows.jsonl rows.parquet --column title --document --precision int8
"""

_PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
_AFTER_ALL = ("int8", "uint8")
_SAVE_EVERY = 4096
_RAY_SUFFIXES = (".parquet", ".csv", ".json", ".jsonl", ".ndjson", "")


def add_to(commands: Any) -> None:
    """Add the command to a parser's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "encode",
        help="a file of texts to a file of embeddings",
        description="Embed the texts of INPUT (.txt, .csv, .tsv, .jsonl, .parquet) into OUTPUT (.npy, .jsonl, "
        ".parquet). OUTPUT appears when it is whole; run again after an interruption, the same command goes on "
        "where it was.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", metavar="INPUT", help="a text a line, or a table with a column of texts")
    parser.add_argument("output", metavar="OUTPUT", help="the file to write")
    parser.add_argument("--column", metavar="NAME", help="column of the texts (default: text, or the only one)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there, or was begun otherwise")
    add_model(parser)
    _add_encoding(parser)
    parser.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="what computes: ray is a cluster"
    )
    parser.set_defaults(run=run, once_interrupted="the same command goes on where it was")


def _add_encoding(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("encoding")
    prompts = group.add_mutually_exclusive_group()
    prompts.add_argument("--prompt-name", metavar="NAME", help="the model's prompt to put before each text")
    prompts.add_argument("--prompt", metavar="TEXT", help="a prompt to put before each text")
    kinds = group.add_mutually_exclusive_group()
    kinds.add_argument("--query", action="store_true", help="the texts are queries")
    kinds.add_argument("--document", action="store_true", help="the texts are documents")
    group.add_argument("--precision", choices=_PRECISIONS, default="float32", help="(default: %(default)s)")
    group.add_argument("--normalize", action="store_true", help="scale embeddings to length 1")
    group.add_argument("--truncate-dim", type=positive, metavar="N", help="cut embeddings to N values")
    group.add_argument(
        "--truncation",
        choices=("warn", "error"),
        default="warn",
        help="texts that are too long are counted, or an error (default: %(default)s)",
    )
    group.add_argument("--batch-size", type=positive, default=32, metavar="N", help="(default: %(default)s)")
    group.add_argument(
        "--save-every",
        type=positive,
        metavar="N",
        help=f"texts between two saves (default: {_SAVE_EVERY})",
    )


def run(args: argparse.Namespace) -> None:
    """Do what the arguments say."""
    if args.engine == "ray":
        _run_on_ray(args)
        return
    texts, output = TextFile(Path(args.input), args.column), Path(args.output)
    check_suffix(output)
    if texts.path.resolve() == output.resolve():
        raise UsageError(f"{output}: expected another file than INPUT")
    Journal(output).check_name(overwrite=args.overwrite)
    # What cannot be read, or written in the end, is told before a model is loaded.
    stamp = texts.stamp
    schema = schema_for(output.suffix, texts)
    encoding = _file_encoding(args, load_model(args), texts, output)
    said = replace(encoding, stamp=stamp, schema=schema).run(overwrite=args.overwrite)
    sys.stderr.write(f"{said}\n")


def _file_encoding(args: argparse.Namespace, model: Any, texts: TextFile, output: Path) -> FileEncoding:
    """The way from texts to embeddings that the arguments describe."""
    from sentence_embedder.fingerprint import fingerprint_of

    encode = model.encode_query if args.query else model.encode_document if args.document else model.encode
    arguments = _encode_arguments(args)
    # Unless the model is calibrated, ranges are known at the end: until then embeddings stay as they are.
    is_after_all = args.precision in _AFTER_ALL and model.calibration is None
    kept_as = "float32" if is_after_all else args.precision
    save_every = args.save_every or _SAVE_EVERY
    return FileEncoding(
        texts=texts,
        output=output,
        encode=lambda chunk, cut: encode(
            chunk, precision=kept_as, show_progress_bar=False, truncation=cut, **arguments
        ),
        finished_as=args.precision if is_after_all else None,
        save_every=save_every,
        limit=model.get_max_seq_length(),
        truncation=args.truncation,
        settings={
            **arguments,
            "precision": args.precision,
            "column": args.column,
            "kind": "query" if args.query else "document" if args.document else None,
            "dtype": args.dtype,
            "device": model.device.type,
            "save-every": save_every,
            "model": fingerprint_of(model),
            "prompts": [model.prompts, model.default_prompt_name],
            "version": __version__,
            "calibration": None if model.calibration is None else model.calibration.to_dict(),
        },
    )


def _encode_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of ``encode``."""
    return {
        "prompt_name": args.prompt_name,
        "prompt": args.prompt,
        "batch_size": args.batch_size,
        "normalize_embeddings": args.normalize,
        "truncate_dim": args.truncate_dim,
    }


def _run_on_ray(args: argparse.Namespace) -> None:
    """Encode by ``encode_files``, from a file or folder to a folder of Parquet files."""
    unfit = {
        "--query": args.query,
        "--document": args.document,
        "--overwrite": args.overwrite,
        "--precision": args.precision in _AFTER_ALL,
        "--save-every": args.save_every is not None,
    }
    _check_ray(args, unfit)
    from sentence_embedder.cluster.files import encode_files

    done = encode_files(
        args.input,
        args.output,
        load_model(args),
        column=args.column or "text",
        num_gpus=1 if (args.device or "").startswith("cuda") else 0,
        shows_progress=sys.stderr.isatty(),
        precision=args.precision,
        truncation=args.truncation,
        **_encode_arguments(args),
    )
    said = f"{args.output}: {done.rows:,} texts in {done.blocks} files, {done.skipped} files before"
    sys.stderr.write(f"{said}\n")


def _check_ray(args: argparse.Namespace, unfit: Mapping[str, bool]) -> None:
    wrong = [option for option, is_given in unfit.items() if is_given]
    if wrong:
        raise UsageError(f"--engine ray does not take {', '.join(wrong)}: leave it out, or use --engine local")
    if PurePosixPath(args.output).suffix:
        raise UsageError(f"{args.output}: --engine ray writes a folder of Parquet files: name one without a suffix")
    if PurePosixPath(args.input).suffix.lower() not in _RAY_SUFFIXES:
        expected = ", ".join(suffix for suffix in _RAY_SUFFIXES if suffix)
        raise UsageError(f"{args.input}: --engine ray reads {expected}, or a folder of these")
