"""What runs in a worker process, and what travels between it and its pool."""

from __future__ import annotations

import io
import os
import pickle
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch

from sentence_embedder.pool.failure import Failure
from sentence_embedder.pool.request import Answer, Request
from sentence_embedder.pool.shared_file import SharedFile

_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class PackedModel:
    """A model as it is sent to workers: its weights lie once in memory, however many workers there are.

    Args:
        content: What ``torch.save`` wrote, in a file, or where files cannot be shared as bytes.
    """

    content: SharedFile | bytes

    @staticmethod
    def of(model: torch.nn.Module) -> PackedModel:
        """Pack a model, which stays as it is.

        Raises:
            Exception: Something in it cannot be pickled.
        """
        shared = SharedFile.create("sentence-embedder-model")
        if shared is not None:
            try:
                with open(shared.path, "wb") as file:  # noqa: PTH123  # no path in any folder
                    torch.save(model, file)
            except OSError:  # no such paths here, or no room
                shared.close()
            else:
                return PackedModel(shared)
        written = io.BytesIO()
        torch.save(model, written)
        return PackedModel(written.getvalue())

    @property
    def given(self) -> PackedModel | None:
        """What a worker is given of it when it starts.

        A process that starts another waits until that has taken what it is given, and all others meanwhile: bytes
        are too much.
        """
        return self if self.sent is None else None

    @property
    def sent(self) -> bytes | None:
        """What a worker is sent of it afterwards."""
        return self.content if isinstance(self.content, bytes) else None

    def unpacked(self, device: torch.device) -> Any:
        """The model, its weights on a device; on the CPU they stay where they are until somebody writes to them."""
        # This process was started by the one that packed it.
        if isinstance(self.content, bytes):
            return torch.load(io.BytesIO(self.content), map_location=device, weights_only=False)
        return torch.load(self.content.path, mmap=True, map_location=device, weights_only=False)

    def close(self) -> None:
        """Leave it to the workers that have it."""
        if isinstance(self.content, SharedFile):
            self.content.close()


@dataclass(frozen=True)
class _Ready:
    """The worker has its model."""


@dataclass(frozen=True)
class _FiledAnswer:
    """An answer whose numbers lie in the file of the answers.

    Args:
        answer: The answer, without them.
        shape: Their shape.
        dtype: Their format.
    """

    answer: Answer
    shape: tuple[int, ...]
    dtype: str


def receive(connection: Connection, answers: SharedFile | None) -> Any:
    """What a worker has sent: whether it is ready, an Answer, or a Failure."""
    reply = pickle.loads(connection.recv_bytes())  # noqa: S301  # from a process that this one has started
    if isinstance(reply, _FiledAnswer) and answers is not None:
        return replace(reply.answer, numbers=answers.read(reply.shape, np.dtype(reply.dtype)))
    return reply


def main(
    connection: Connection, model: PackedModel | None, answers: SharedFile | None, device: str, threads: int
) -> None:
    """Load a model, and encode what comes, until nothing comes any more.

    Args:
        connection: Where it comes from.
        model: What was ``given`` of the model; what was ``sent`` comes first.
        answers: A file that takes the numbers of an answer; without one, or when there is no room, they go the way
            of all messages.
        device: Where to compute.
        threads: How many threads to compute with.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "register_at_fork"):
        # What a module forks must not keep the pool from seeing that this process has ended.
        os.register_at_fork(after_in_child=connection.close)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is for the caller, who decides what becomes of the pool
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))  # the tokenizer's
    torch.set_num_threads(threads)
    if model is None:
        try:
            model = PackedModel(connection.recv_bytes())
        except EOFError:
            return
    try:
        loaded = model.unpacked(torch.device(device))
    except BaseException as error:  # noqa: BLE001  # it is the caller's
        _send(connection, Failure.of(error))
        return
    model.close()
    _send(connection, _Ready())
    while True:
        try:
            message = connection.recv_bytes()
        except EOFError:
            return
        _send(connection, _reply(loaded, message, answers))


def reply_to(model: Any, request: Request, texts: Sequence[Any]) -> Answer | Failure:
    """What a model makes of a chunk of texts, or why it does not."""
    try:
        return request.answered_by(model, texts)
    except BaseException as error:  # noqa: BLE001  # it is the caller's
        return Failure.of(error)


def _reply(model: Any, message: bytes, answers: SharedFile | None) -> Any:
    try:
        request, texts = pickle.loads(message)  # noqa: S301  # from the process that started this one
    except Exception as error:  # noqa: BLE001  # it is the caller's
        return Failure.of(error)
    reply = reply_to(model, request, texts)
    if isinstance(reply, Answer) and answers is not None and answers.write(reply.numbers):
        return _FiledAnswer(replace(reply, numbers=reply.numbers[:0]), reply.numbers.shape, reply.numbers.dtype.str)
    return reply


def _send(connection: Connection, reply: Any) -> None:
    connection.send_bytes(pickle.dumps(reply, protocol=pickle.HIGHEST_PROTOCOL))


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, in whatever way."""
    parent = parent_process()
    while parent is not None:
        # Others may hold what tells of its end, so who the parent is, is asked, too.
        wait([parent.sentinel], timeout=_SECONDS_BETWEEN_LOOKS)
        if not parent.is_alive() or os.getppid() != parent.pid:
            os._exit(1)
