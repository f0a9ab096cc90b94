"""Clients on sentence-transformers and on this package: what came of each, and how far it differs.

``python -m tests.clients.comparison`` prints the table of ``docs/compatibility.md``.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.clients.programs import PROGRAMS
from tests.minilm import minilm_folder

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients" / "bin" / "python"

_PACKAGES = {
    **dict.fromkeys(["langchain", "langchain_processes"], "langchain-huggingface"),
    **dict.fromkeys(["haystack", "haystack_precision"], "sentence-transformers-haystack"),
    "llama_index": "llama-index-embeddings-huggingface",
    "chroma": "chromadb",
    "setfit_folder": "setfit",
}
"""Program → the package of its client, where that has another name."""

_SILENT = {
    "HF_HUB_OFFLINE": "1",
    "ANONYMIZED_TELEMETRY": "False",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONPATH": str(ROOT),
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a program.

    Args:
        class_name: The class that it imported as ``sentence_transformers.SentenceTransformer``.
        result: What it said.
    """

    class_name: str
    result: Any


def run(program: str, *, here: bool) -> Outcome:
    """Run a program in the environment of the clients.

    Args:
        program: Its name.
        here: Whether it runs on this package, rather than on sentence-transformers.

    Raises:
        RuntimeError: It failed; what it printed is in the message.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [PYTHON, "-W", "ignore", "-m", "tests.clients", program, minilm_folder(), out]
        done = subprocess.run(
            [str(part) for part in (*command, *(["--here"] if here else []))],
            cwd=folder,
            env={**os.environ, **_SILENT},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program}, here={here}:\n{done.stdout}{done.stderr}")
        facts = json.loads(out.read_text(encoding="utf-8"))
    return Outcome(class_name=facts["class"], result=facts["result"])


def difference(one: Any, other: Any, where: str = "") -> float:
    """The largest difference between two numbers at the same place.

    Raises:
        ValueError: Anything else differs.
    """
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return max((difference(one[key], other[key], f"{where}.{key}") for key in one), default=0.0)
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return max((difference(*pair, f"{where}[{place}]") for place, pair in pairs), default=0.0)
    if one != other:
        raise ValueError(f"{where}: {one!r:.200} is not {other!r:.200}")
    return 0.0


def versions(packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages in the environment of the clients."""
    program = (
        "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run([PYTHON, "-c", program, *packages], capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(done.stdout)
    return found


def package_of(program: str) -> str:
    """The package of the client."""
    return _PACKAGES.get(program, program)


def table() -> str:
    """The table: client, version, what was run, whether results are equal."""
    found = versions(sorted({*map(package_of, PROGRAMS), "sentence-transformers"}))
    lines = ["| client | version | what was run | results |", "|---|---|---|---|"]
    for name, program in PROGRAMS.items():
        try:
            differs = difference(run(name, here=False).result, run(name, here=True).result)
            said = f"equal to {differs:.0e}" if differs else "equal"
        except (RuntimeError, ValueError) as error:
            said = f"not equal: {str(error).splitlines()[-1]:.100}"
        what = (program.__doc__ or "").strip().rstrip(".")
        lines.append(f"| {package_of(name)} | {found[package_of(name)]} | {what} | {said} |")
    return "\n".join([*lines, "", f"Beside sentence-transformers {found['sentence-transformers']}."])


if __name__ == "__main__":
    print(table())  # noqa: T201
