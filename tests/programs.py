"""Programs of tests, each in a process of its own that does not outlive its time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]

_SECONDS = 100


def run_program(program: str, *arguments: str) -> str:
    """What a program prints that is done in time, succeeds, and complains of nothing.

    What hangs says where, and fails.
    """
    beginning = f"import faulthandler\nfaulthandler.dump_traceback_later({_SECONDS}, exit=True)\n"
    # Python 3.12 warns of each fork beside threads, which is what is tested.
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, *warnings, "-c", beginning + textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        timeout=2 * _SECONDS,
        check=False,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout
