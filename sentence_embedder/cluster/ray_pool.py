"""RayPool: a pool whose workers are anywhere in a cluster."""

from __future__ import annotations

import contextlib
import logging
import time
import weakref
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any

import numpy as np
from torch import nn

from sentence_embedder.cluster.shipped_model import Resources, ShippedModel, connected_ray
from sentence_embedder.encoding.collector import Collector
from sentence_embedder.encoding.cut_texts import CutTexts
from sentence_embedder.latch import Latch
from sentence_embedder.lock import Lock
from sentence_embedder.pool.encode_pool import chunks_of
from sentence_embedder.pool.failure import Failure, PoolError, first_to_last
from sentence_embedder.pool.request import Answer, Request
from sentence_embedder.pool.worker_process import reply_to
from sentence_embedder.progress import Progress

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN_WARNINGS = 30.0
_MOST_RESTARTS = 10
"""What kills an actor whenever it loads the model must come to an end."""


class _Actor:
    """A worker somewhere in the cluster."""

    def __init__(self) -> None:
        self._model: Any = None

    def load(self, shipped: ShippedModel) -> Failure | None:
        """Load the model, if that was not done before; why it cannot be, if it cannot."""
        if self._model is None:
            try:
                self._model = shipped.loaded()
            except Exception as error:  # noqa: BLE001  # it is the caller's
                return Failure.of(error)
        return None

    def reply_to(self, shipped: ShippedModel, request: Request, texts: Sequence[Any]) -> Answer | Failure:
        """What the model makes of a chunk of texts, or why it does not."""
        # An actor that was started again in the meantime has no model.
        return self.load(shipped) or reply_to(self._model, request, texts)


class RayPool:
    """Actors of Ray, on any machines of a cluster, that encode texts with one model: ``encode(texts, pool=pool)``.

    As with ``EncodePool``, the actors have the model as it is when the pool is started, several threads may use one
    pool, what an actor raises is raised in the caller, and the chunk of an actor that is lost, with its machine
    say, is given to another one, once. Lost actors are started again where there is room.

    Args:
        model: The SentenceTransformer.
        workers: How many actors; by default as many as the machines of the cluster have room for.
        num_cpus: Cores, and threads, of each.
        num_gpus: GPUs of each.

    Raises:
        ImportError: Ray is not installed.
        ValueError: No machine has room for an actor, or there are to be none.

    Example:
        >>> with RayPool(model, num_gpus=1) as pool:  # doctest: +SKIP
        ...     embeddings = model.encode(texts, pool=pool)
    """

    def __init__(
        self, model: nn.Module, workers: int | None = None, *, num_cpus: float = 1, num_gpus: float = 0
    ) -> None:
        self._ray = connected_ray()
        resources = Resources(num_cpus, num_gpus)
        actor = self._ray.remote(
            num_cpus=num_cpus, num_gpus=num_gpus, max_restarts=_MOST_RESTARTS, max_task_retries=0
        )(_Actor)
        count = resources.room() if workers is None else workers
        if count < 1:
            raise ValueError(f"workers: expected at least 1, found {count}")
        self._model = weakref.ref(model)
        self._shipped = ShippedModel.of(model, resources)
        self._actors = [actor.remote() for _ in range(count)]
        self._stopped = Latch()
        self._turn = Lock()
        self._loading = [actor.load.remote(self._shipped) for actor in self._actors]  # ahead of the first call

    @property
    def model(self) -> nn.Module | None:
        """The model that was given to the actors, if its owner still has it."""
        return self._model()

    def run(
        self,
        request: Request,
        texts: Sequence[Any],
        collector: Collector,
        progress: Progress,
        *,
        cut: CutTexts,
        chunk_size: int | None = None,
    ) -> None:
        """Have texts encoded; arguments as for ``Pool``.

        Raises:
            PoolError: An actor failed, or could not start; a chunk was lost twice; or the pool was stopped.
        """
        if self._stopped.is_open:
            raise PoolError("the pool was stopped: start another one")
        chunks = chunks_of(len(texts), len(self._actors), chunk_size)
        with self._turn:
            for rows, answer in _Run(self._actors, self._shipped, self._stopped, request, texts, chunks):
                cut.add(answer.cut + rows.start)
                collector.put(np.arange(rows.start, rows.stop), answer.results())
                progress.update(len(rows))

    def stop(self) -> None:
        """End the actors, whatever they are doing; calls that wait for them get a PoolError."""
        if self._stopped.is_open:
            return
        self._stopped.open()
        if self._ray.is_initialized():  # else they have ended with the connection
            for actor in self._actors:
                with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
                    self._ray.kill(actor)

    def __enter__(self) -> RayPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Run:
    """A call that has texts encoded: an iterator over the places of each chunk's texts and what was made of them.

    Every actor has one question at a time: a chunk, or to load the model, which it is asked at first and when it
    was lost. So no chunk waits for an actor that has no place to start again.

    Args:
        actors: The actors.
        shipped: Their model.
        stopped: Open when the pool is stopped.
        request: What is wanted.
        texts: The texts.
        chunks: The places of those that an actor encodes together.
    """

    def __init__(
        self,
        actors: Sequence[Any],
        shipped: ShippedModel,
        stopped: Latch,
        request: Request,
        texts: Sequence[Any],
        chunks: Sequence[range],
    ) -> None:
        self._ray = connected_ray()
        self._shipped = shipped
        self._stopped = stopped
        self._request = request
        self._texts = texts
        self._chunks = deque(chunks)
        self._left = len(chunks)
        self._lost: dict[range, str] = {}
        self._open: dict[Any, tuple[Any, range | None]] = {}
        """A question → who was asked, and for which chunk, if it was one."""
        self._idle: list[Any] = []
        self._last_work = time.monotonic()
        if chunks:
            for actor in actors:
                self._ask_to_load(actor)

    def __iter__(self) -> _Run:
        return self

    def __next__(self) -> tuple[range, Answer]:
        while self._left:
            found = self._next_answer()
            if found is not None:
                self._left -= 1
                return found
        raise StopIteration

    def _next_answer(self) -> tuple[range, Answer] | None:
        """What comes next, if it is the answer to a chunk."""
        while self._idle and self._chunks:
            self._ask(self._idle.pop(), self._chunks.popleft())
        self._warn_if_nobody_works()
        ready, _ = self._ray.wait(list(self._open), timeout=_SECONDS_BETWEEN_WARNINGS)
        if not ready:
            return None
        (question,) = ready
        actor, rows = self._open.pop(question)
        try:
            reply = self._ray.get(question)
        except self._ray.exceptions.RayTaskError as error:
            raise PoolError(f"an actor could not take its part: {error}", rows) from error
        except self._ray.exceptions.RayError as error:
            self._lose(actor, rows, error)
            return None
        self._idle.append(actor)
        if isinstance(reply, Failure):
            raise reply.error("an actor", rows)
        if rows is None:
            return None
        # What lies in the object store cannot be written to, and stays there as long as it is used.
        return rows, replace(reply, numbers=reply.numbers.copy())

    def _warn_if_nobody_works(self) -> None:
        now = time.monotonic()
        if any(rows for _, rows in self._open.values()):
            self._last_work = now
        elif now - self._last_work > _SECONDS_BETWEEN_WARNINGS:
            self._last_work = now
            logger.warning("no actor is ready: the cluster has room for %s", self._ray.available_resources())

    def _ask(self, actor: Any, rows: range) -> None:
        texts = self._texts[rows.start : rows.stop]
        self._open[actor.reply_to.remote(self._shipped, self._request, texts)] = (actor, rows)

    def _ask_to_load(self, actor: Any) -> None:
        self._open[actor.load.remote(self._shipped)] = (actor, None)

    def _lose(self, actor: Any, rows: range | None, error: Exception) -> None:
        """Give the chunk of an actor that was lost to another one, and have it load the model when it is back."""
        if self._stopped.is_open:
            raise PoolError("the pool was stopped before all texts were encoded") from error
        how = str(error).strip().partition("\n")[0] or type(error).__name__
        if rows is not None:
            if rows in self._lost:
                raise PoolError(
                    f"texts {first_to_last(rows)}: two actors were lost over them. {self._lost[rows]}; {how}", rows
                ) from error
            self._lost[rows] = how
            self._chunks.appendleft(rows)
        # Others may have gone with it, unseen as long as they are idle; the chunk is for one that is there.
        for idle in self._idle:
            self._ask_to_load(idle)
        self._idle.clear()
        # An actor that is coming back says so, or waits; one that has ended for good does not take this question.
        if rows is not None or not isinstance(error, self._ray.exceptions.ActorDiedError):
            self._ask_to_load(actor)
        elif not self._open:
            raise PoolError(f"no actor is left: {error}") from error
