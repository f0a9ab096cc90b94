"""``python -m sentence_embedder.compat script.py …``: a program for which sentence_transformers is this package."""

from __future__ import annotations

import sys

from sentence_embedder.compat import install
from sentence_embedder.compat.program import Program

_USAGE = "usage: python -m sentence_embedder.compat (script.py | -m module) [argument ...]"


def main(arguments: list[str]) -> None:
    """Run what the arguments name, with those that follow."""
    match arguments:
        case ["-h" | "--help"]:
            sys.stdout.write(f"{_USAGE}\n")
            return
        case ["-m", module, *rest]:
            program = Program(module, is_module=True)
        case [script, *rest] if not script.startswith("-"):
            program = Program(script)
        case _:
            sys.stderr.write(f"{_USAGE}\n")
            sys.exit(2)
    install()
    program.start(rest)


if __name__ == "__main__":
    main(sys.argv[1:])
