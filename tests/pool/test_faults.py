"""What goes wrong with processes: nothing hangs, nothing is mixed up, nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sentence_embedder import EncodePool, PoolError, SentenceTransformer
from sentence_embedder.pool import encode_pool, worker
from sentence_embedder.pool.encode_pool import _Member
from sentence_embedder.pool.shared_file import SharedFile
from tests.pool.deadline import within
from tests.pool.misbehaving import Slow, Unloadable, misbehaving_model

pytestmark = pytest.mark.xdist_group("faults of pools")  # which share processes

Encode = Callable[..., list[list[float]]]

ROOT = Path(__file__).parents[2]
_SECONDS_TO_END = 5.0
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    """A model that does what its texts say."""
    return misbehaving_model()


@pytest.fixture(scope="module")
def pool(model: SentenceTransformer) -> Iterator[EncodePool]:
    """Two processes that have it."""
    with EncodePool(model, ["cpu", "cpu"]) as pool:
        yield pool


@pytest.fixture(scope="module")
def encode(model: SentenceTransformer, pool: EncodePool) -> Encode:
    """Texts through the pool, one a chunk, within a minute."""

    def encode(texts: list[str], chunk_size: int = 1) -> list[list[float]]:
        result = within(60, lambda: model.encode(texts, pool=pool, chunk_size=chunk_size))
        return result.tolist()  # type: ignore[no-any-return]

    return encode


def expected(texts: list[str]) -> list[list[float]]:
    """How the model embeds texts that are no orders."""
    return [[float(len(text)), float(ord(text[0]))] for text in texts]


TEXTS = [letter * (place + 1) for place, letter in enumerate("abcdefghij")]


@pytest.mark.parametrize(
    ("order", "name", "cause"),
    [
        ("raise", "ValueError: this text was to fail", ValueError),
        ("raise unpicklable", "UnpicklableError: no pickle takes this", type(None)),
        ("raise treacherous", "TreacherousError: no pickle gives this back", type(None)),
        ("exit", "SystemExit: 3", SystemExit),
    ],
)
def test_an_exception_comes_home(encode: Encode, order: str, name: str, cause: type) -> None:
    """What is raised in a worker is raised in the caller, whatever it is: with its traceback, the worker and the
    places of the texts; and the next call gets its own results.
    """
    texts = [*TEXTS[:4], order, *TEXTS[4:]]

    with pytest.raises(PoolError) as caught:
        encode(texts, chunk_size=2)

    assert caught.value.rows == range(4, 6)
    message = str(caught.value)
    assert "on cpu failed on texts 4 to 5" in message
    assert name in message
    assert "in _obeyed" in message
    assert isinstance(caught.value.__cause__, cause)
    assert encode(TEXTS) == expected(TEXTS)


def test_a_killed_worker_is_replaced(encode: Encode, tmp_path: Path) -> None:
    """The chunk of a worker that is killed is given to another, and every text gets its embedding."""
    texts = [*TEXTS, f"die unless {tmp_path / 'done'}", *TEXTS]

    assert encode(texts) == expected(texts)


def test_a_chunk_that_kills_is_given_up(encode: Encode) -> None:
    """A chunk over which a second worker is lost, too, ends the call with an error that says so; the pool goes
    on.
    """
    with pytest.raises(PoolError, match=r"(?s)texts 3 to 3: two workers were lost .*SIGKILL.*SIGKILL") as caught:
        encode([*TEXTS[:3], "die", *TEXTS[3:]])

    assert caught.value.rows == range(3, 4)
    assert encode(TEXTS) == expected(TEXTS)


def test_every_worker_killed_at_work(encode: Encode, pool: EncodePool, tmp_path: Path) -> None:
    """All workers can be killed in the middle of a job: others finish it."""
    started = [tmp_path / "one", tmp_path / "two"]
    texts = [*(f"touch {path}" for path in started), "sleep 0.5", "sleep 0.51", *TEXTS]

    def kill() -> None:
        while not all(path.exists() for path in started):
            time.sleep(0.02)
        time.sleep(0.1)
        for process in pool.processes:
            process.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    assert encode(texts) == expected(texts)
    thread.join()


def test_workers_killed_while_idle_are_replaced(encode: Encode, pool: EncodePool) -> None:
    """Workers that were killed when there was nothing to do are replaced before the next job."""
    encode(TEXTS)
    for process in pool.processes:
        process.kill()
        process.join()

    assert encode(TEXTS) == expected(TEXTS)


def test_a_worker_whose_child_survives_it_is_missed(model: SentenceTransformer, tmp_path: Path) -> None:
    """That a worker has ended is seen although a process that it has forked lives on."""
    with EncodePool(model, ["cpu"]) as pool:
        order = f"die unless {tmp_path / 'done'}"
        found = within(60, lambda: model.encode(["fork", order, "a"], pool=pool, chunk_size=1))

    assert found[:, 0].tolist() == [4, len(order), 1]


def test_a_worker_killed_while_it_loads_is_replaced(tmp_path: Path) -> None:
    """A worker that is killed before it has loaded the model is replaced like any other."""
    slow = SentenceTransformer(modules=[Slow(tmp_path / "started", 1.0)], device="cpu")
    with EncodePool(slow, ["cpu"]) as pool:
        _wait_for(tmp_path / "started")
        (process,) = pool.processes
        process.kill()

        assert within(60, lambda: slow.encode(["a"], pool=pool)).tolist() == [[1, 97]]


def test_a_pool_is_stopped_while_it_loads(tmp_path: Path) -> None:
    """``stop`` ends workers that are loading the model as well, and two threads may stop a pool: both return when
    nothing is left.
    """
    slow = SentenceTransformer(modules=[Slow(tmp_path / "started", 60)], device="cpu")
    pool = EncodePool(slow, ["cpu"])
    _wait_for(tmp_path / "started")
    (process,) = pool.processes
    pid = process.pid or 0
    begin = time.monotonic()
    threads = [threading.Thread(target=pool.stop) for _ in range(2)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_SECONDS_TO_END)

    assert time.monotonic() - begin < _SECONDS_TO_END
    assert not _runs(pid)


def test_a_pool_that_cannot_start_leaves_nothing(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If not all of a pool can be started, what was started is ended."""
    start = _Member.start
    started: list[_Member] = []

    def fails_second(member: _Member) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(member)
        start(member)

    monkeypatch.setattr(_Member, "start", fails_second)
    with pytest.raises(RuntimeError, match="can't start"):
        EncodePool(model, ["cpu", "cpu"])

    assert started[0].worker is None
    assert not started[0]._thread.is_alive()


def test_an_interrupted_stop_can_be_repeated(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a pool is being stopped leaves workers dismissed, the model given back, and ``stop`` usable."""
    pool = EncodePool(model, ["cpu"])

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(_Member, "join", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pool.stop()
    within(_SECONDS_TO_END, pool.stop)

    assert pool.processes == []


def test_a_stop_within_a_stop(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal's handler may stop a pool while the thread that it interrupts does so."""
    pool = EncodePool(model, ["cpu"])
    join, depth = _Member.join, []

    def interrupted(self: _Member, seconds: float) -> None:
        depth.append(1)
        if len(depth) == 1:
            pool.stop()
        join(self, seconds)

    monkeypatch.setattr(_Member, "join", interrupted)
    within(_SECONDS_TO_END, pool.stop)

    assert len(depth) == 2
    assert pool.processes == []


def test_an_idle_pool_keeps_no_texts(model: SentenceTransformer, pool: EncodePool) -> None:
    """What a call was given is not kept after it, nor after one that failed."""

    class Text(str):
        __slots__ = ("__weakref__",)

        def __reduce__(self) -> Any:
            return str, (str(self),)

    for order in ("hello", "raise"):
        texts: list[Any] = [Text(order)]
        kept = weakref.ref(texts[0])
        with contextlib.suppress(PoolError):
            model.encode(texts, pool=pool)
        del texts
        model.encode(TEXTS, pool=pool, chunk_size=1)  # until both workers have had something else
        gc.collect()
        assert kept() is None


def test_a_forked_process_does_not_wait_for_a_start() -> None:
    """A process that was forked while a worker was being started does not wait for the end of that start."""
    with worker._starting:  # as another thread would have it
        child = os.fork()
        if child == 0:
            code = 1
            with contextlib.suppress(BaseException):
                code = 0 if _starting_lock_is_free() else 2
            os._exit(code)

    assert within(60, lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) == 0


def _starting_lock_is_free() -> bool:
    free: bool = worker._starting.acquire(timeout=5)
    if free:
        worker._starting.release()
    return free


def test_an_error_of_the_caller_leaves_the_pool_usable(model: SentenceTransformer, pool: EncodePool) -> None:
    """If the caller fails while results come in, the next call gets its own results all the same."""

    class Failing:
        model = None

        def put(self, *_: Any) -> None:
            raise ZeroDivisionError

    from sentence_embedder.encoding.cut_texts import CutTexts
    from sentence_embedder.encoding.options import EncodeOptions
    from sentence_embedder.pool.request import Request

    request = Request(EncodeOptions(), {}, SentenceTransformer.encode)
    with pytest.raises(ZeroDivisionError):
        within(
            60,
            lambda: pool.run(
                request,
                TEXTS,
                Failing(),  # type: ignore[arg-type]
                _NoProgress(),
                cut=CutTexts(),
                chunk_size=1,
            ),
        )

    assert model.encode(TEXTS[5:], pool=pool).tolist() == expected(TEXTS[5:])


class _NoProgress:
    def update(self, n: float | None = 1) -> None:
        """Nothing."""


def test_what_cannot_be_sent_is_named(encode: Encode) -> None:
    """A text that no pickle takes ends the call, not the pool."""

    class Local(str):
        __slots__ = ()

        def __reduce__(self) -> Any:
            raise TypeError("not this one")

    with pytest.raises(PoolError, match="cannot be sent to a worker: not this one"):
        encode([Local("hello")])

    assert encode(TEXTS) == expected(TEXTS)


def test_a_model_that_cannot_be_loaded_is_an_error() -> None:
    """If no worker can load the model, the first call says why."""
    model = SentenceTransformer(modules=[Unloadable()], device="cpu")
    with (
        EncodePool(model, ["cpu"]) as pool,
        pytest.raises(PoolError, match=r"(?s)could not start: OSError: this module cannot be loaded.*There"),
    ):
        within(60, lambda: model.encode(["hello"], pool=pool))


def test_a_device_that_is_not_there_is_an_error(model: SentenceTransformer) -> None:
    """So does a device that this machine does not have."""
    with (
        EncodePool(model, ["cuda:63"]) as pool,
        pytest.raises(PoolError, match="worker 0 on cuda:63 could not start"),
    ):
        within(60, lambda: model.encode(["hello"], pool=pool))


def test_a_pool_is_stopped_at_work(model: SentenceTransformer, tmp_path: Path) -> None:
    """``stop`` ends workers that are computing, in five seconds, and those who wait for them get an error."""
    pool = EncodePool(model, ["cpu", "cpu"])
    caught: list[BaseException] = []

    def encode() -> None:
        try:
            model.encode([f"touch {tmp_path / 'started'}", "sleep 60", "sleep 61"], pool=pool, chunk_size=1)
        except PoolError as error:
            caught.append(error)

    thread = threading.Thread(target=encode)
    thread.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.02)
    begin = time.monotonic()

    pool.stop()

    assert time.monotonic() - begin < _SECONDS_TO_END
    thread.join(_SECONDS_TO_END)
    assert "stopped before all texts were encoded" in str(caught)
    with pytest.raises(PoolError, match="was stopped: start another one"):
        model.encode(["hello"], pool=pool)
    pool.stop()  # a second time it does nothing


@linux
def test_nothing_is_left_behind(model: SentenceTransformer) -> None:
    """Fifty pools that are started and stopped leave no process, no open file, no thread, no block and no
    memory.
    """

    def cycle(number: int) -> None:
        pool = EncodePool(model, ["cpu", "cpu"])
        if number % 10 == 0:
            assert model.encode(TEXTS, pool=pool).tolist() == expected(TEXTS)
        pool.stop()

    cycle(0)  # what Python itself starts once, for all processes
    gc.collect()
    before = _possessions()

    for number in range(50):
        within(60, lambda number=number: cycle(number))  # type: ignore[misc]

    gc.collect()
    after = _possessions()
    memory = after.pop("memory") - before.pop("memory")
    assert after == before
    assert memory < 20 * 2**20


def _possessions() -> dict[str, Any]:
    """What this process has of the system's."""
    resident = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGESIZE")
    return {
        "processes": len(multiprocessing.active_children()),
        "files": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
        "threads": threading.active_count(),
        "blocks": sorted(path.name for path in Path("/dev/shm").glob(f"*{os.getpid()}*")),  # noqa: S108
        "memory": resident,
    }


def test_a_forgotten_pool_ends_with_its_owner(model: SentenceTransformer) -> None:
    """The workers of a pool that nobody has any more end."""
    pool = EncodePool(model, ["cpu"])
    while not pool.processes:
        time.sleep(0.01)
    (process,) = pool.processes
    descriptor = os.pidfd_open(process.pid or 0) if hasattr(os, "pidfd_open") else None

    del pool
    gc.collect()

    assert descriptor is None or _has_ended(descriptor)


def _has_ended(descriptor: int) -> bool:
    try:
        return bool(multiprocessing.connection.wait([descriptor], timeout=_SECONDS_TO_END))
    finally:
        os.close(descriptor)


SCRIPT = """
import functools, os, signal, sys, threading, time
from sentence_embedder import EncodePool, PoolError
from tests.pool.misbehaving import misbehaving_model

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    model = misbehaving_model()
    pool = EncodePool(model, ["cpu", "cpu"])
    model.encode(["a", "bb"], pool=pool, chunk_size=1)
    print(*(process.pid for process in pool.processes), flush=True)
"""


def _script(
    tmp_path: Path, rest: str, *, prefix: tuple[str, ...] = (), body: str = SCRIPT
) -> subprocess.Popen[str]:
    """A process of its own, the first of its group, that runs a script."""
    path = tmp_path / "script.py"
    path.write_text(body + textwrap.indent(textwrap.dedent(rest), "    "), encoding="utf-8")
    return subprocess.Popen(
        [*prefix, sys.executable, str(path), str(tmp_path / "working")],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_ctrl_c_leaves_the_pool_usable(tmp_path: Path) -> None:
    """Ctrl-C, which every process of the terminal gets, interrupts the call alone: workers go on, and what they
    still make of the interrupted call is not mixed up with the next one.
    """
    process = _script(
        tmp_path,
        """
        pids = {worker.pid for worker in pool.processes}
        try:
            model.encode([f"touch {sys.argv[1]}", "sleep 1", "sleep 2"] * 7, pool=pool, chunk_size=1)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        print(model.encode(["ccc", "dddd"], pool=pool, chunk_size=1).tolist())
        print(pids == {worker.pid for worker in pool.processes})
        pool.stop()
        """,
    )
    assert process.stdout is not None
    process.stdout.readline()
    _wait_for(tmp_path / "working")

    os.killpg(process.pid, signal.SIGINT)

    output, errors = process.communicate(timeout=60)
    assert output.splitlines() == ["interrupted", "[[3.0, 99.0], [4.0, 100.0]]", "True"], errors
    assert process.returncode == 0


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "exit"])
def test_workers_end_with_their_parent(tmp_path: Path, ending: str) -> None:
    """However the process that started a pool ends, even killed, and whatever they do, no worker survives it for
    five seconds.
    """
    process = _script(
        tmp_path,
        f"""
        texts = [f"touch {{sys.argv[1]}}", *["sleep 60"] * 9]
        work = functools.partial(model.encode, texts, pool=pool, chunk_size=1)
        threading.Thread(target=work, daemon=True).start()
        time.sleep({0.5 if ending == "exit" else 60})
        """,
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    _wait_for(tmp_path / "working")

    if ending == "exit":
        assert process.wait(_SECONDS_TO_END + 5) == 0
    else:
        process.send_signal(getattr(signal, ending))
        process.wait(_SECONDS_TO_END)

    end = time.monotonic() + _SECONDS_TO_END
    while time.monotonic() < end and any(map(_runs, workers)):
        time.sleep(0.05)
    assert not any(map(_runs, workers))
    process.communicate()


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    """Whether there is such a process that still runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_script_without_a_guard_is_told(tmp_path: Path) -> None:
    """A script that starts a pool wherever it is imported fails, and says what it lacks, instead of starting others
    without end.
    """
    body = """
from tests.pool.misbehaving import misbehaving_model
if True:
    model = misbehaving_model()
    pool = model.start_multi_process_pool(["cpu"])
    print(model.encode(["a"], pool=pool))
"""
    process = _script(tmp_path, "", body=body)

    _, errors = process.communicate(timeout=60)

    assert process.returncode == 1
    # Not always in the last line: a worker that was just being started may have a word to say, too.
    said = [line for line in errors.splitlines() if "PoolError: " in line]
    assert any("if __name__ == '__main__':" in line for line in said)


STARTED_AT_THE_END = """
import atexit, os, threading
from multiprocessing import context, process, reduction

packed, ending, told = (threading.Event() for _ in range(3))

@atexit.register
def _wait_for_the_start():  # the first to be registered comes last
    ending.set()
    told.wait(30)

from tests.pool.misbehaving import misbehaving_model

dump = reduction.dump

def slow_dump(thing, file):
    dump(thing, file)
    if isinstance(thing, process.BaseProcess):
        handed_over = context.get_spawning_popen()._fds
        files = [os.fstat(descriptor).st_ino for descriptor in handed_over]
        packed.set()
        ending.wait()
        try:
            print([os.fstat(descriptor).st_ino for descriptor in handed_over] == files, flush=True)
        finally:
            told.set()

reduction.dump = slow_dump
if __name__ == "__main__":
    pool = misbehaving_model().start_multi_process_pool(["cpu"])
    assert packed.wait(30)
"""


@linux
def test_a_worker_that_is_started_while_the_process_ends(tmp_path: Path) -> None:
    """What a worker is handed stays open while it is started, whatever ends meanwhile. If another file got one of
    the numbers, that could be the pipe by which it would see that nobody starts it any more.
    """
    process = _script(tmp_path, "", body=STARTED_AT_THE_END)

    printed, errors = process.communicate(timeout=60)

    assert printed.split() == ["True"], errors
    assert process.returncode == 0, errors


SPAWNED_AT_THE_END = """
import threading, time
from multiprocessing import process, reduction, util
from tests.pool.misbehaving import misbehaving_model

dump, spawn, packed, spawned = reduction.dump, util.spawnv_passfds, threading.Event(), threading.Event()

def noted_dump(thing, file):
    dump(thing, file)
    if isinstance(thing, process.BaseProcess):
        packed.set()

def slow_spawn(*arguments):
    pid = spawn(*arguments)
    if packed.is_set():
        spawned.set()
        time.sleep(0.2)
    return pid

reduction.dump, util.spawnv_passfds = noted_dump, slow_spawn
if __name__ == "__main__":
    pool = misbehaving_model().start_multi_process_pool(["cpu"])
    assert spawned.wait(30)
"""


@linux
def test_a_worker_that_was_just_spawned_when_the_process_ends(tmp_path: Path) -> None:
    """A worker that multiprocessing does not know of yet is ended with the others, and has no say."""
    process = _script(tmp_path, "", body=SPAWNED_AT_THE_END)

    _, errors = process.communicate(timeout=60)

    assert process.returncode == 0
    assert errors == ""


SIGTERM_HANDLED = """
import tempfile
folder = tempfile.TemporaryDirectory()  # makes what ends with objects be called after multiprocessing has ended
import signal
from tests.pool.misbehaving import misbehaving_model

signal.signal(signal.SIGTERM, lambda *_: None)  # in workers, too
if __name__ == "__main__":
    model = misbehaving_model()
    pool = model.start_multi_process_pool(["cpu"])
    print(model.encode(["a"], pool=pool).tolist())
"""


def test_workers_that_do_not_mind_a_sigterm(tmp_path: Path) -> None:
    """At the end of the process workers are ended by what they cannot refuse, whatever a script does with them."""
    process = _script(tmp_path, "", body=SIGTERM_HANDLED)

    printed, errors = process.communicate(timeout=60)

    assert printed == "[[1.0, 97.0]]\n", errors
    assert process.returncode == 0


@linux
def test_a_stop_that_does_not_wait_for_a_start(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model stays open while a worker is being started with it, also if that takes longer than ``stop`` waits;
    then it is given back.
    """
    monkeypatch.setattr(encode_pool, "_SECONDS_TO_STOP", 0.01)
    start = worker._start
    starting, stopped = threading.Event(), threading.Event()
    files: list[os.stat_result] = []
    models: list[weakref.ref[SharedFile]] = []

    def slow_start(process: Any) -> None:
        shared: SharedFile = process._args[1].content
        models.append(weakref.ref(shared))
        files.append(os.stat(shared.path))  # noqa: PTH116  # no path in any folder
        starting.set()
        assert stopped.wait(60)
        files.append(os.stat(shared.path))  # noqa: PTH116
        start(process)

    monkeypatch.setattr(worker, "_start", slow_start)
    pool = EncodePool(model, ["cpu"])
    assert starting.wait(60)
    pool.stop()
    stopped.set()
    pool._crew._members[0]._thread.join(60)

    assert os.path.samestat(*files)
    assert models[0]() is None


@linux
def test_a_process_without_standard_streams(tmp_path: Path) -> None:
    """Where they are closed, nothing of a pool gets their numbers: what is written there would go into it."""
    process = _script(
        tmp_path,
        """
        found = {os.readlink(f"/proc/{pid}/fd/{number}")
                 for pid in (os.getpid(), pool.processes[0].pid) for number in range(3)}
        print(*found, file=open(sys.argv[1], "w"), flush=True)
        pool.stop()
        """,
        prefix=("sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh"),
    )

    process.communicate(timeout=60)

    assert (tmp_path / "working").read_text() == "/dev/null\n"


def test_a_forked_process_has_no_pool(model: SentenceTransformer, pool: EncodePool) -> None:
    """A process that was forked while there was a pool does not wait for workers that are not its own, and its end
    does not end them.
    """
    pool.run  # noqa: B018
    child = os.fork()
    if child == 0:
        code = 1
        try:
            model.encode(["hello"], pool=pool)
        except PoolError as error:
            code = 0 if "forked" in str(error) else 2
        pool.stop()
        os._exit(code)

    assert within(60, lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])) == 0
    assert model.encode(TEXTS, pool=pool).tolist() == expected(TEXTS)


def test_a_forked_process_that_ends_by_itself(tmp_path: Path) -> None:
    """A process that was forked, and comes to its end like any other, does not take the workers with it."""
    script = _script(
        tmp_path,
        """
        before = [process.pid for process in pool.processes]
        child = os.fork()
        if child == 0:
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(all(process.is_alive() for process in pool.processes))
        model.encode(["a", "bb"], pool=pool, chunk_size=1)
        print([process.pid for process in pool.processes] == before)
        pool.stop()
        """,
    )

    printed, errors = script.communicate(timeout=120)

    assert printed.split()[2:] == ["3", "True", "True"]
    assert "Traceback" not in errors


def test_a_pool_that_nobody_stops(tmp_path: Path) -> None:
    """A script that ends with a pool at work says nothing about it."""
    body = SCRIPT.replace('["cpu", "cpu"]', '["cpu"] * 4')
    script = _script(tmp_path, 'print("done")', body=body)

    printed, errors = script.communicate(timeout=120)

    assert printed.split()[-1] == "done"
    assert script.returncode == 0
    assert "Traceback" not in errors


@linux
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_full_dev_shm_does_not_matter(tmp_path: Path) -> None:
    """Where /dev/shm has no room at all, as in many containers, a pool works all the same."""
    inside = "mount -t tmpfs -o size=4k tmpfs /dev/shm && head -c 4096 /dev/zero > /dev/shm/full && exec "
    prefix = ("unshare", "--mount", "--map-root-user", "sh", "-c", f'{inside} "$@"', "sh")
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody mount anything")
    process = _script(
        tmp_path,
        """
        assert not os.statvfs("/dev/shm").f_bavail
        print(int(model.encode(["a" * 1000] * 5000, pool=pool).sum()))
        pool.stop()
        """,
        prefix=prefix,
    )

    output, errors = process.communicate(timeout=60)

    assert output.splitlines()[-1] == str(5000 * (1000 + 97)), errors
