"""Folders that are replaced as a whole."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from sentence_embedder import SentenceTransformer, atomic_folder
from sentence_embedder.atomic_folder import replacing

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).parents[1]

Exchange = Callable[[Path, Path], bool]


def of_model(inside: PurePosixPath) -> bool:
    """What goes, in these tests."""
    return inside.name.startswith("model")


def contents(folder: Path) -> dict[str, bytes]:
    """Path → bytes of everything in a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def replace(folder: Path, **files: str) -> None:
    """Replace a folder by one with these files, whose names end in ``.txt``."""
    with replacing(folder, of_model) as partial:
        for name, text in files.items():
            (partial / f"{name}.txt").write_text(text)


@pytest.fixture(params=["in one step", "by two renames"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How folders change places: as this system can do it, or as others must."""
    if request.param == "by two renames":
        monkeypatch.setattr(atomic_folder, "_exchange", lambda *_: False)
    return str(request.param)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model and what else a user has put there."""
    folder = tmp_path / "room" / "folder"
    (folder / "notes" / "empty").mkdir(parents=True)
    (folder / "notes" / "a.txt").write_text("mine")
    (folder / "link").symlink_to("notes/a.txt")
    (folder / "model_part").mkdir()
    (folder / "model_part" / "b.txt").write_text("old")
    (folder / "model.txt").write_text("old")
    return folder


# ── What is there at the end ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("exchange")
def test_the_model_goes_and_the_rest_stays(folder: Path) -> None:
    """Of the old folder what is not the model's is in the new one: files, links, folders without files."""
    folder.chmod(0o750)

    replace(folder, model="new", model_more="new")

    assert contents(folder) == {
        "model.txt": b"new",
        "model_more.txt": b"new",
        "notes/a.txt": b"mine",
        "link": b"mine",
    }
    assert (folder / "link").readlink() == Path("notes/a.txt")
    assert (folder / "notes" / "empty").is_dir()
    assert folder.stat().st_mode & 0o777 == 0o750
    assert names(folder.parent) == ["folder"]


def test_this_system_exchanges_folders_in_one_step(folder: Path, tmp_path: Path) -> None:
    """The two folders change places; where nothing is, that is an error."""
    (tmp_path / "other").mkdir()

    assert atomic_folder._exchange(folder, tmp_path / "other")

    assert names(folder) == []
    assert (tmp_path / "other" / "model.txt").exists()
    with pytest.raises(FileNotFoundError):
        atomic_folder._exchange(folder, tmp_path / "nothing")


def test_files_that_are_being_written_stay_the_same(folder: Path) -> None:
    """A log beside the model goes on in the new folder, as it is the same file."""
    with (folder / "notes" / "log.txt").open("a") as log:
        replace(folder, model="new")
        log.write("goes on")

    assert (folder / "notes" / "log.txt").read_text() == "goes on"


@pytest.mark.usefixtures("exchange")
def test_what_appears_meanwhile_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What somebody puts beside the model after the new folder was filled is in it, too, but nothing of a model."""
    flush = atomic_folder.flush

    def meanwhile(partial: Path) -> None:
        flush(partial)
        (folder / "metrics.json").write_text("{}")
        (folder / "runs").mkdir()
        (folder / "runs" / "1.log").write_text("begun")
        (folder / "model_late.txt").write_text("of the old model")

    monkeypatch.setattr(atomic_folder, "flush", meanwhile)

    replace(folder, model="new")

    assert contents(folder) == {
        "model.txt": b"new",
        "notes/a.txt": b"mine",
        "link": b"mine",
        "metrics.json": b"{}",
        "runs/1.log": b"begun",
    }
    assert names(folder.parent) == ["folder"]


def test_a_file_that_is_there_for_a_moment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that somebody removes while it is being kept is no error."""
    link = os.link

    def removing(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name == "a.txt":
            path.unlink()
        link(path, *args, **kwargs)

    monkeypatch.setattr(os, "link", removing)

    replace(folder, model="new")

    assert sorted(contents(folder)) == ["model.txt"]


@pytest.mark.usefixtures("exchange")
def test_owner_group_and_mode_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder, and those in it that stay, keep owner, group and mode, as far as the user may give them."""
    asked: list[tuple[str, int, int]] = []
    owner, group = folder.stat().st_uid, folder.stat().st_gid
    (folder / "notes").chmod(0o500)
    folder.chmod(0o2775)

    def chown(path: Path, uid: int, gid: int) -> None:
        asked.append((path.name, uid, gid))
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)

    replace(folder, model="new")

    assert {asking[1:] for asking in asked if asking[0] == "notes"} == {(-1, group), (owner, -1)}
    assert {asking[1:] for asking in asked if asking[0].startswith(".folder")} == {(-1, group), (owner, -1)}
    assert (folder / "notes").stat().st_mode & 0o7777 == 0o500
    assert folder.stat().st_mode & 0o7777 == 0o2775


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only the superuser gives folders away")
@pytest.mark.usefixtures("exchange")
def test_a_folder_of_somebody_else(folder: Path) -> None:
    """The folder that the superuser saves into stays that of its owner and group, and what is made in it has the
    group if the folder says so.
    """
    for path in (folder, folder / "notes"):
        os.chown(path, 1234, 2345)
    folder.chmod(0o2775)

    replace(folder, model="new")

    for path in (folder, folder / "notes"):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 2345)
    assert (folder / "model.txt").stat().st_gid == 2345


def test_without_second_names_files_are_copied(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which no file can have two names copies what stays."""

    def link(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)

    replace(folder, model="new")

    assert (folder / "notes" / "a.txt").read_text() == "mine"
    assert (folder / "link").is_symlink()


@pytest.mark.parametrize("name", ["new", "deep/er/new"])
def test_a_new_folder(name: str, tmp_path: Path) -> None:
    """A folder that was not there appears when it is whole, under the rights that the user's folders have."""
    (tmp_path / "usual").mkdir()

    with replacing(tmp_path / name, of_model) as partial:
        (partial / "model.txt").write_text("new")
        assert not (tmp_path / name).exists()

    assert contents(tmp_path / name) == {"model.txt": b"new"}
    assert (tmp_path / name).stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.usefixtures("exchange")
def test_a_link_stays_a_link(folder: Path, tmp_path: Path) -> None:
    """What a link leads to is replaced."""
    (tmp_path / "latest").symlink_to(folder)

    replace(tmp_path / "latest", model="new")

    assert (tmp_path / "latest").is_symlink()
    assert (folder / "model.txt").read_text() == "new"


def test_files_that_are_links(folder: Path, tmp_path: Path) -> None:
    """A model whose files are links, as in the cache of the Hub, goes; what they lead to is not written into."""
    (tmp_path / "blob").write_text("of another snapshot, too")
    (folder / "model.txt").unlink()
    (folder / "model.txt").symlink_to(tmp_path / "blob")

    replace(folder, model="new")

    assert not (folder / "model.txt").is_symlink()
    assert (tmp_path / "blob").read_text() == "of another snapshot, too"


@pytest.mark.parametrize("place", ["the current folder", "around it", "a mount point", "around one"])
def test_a_folder_that_cannot_change_its_place(place: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It stays the same folder, and its files are replaced one by one."""
    before = folder.stat().st_ino
    if "current" in place or place == "around it":
        monkeypatch.chdir(folder if "current" in place else folder / "notes")
    else:
        mount = folder if place == "a mount point" else folder / "notes"
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == mount)

    replace(folder, model="new", model_more="new")

    assert folder.stat().st_ino == before
    assert sorted(contents(folder)) == ["link", "model.txt", "model_more.txt", "notes/a.txt"]
    assert (folder / "model.txt").read_text() == "new"


def test_a_folder_beside_which_nothing_can_be_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So it is where the folder around it may not be written."""
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != folder.parent)
    before = folder.stat().st_ino

    replace(folder, model="new")

    assert folder.stat().st_ino == before
    assert (folder / "model.txt").read_text() == "new"


def test_within_a_folder_that_is_being_written(tmp_path: Path) -> None:
    """What is itself part of such a folder is filled as it is."""
    with replacing(tmp_path / "outer", of_model) as outer, replacing(outer, of_model) as inner:
        assert inner == outer


def test_a_file_of_that_name(tmp_path: Path) -> None:
    """A file is not replaced by a folder."""
    (tmp_path / "file").write_text("mine")

    with pytest.raises(NotADirectoryError, match="file: expected a folder, or nothing, found a file"):
        replace(tmp_path / "file", model="new")

    assert (tmp_path / "file").read_text() == "mine"


# ── Errors ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("is_current", [False, True])
def test_an_error_leaves_the_old_one(
    kind: type[BaseException], is_current: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends the writing, the old folder is as it was, and nothing else is left."""
    if is_current:
        monkeypatch.chdir(folder)
    before = contents(folder)

    def fail() -> None:
        with replacing(folder, of_model) as partial:
            (partial / "model.txt").write_text("half")
            raise kind

    with pytest.raises(kind):
        fail()

    assert contents(folder) == before
    assert names(folder.parent) == ["folder"]


def test_a_rename_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the new one cannot get the name, the old one gets it back."""
    monkeypatch.setattr(atomic_folder, "_exchange", lambda *_: False)
    before, rename = contents(folder), Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.suffix == ".partial":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)

    with pytest.raises(OSError, match="Input/output error"):
        replace(folder, model="new")

    assert contents(folder) == before
    assert names(folder.parent) == ["folder"]


# ── Others who write ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.usefixtures("exchange")
def test_many_write_at_once(folder: Path) -> None:
    """Threads that write one folder at the same time all succeed; the last one's files are there, whole."""

    def write(writer: int) -> None:
        for turn in range(10):
            replace(folder, **{f"model_{part}": f"{writer} {turn}" for part in range(5)})

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))

    written = {path: text for path, text in contents(folder).items() if path.startswith("model")}
    assert len(written) == 5
    assert len({*written.values()}) == 1
    assert (folder / "notes" / "a.txt").read_text() == "mine"
    assert names(folder.parent) == ["folder"]


@pytest.mark.skipif(fcntl is None, reason="needs locks on folders")
def test_who_clears_away_waits_for_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While somebody clears away, or changes places, beside a folder, others wait; not for ever, if that one stands
    still.
    """
    assert fcntl is not None
    number = os.open(folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        writer = threading.Thread(target=replace, args=(folder,), kwargs={"model": "new"})
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert names(folder.parent) == ["folder"]
        fcntl.flock(number, fcntl.LOCK_UN)
        writer.join(60)
        assert contents(folder)["model.txt"] == b"new"

        fcntl.flock(number, fcntl.LOCK_EX)
        monkeypatch.setattr(atomic_folder, "_LONGEST_WAIT", 0.05)
        replace(folder, model="newer")
        assert contents(folder)["model.txt"] == b"newer"
    finally:
        os.close(number)


@pytest.mark.skipif(fcntl is None, reason="needs locks on folders")
def test_a_process_that_was_forked_meanwhile_holds_no_lock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that another thread forks while a folder is locked has its lock open, and keeps nobody waiting."""
    monkeypatch.setattr(atomic_folder, "_LONGEST_WAIT", 60.0)
    children: list[int] = []
    lock = atomic_folder._lock

    def forking(locked: Path) -> int | None:
        number = lock(locked)
        if not children:
            children.append(os.fork())
            if children == [0]:
                time.sleep(120)
                os._exit(0)
        return number

    try:
        with monkeypatch.context() as patch:
            patch.setattr(atomic_folder, "_lock", forking)
            replace(folder, model="new")
        number = lock(folder.parent)
        assert number is not None
        os.close(number)
    finally:
        os.kill(children[0], signal.SIGKILL)
        os.waitpid(children[0], 0)


# ── What others left ──────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_left_is_cleared_away(folder: Path) -> None:
    """What a killed process left of this folder goes; what is still being written, and of others, stays."""
    room = folder.parent
    for name in (
        ".folder.0123456789ab.partial",
        ".other.0123456789ab.partial",
        ".folder.partial",
        ".folder.x.partial",
    ):
        (room / name).mkdir()

    with replacing(folder, of_model) as alive:
        replace(folder, model="new")
        assert alive.exists()

    assert names(room) == [".folder.partial", ".folder.x.partial", ".other.0123456789ab.partial", "folder"]


def test_a_folder_that_was_renamed_is_put_back(folder: Path) -> None:
    """If a process was killed between two renames, the old folder gets its name back, and what is in it stays."""
    folder.rename(folder.parent / ".folder.0123456789ab.before")

    replace(folder, model="new")

    assert (folder / "notes" / "a.txt").read_text() == "mine"
    assert names(folder.parent) == ["folder"]


SAVING = """
import itertools, os, signal, sys, time
import torch
from sentence_embedder import SentenceTransformer

torch.set_num_threads(1)
target, *folders = sys.argv[1:]
models = [SentenceTransformer(folder, device="cpu") for folder in folders]
for seconds in sys.stdin:
    process = os.fork()
    if process == 0:
        for model in itertools.cycle(models):
            model.save(target)
    time.sleep(float(seconds))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    print("killed", flush=True)
"""


def test_killed_while_saving(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Killed at twenty random moments, a process that saves two models in turn leaves the one or the other."""
    target, kinds = tmp_path / "room" / "target", ("bert", "roberta")
    expected = []
    for name in kinds:
        SentenceTransformer(str(tiny_folders[name]), device="cpu").save(tmp_path / name / "target")
        expected.append(contents(tmp_path / name / "target"))
    shutil.copytree(tmp_path / kinds[0] / "target", target)
    (target / "notes.txt").write_text("mine")

    command: list[str | Path] = [
        sys.executable,
        "-W",
        "error",
        "-c",
        SAVING,
        target,
        *(tiny_folders[name] for name in kinds),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(20):
            process.stdin.write(f"{random.uniform(0, 0.2)}\n")  # noqa: S311
            process.stdin.flush()
            assert process.stdout.readline() == "killed\n"
            found = contents(target)
            assert found.pop("notes.txt") == b"mine"
            assert found in expected
        process.stdin.close()

    model = SentenceTransformer(str(target), device="cpu")
    model.save(target)
    assert names(target.parent) == ["target"]


FILLING = """
import sys
from pathlib import Path
from sentence_embedder import SentenceTransformer

folder, disk = sys.argv[1], Path(sys.argv[2])
model = SentenceTransformer(folder, device="cpu")
model.save(disk / "model")
(disk / "filler").write_bytes(bytes(int(sys.argv[3])))
model[0].auto_model.embeddings.word_embeddings.weight.data += 1
try:
    model.save(disk / "model")
except OSError as error:
    sys.exit(0 if "No space left on device" in str(error) else f"another error: {error}")
sys.exit("it was saved")
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize("room", [0.1, 0.5, 0.9])
def test_a_full_disk(room: float, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """On a disk that is really full the older model stays whole, and nothing else is left."""
    disk, copied = tmp_path / "disk", tmp_path / "copied"
    disk.mkdir()
    SentenceTransformer(str(tiny_folders["bert"]), device="cpu").save(tmp_path / "whole" / "model")
    expected = contents(tmp_path / "whole" / "model")
    size = sum(-(-len(content) // 4096) * 4096 for content in expected.values())
    filler = 10 * size - int((1 + room) * size)
    mount = f'mount -t tmpfs -o size={10 * size} tmpfs {disk} && "$@"; code=$?; cp -r {disk} {copied}; exit $code'
    prefix = ("unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount anything")
    shutil.rmtree(copied)

    program: list[str | Path] = [
        sys.executable,
        "-W",
        "error",
        "-c",
        FILLING,
        tiny_folders["bert"],
        disk,
        str(filler),
    ]
    done = subprocess.run([*prefix, *program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert contents(copied / "model") == expected
    assert names(copied) == ["filler", "model"]
