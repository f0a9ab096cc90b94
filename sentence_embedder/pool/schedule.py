"""Schedule: the jobs of a pool, and which chunk is computed next."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from typing import Any

from sentence_embedder.lock import Lock
from sentence_embedder.pool.failure import PoolError, WorkerLostError, first_to_last
from sentence_embedder.pool.request import Answer, Request

_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(eq=False)
class Job:
    """A call that wants texts encoded.

    Args:
        request: What it wants of each text.
        texts: The texts.
        chunks: The places of those that a worker encodes together, in the order in which they are handed out.
    """

    request: Request
    texts: Sequence[Any]
    chunks: deque[range]
    returned: deque[Task] = field(default_factory=deque)
    """Tasks whose worker was lost."""
    outcomes: SimpleQueue[tuple[range, Answer] | PoolError] = field(default_factory=SimpleQueue)
    """What the caller has not taken yet."""
    in_hand: int = 0
    """How many chunks were handed out whose result the caller has not taken."""

    def take(self, most_in_hand: int) -> Task | None:
        """The next task, if there is one and the caller is not too far behind."""
        # A caller who leaves forgets the job at any moment, in the middle of this, too.
        with contextlib.suppress(IndexError):
            if self.returned:
                return self.returned.popleft()
            if self.in_hand < most_in_hand:
                task = Task(self, self.chunks.popleft())
                self.in_hand += 1
                return task
        return None

    def forget(self) -> None:
        """Hand out nothing more."""
        self.chunks.clear()
        self.returned.clear()


@dataclass(frozen=True)
class Task:
    """A chunk of a job, for one worker.

    Args:
        job: The job.
        rows: The places of its texts.
        lost: What became of the worker that had it before, if it was lost.
    """

    job: Job
    rows: range
    lost: WorkerLostError | None = None

    @property
    def texts(self) -> Sequence[Any]:
        """The texts of the chunk."""
        return self.job.texts[self.rows.start : self.rows.stop]

    def succeed(self, answer: Answer) -> None:
        """Hand over what a worker made of it."""
        self.job.outcomes.put((self.rows, answer))

    def fail(self, error: PoolError) -> None:
        """End the job by an error."""
        # The frames of this thread would keep all texts as long as the caller keeps the error.
        self.job.outcomes.put(error.with_traceback(None))


class Schedule:
    """Which chunk is computed next: one of each job in turn, so that nobody waits for another's whole job.

    Callers and workers are threads of one process. A job whose caller has left is forgotten: what workers still
    make of it, nobody sees.

    Args:
        workers: How many there are. A caller who is slow to take results is not given more than two a worker.
    """

    def __init__(self, workers: int) -> None:
        self._most_in_hand = 2 * workers
        # Taken as the lock that it is: where the condition is, a Ctrl-C may leave it taken.
        self._lock = Lock()
        self._change = threading.Condition(self._lock)
        self._jobs: deque[Job] = deque()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether there will be no more tasks."""
        return self._is_closed

    def answers(
        self, request: Request, texts: Sequence[Any], chunks: Sequence[range]
    ) -> Generator[tuple[range, Answer], None, None]:
        """Have texts encoded: the answer to each chunk, in the order in which they are ready.

        Args:
            request: What is wanted.
            texts: The texts.
            chunks: The places of those that a worker encodes together.

        Raises:
            PoolError: A worker failed, or was lost, and then another one with the same chunk; or the pool was
                stopped.
        """
        job = Job(request, texts, deque(chunks))
        try:
            with self._lock:
                if self._is_closed:
                    raise PoolError("the pool was stopped: start another one")
                self._jobs.append(job)
                self._change.notify_all()
            for _ in chunks:
                outcome = job.outcomes.get()
                if isinstance(outcome, PoolError):
                    raise outcome
                with self._lock:
                    job.in_hand -= 1
                    self._change.notify_all()
                yield outcome
        finally:
            try:
                job.forget()
            finally:  # also if it is interrupted
                with self._lock:
                    if job in self._jobs:
                        self._jobs.remove(job)

    def take(self) -> Task | None:
        """The next task, as soon as there is one; None when the schedule is closed."""
        with self._lock:
            while not self._is_closed:
                for _ in range(len(self._jobs)):
                    job = self._jobs[0]
                    self._jobs.rotate(-1)
                    task = job.take(self._most_in_hand)
                    if task is not None:
                        return task
                # Not for ever: the garbage collector may close it in this thread, just before it waits.
                self._change.wait(_SECONDS_BETWEEN_LOOKS)
            return None

    def lose(self, task: Task, error: WorkerLostError) -> None:
        """Say that a worker was lost over a task: another one gets it, but only once."""
        if task.lost is not None:
            task.fail(
                PoolError(
                    f"texts {first_to_last(task.rows)}: two workers were lost over them. {task.lost}; {error}",
                    task.rows,
                )
            )
            return
        with self._lock:
            task.job.returned.append(replace(task, lost=error))
            self._change.notify_all()

    def close(self) -> None:
        """End all jobs: there are no more tasks."""
        with self._lock:
            self._is_closed = True
            for job in self._jobs:
                job.outcomes.put(PoolError("the pool was stopped before all texts were encoded"))
            self._change.notify_all()
