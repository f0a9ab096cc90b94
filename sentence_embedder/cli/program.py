"""The program ``sentence-embedder``: arguments → a command, its errors → a line and an exit code."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from sentence_embedder.cli import encode_command, info_command, search_command, similarity_command
from sentence_embedder.cli.usage_error import UsageError
from sentence_embedder.version import __version__

NAME = "sentence-embedder"
FAILURE, USAGE, INTERRUPTED = 1, 2, 130

_EXPECTED = (OSError, ValueError, TypeError, ImportError)
"""Errors whose message says all; those of other kinds are named."""

_EXAMPLES = """\
examples:
  sentence-embedder encode texts.txt embeddings.npy
  sentence-embedder search texts.txt --query "where is the cat?"
  sentence-embedder info all-MiniLM-L6-v2
  sentence-embedder similarity "the cat sat" "a dog sleeps"
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        argv: Its arguments; by default those of this process.

    Returns:
        The exit code: 0, 1 after a failure, 2 for wrong arguments, 130 after Ctrl-C.
    """
    args = argparse.Namespace(traceback=False, once_interrupted="")
    try:
        _parser().parse_args(argv, args)
        args.run(args)
        sys.stdout.flush()
    except SystemExit as stop:  # after --help, --version, or what is wrong
        return stop.code if isinstance(stop.code, int) else USAGE
    except KeyboardInterrupt:
        return _told(f"interrupted: {args.once_interrupted}".removesuffix(": "), INTERRUPTED)
    except BrokenPipeError:
        _close_output()
    except Exception as error:  # noqa: BLE001  # whatever it is, a line says it
        if args.traceback:
            traceback.print_exc()
        is_clear = isinstance(error, _EXPECTED) and str(error)
        message = str(error) if is_clear else f"{type(error).__name__}: {error}"
        return _told(" ".join(message.split()), USAGE if isinstance(error, UsageError) else FAILURE)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Turn texts into vectors, and use them.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (encode_command, search_command, info_command, similarity_command):
        command.add_to(commands)
    for command_parser in commands.choices.values():
        command_parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    return parser


def _told(message: str, code: int) -> int:
    sys.stderr.write(f"{NAME}: {message}\n")
    return code


def _close_output() -> None:
    """Nobody reads any more: what is still to be written goes nowhere, without another error at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
