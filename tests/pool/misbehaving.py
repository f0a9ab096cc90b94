"""A model whose texts tell its process what to do; it needs no transformers, so its workers start quickly."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sentence_embedder import SentenceTransformer
from sentence_embedder.features import Features


class UnpicklableError(Exception):
    """It holds what no pickle takes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class TreacherousError(Exception):
    """It can be pickled, but not read again."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first + second)


class Misbehaving(nn.Module):
    """Embeds a text as its length and its first letter, unless it is an order.

    ``fork`` leaves a process behind that sleeps; ``raise``, ``raise unpicklable``, ``raise treacherous``, ``exit``,
    ``die``; ``die unless PATH`` exists, which it then does; ``sleep SECONDS``; ``touch PATH``; ``threads``, which
    is embedded as the number of threads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def tokenize(self, texts: Sequence[str]) -> Features:
        """Obey, and measure."""
        return {"numbers": torch.tensor([_obeyed(text) for text in texts])}

    def forward(self, features: Features) -> Features:
        """The numbers as embeddings."""
        return {**features, "sentence_embedding": features["numbers"] * self.weight}


def _obeyed(text: str) -> list[float]:
    order, _, argument = text.partition(" ")
    if order == "raise":
        if argument == "unpicklable":
            raise UnpicklableError("no pickle takes this")
        if argument == "treacherous":
            raise TreacherousError("no pickle ", "gives this back")
        raise ValueError("this text was to fail")
    if order == "exit":
        raise SystemExit(3)
    if order == "sleep":
        time.sleep(float(argument))
    if order == "threads":
        return [float(torch.get_num_threads()), 0.0]
    if order == "fork" and os.fork() == 0:
        time.sleep(30)
        os._exit(0)
    if order == "touch":
        Path(argument).touch()
    if order == "die":
        path = Path(argument.removeprefix("unless "))
        if not argument or not path.exists():
            if argument:
                path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return [float(len(text)), float(ord(text[0]))]


class Slow(Misbehaving):
    """It takes some time to load, and before that says that it has begun.

    Args:
        started: A file that is made then.
        seconds: How long it takes.
    """

    def __init__(self, started: Path, seconds: float) -> None:
        super().__init__()
        self.started = started
        self.seconds = seconds

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.started.touch()
        time.sleep(self.seconds)


class Unloadable(nn.Module):
    """A module that no worker can load."""

    def tokenize(self, texts: Sequence[str]) -> Features:
        """Never called."""
        raise NotImplementedError

    def __setstate__(self, state: object) -> None:
        raise OSError("this module cannot be loaded")


def misbehaving_model() -> SentenceTransformer:
    """The model."""
    return SentenceTransformer(modules=[Misbehaving()], device="cpu", prompts={"query": "find the "})
