"""The process of an engine, as seen from outside: see ``worker.py``."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

_WORKER = Path(__file__).with_name("worker.py")
_MESSAGE_LENGTH = 300
"""Most characters of a failure that are reported."""


class WorkerError(RuntimeError):
    """An engine that cannot be started, that failed, or whose process died."""


class WorkerProcess:
    """A worker in the environment of an interpreter.

    Args:
        interpreter: The Python of that environment.
        environment: Variables for the process, beside those of this one.
        scratch: An existing folder; the process runs in it and its messages go there.
    """

    def __init__(self, interpreter: Path, *, environment: Mapping[str, str], scratch: Path) -> None:
        self._messages = tempfile.TemporaryFile("w+", dir=scratch, errors="replace")  # noqa: SIM115 (see close)
        self._process = subprocess.Popen(
            [str(interpreter), str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            env={**os.environ, **environment},
            cwd=scratch,
            text=True,
            encoding="utf-8",
        )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """What the worker answers to a command.

        Raises:
            WorkerError: The command failed, or the process died.
        """
        if self._process.stdin is None or self._process.stdout is None:
            raise WorkerError("the process was started without pipes")
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerError(self._last_words()) from error
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(" ".join(answer["error"].split())[:_MESSAGE_LENGTH])
        return answer["result"]

    @property
    def has_ended(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def close(self) -> None:
        """Let the process end, and wait until it has."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        self._messages.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._messages.seek(0)
        words = " ".join(self._messages.read().split())
        return f"the process ended with {code}: {words[-_MESSAGE_LENGTH:]}"
