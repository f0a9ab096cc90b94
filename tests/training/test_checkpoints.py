"""Checkpoints: training goes on from them bit for bit, and nothing else is lost or removed."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sentence_embedder import InputExample, SentenceTransformer, losses
from sentence_embedder.files import read_json
from sentence_embedder.training.checkpoints import CheckpointError, Checkpoints
from sentence_embedder.training.randomness import Randomness
from sentence_embedder.training.state_file import read_state, write_state
from tests.training.cases import examples, loader_of
from tests.training.script import train

ROOT = Path(__file__).parents[2]


def run_script(folder: Path, checkpoints: Path, out: Path, dies_at: str = "", prefix: tuple[str, ...] = ()) -> int:
    """How the training of ``tests.training.script`` ended, in a process of its own."""
    environment = {"FOLDER": folder, "CHECKPOINTS": checkpoints, "OUT": out, "DIES_AT": dies_at}
    return subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-m", "tests.training.script"],
        cwd=ROOT,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
        check=False,
    ).returncode


@pytest.fixture(scope="module")
def uninterrupted(tiny_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights of the training when nothing happens."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    model = train(tiny_folders["bert"], folder)
    assert names(folder) == ["10", "12"]
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def assert_same(found: Any, expected: dict[str, Any]) -> None:
    """Weights are the same, bit for bit."""
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


# ── Killed ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("dies_at", "left"),
    [
        ("step 8", ["4", "6"]),  # in the second epoch, while a checkpoint is two steps old
        ("step 5", ["2", "4"]),  # the first step of an epoch
        ("file 3", [".6.partial", "2", "4"]),
        ("file 1", [".2.partial"]),
    ],
)
def test_killed_and_resumed(
    dies_at: str, left: list[str], tiny_folders: dict[str, Path], uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    """kill -9 within an epoch, or while a checkpoint is written: started again, it ends with the same weights."""
    checkpoints, out = tmp_path / "checkpoints", tmp_path / "weights.npz"

    assert run_script(tiny_folders["bert"], checkpoints, out, dies_at) == -9
    assert names(checkpoints) == left
    assert run_script(tiny_folders["bert"], checkpoints, out) == 0

    assert_same(np.load(out), uninterrupted)
    if left != [".2.partial"]:  # nothing says whose that is, until there is a checkpoint of its training
        assert names(checkpoints) == ["10", "12"]


@pytest.mark.parametrize("step", range(2, 13, 2))
def test_resumed_from_any_checkpoint(step: int, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Whichever checkpoint is the newest, what comes of it is the same; also the record."""

    class StoppedError(Exception):
        """Ends a training from outside."""

    def stop(log: Any) -> None:
        if log.step > step:
            raise StoppedError

    def trained(stops: bool) -> Any:
        torch.manual_seed(7)
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        loader = loader_of(examples(InputExample, count=10), batch_size=3)
        record = model.fit(
            [(loader, losses.CosineSimilarityLoss(model))],
            evaluator=lambda model, **_: float(model.encode("a text").sum()),
            epochs=3,
            optimizer_params={"lr": 1e-3},
            show_progress_bar=False,
            checkpoint_path=tmp_path / str(stops),
            checkpoint_save_steps=2,
            log_steps=1,
            on_log=stop if stops else None,
            resume_from_checkpoint=True,
        )
        return model, record

    model, record = trained(stops=False)
    if step < 12:
        with pytest.raises(StoppedError):
            trained(stops=True)
        shutil.move(tmp_path / "True", tmp_path / "stopped")
        shutil.rmtree(tmp_path / "False")
        shutil.move(tmp_path / "stopped", tmp_path / "False")
    again, of_again = trained(stops=False)

    assert_same(again.state_dict(), {name: tensor.numpy() for name, tensor in model.state_dict().items()})
    assert of_again.losses == record.losses
    assert of_again.evaluations == record.evaluations
    assert of_again.steps == 12
    assert [Path(path).name for path in of_again.checkpoints] == [str(number) for number in range(2, 13, 2)]


def test_more_epochs_can_follow(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """A training that has ended goes on if more epochs are asked for; if not, it has nothing to do."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")

    def fit(epochs: int) -> Any:
        loader = loader_of(examples(InputExample, count=6), batch_size=3)
        return model.fit(
            [(loader, losses.CosineSimilarityLoss(model))],
            epochs=epochs,
            show_progress_bar=False,
            output_path=tmp_path / "model",
            checkpoint_path=str(tmp_path),
            resume_from_checkpoint=True,
        )

    assert [fit(1).steps, fit(1).steps, fit(3).steps] == [2, 2, 6]
    assert names(tmp_path) == ["2", "6", "model"]
    saved = SentenceTransformer(str(tmp_path / "model"), device="cpu").state_dict()
    assert_same(saved, {name: tensor.numpy() for name, tensor in model.state_dict().items()})


def test_what_has_ended_is_not_judged_again(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Nor if the last step is one after which a checkpoint is due anyway, before the model is judged."""
    scores: list[float] = []

    def judge(*_: Any, **__: Any) -> float:
        scores.append(len(scores))
        return scores[-1]

    def fit() -> Any:
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        loader = loader_of(examples(InputExample, count=12), batch_size=3)
        return model.fit(
            [(loader, losses.CosineSimilarityLoss(model))],
            evaluator=judge,
            show_progress_bar=False,
            checkpoint_path=tmp_path,
            checkpoint_save_steps=2,
            resume_from_checkpoint=True,
        )

    assert [len(record.evaluations) for record in (fit(), fit())] == [1, 1]
    assert scores == [0]


def test_workers_and_weights_of_losses(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Data that workers fetch, and weights that a loss has beside the model's, go on, too."""

    def trained(path: Path, stop: bool) -> Any:
        torch.manual_seed(7)
        model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        loss = losses.SoftmaxLoss(model, 32, 2)
        rows = examples(InputExample, count=12)
        for row in rows:
            row.label = int(row.label > 0.5)
        model.fit(
            [(loader_of(rows, batch_size=3, num_workers=1), loss)],
            epochs=2,
            optimizer_params={"lr": 1e-3},
            show_progress_bar=False,
            checkpoint_path=path,
            checkpoint_save_steps=3,
            resume_from_checkpoint=not stop,
        )
        return loss.state_dict()

    whole = trained(tmp_path / "whole", stop=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for later in ("6", "8"):
        shutil.rmtree(tmp_path / "part" / later)
    resumed = trained(tmp_path / "part", stop=False)

    assert_same(resumed, {name: tensor.numpy() for name, tensor in whole.items()})


# ── What a checkpoint is ──────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_is_a_model_and_no_pickle(
    tiny_folders: dict[str, Path], uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    """It loads like any model folder, and holds JSON and safetensors beside it."""
    train(tiny_folders["bert"], tmp_path)

    model = SentenceTransformer(str(tmp_path / "12"), device="cpu")

    assert_same(model.state_dict(), uninterrupted)
    assert names(tmp_path / "12" / "training_state") == ["state.json", "state.safetensors", "training.json"]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pth")]


STATES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(STATES)
def test_states_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    """What is written is what is read, kinds included."""
    folder = tmp_path_factory.mktemp("state")

    write_state(folder, state)

    assert read_state(folder) == state
    assert repr(read_state(folder)) == repr(state)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_come_back_as_they_were(dtype: torch.dtype, tmp_path: Path) -> None:
    """Tensors keep format and shape, also those that share memory or are no whole."""
    whole = torch.arange(12).view(3, 4).to(dtype)
    state = {"whole": whole, "again": [whole, whole.T], "row": whole[1], "none": whole[:0], "one": whole[0, 0]}

    write_state(tmp_path, state)

    found = read_state(tmp_path)
    pairs = [(whole, found["whole"]), (whole.T, found["again"][1]), (whole[1], found["row"])]
    for expected, tensor in [*pairs, (whole[:0], found["none"]), (whole[0, 0], found["one"])]:
        assert tensor.dtype == dtype
        assert torch.equal(tensor, expected)


def test_what_no_checkpoint_holds_is_named(tmp_path: Path) -> None:
    """An object in the state of an optimizer, say, is an error that says where it stands."""
    with pytest.raises(TypeError, match=r"state\['a'\]\[0\]: expected tensors, .* found .*Path"):
        write_state(tmp_path, {"a": [tmp_path]})


def test_a_state_of_many_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state may be longer than the settings of a model."""
    monkeypatch.setattr(read_json, "__kwdefaults__", {"most": 1000})
    write_state(tmp_path, {"logs": [0.5] * 1000})

    with pytest.raises(ValueError, match="at most 1,000 bytes"):
        read_json(tmp_path / "state.json")
    assert read_state(tmp_path) == {"logs": [0.5] * 1000}


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    """What numpy computed comes back as a number of Python."""
    write_state(tmp_path, {"steps": np.int64(4), "lr": np.float32(0.5), "is": [np.bool_(True)]})

    assert read_state(tmp_path) == {"steps": 4, "lr": 0.5, "is": [True]}


def test_arguments_that_numpy_computed(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """A training whose arguments are numbers of numpy writes checkpoints, and goes on from them."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    loader = loader_of(examples(InputExample, count=8), batch_size=2)
    for epochs in (1, 2):
        record = model.fit(
            [(loader, losses.CosineSimilarityLoss(model))],
            epochs=epochs,
            steps_per_epoch=np.int64(3),  # type: ignore[arg-type]
            optimizer_params={"lr": np.float32(1e-4)},
            weight_decay=np.float32(0.01),  # type: ignore[arg-type]
            warmup_steps=0,
            checkpoint_path=str(tmp_path),
            resume_from_checkpoint=True,
            show_progress_bar=False,
        )

    assert record.steps == 6
    assert names(tmp_path) == ["3", "6"]


def test_none_stands_for_no_limit(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """``checkpoint_save_steps=None`` writes the last checkpoint only, ``checkpoint_save_total_limit=None`` keeps
    all.
    """
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    objectives = [(loader_of(examples(InputExample, count=8), batch_size=2), losses.CosineSimilarityLoss(model))]
    arguments: dict[str, Any] = {"warmup_steps": 0, "show_progress_bar": False}

    model.fit(objectives, checkpoint_path=str(tmp_path / "last"), checkpoint_save_steps=None, **arguments)
    model.fit(
        objectives,
        checkpoint_path=str(tmp_path / "all"),
        checkpoint_save_steps=1,
        checkpoint_save_total_limit=None,
        **arguments,
    )

    assert names(tmp_path / "last") == ["4"]
    assert names(tmp_path / "all") == ["1", "2", "3", "4"]


def test_random_numbers_go_on(tmp_path: Path) -> None:
    """The states of all generators, by way of a checkpoint, give the same numbers again."""
    import random

    def drawn() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand()), random.random()]  # noqa: S311

    write_state(tmp_path, Randomness.now().to_state())
    first = drawn()
    Randomness.from_state(read_state(tmp_path)).restore()

    assert drawn() == first


# ── What is removed, and what is not ──────────────────────────────────────────────────────────────────────────


def save_model(folder: Path) -> None:
    """Write something that stands for a model."""
    (folder / "model.bin").write_bytes(b"weights")


def test_only_own_folders_are_removed(tmp_path: Path) -> None:
    """The limit counts a training's own checkpoints; those of others, and folders of users, stay."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "precious.txt").write_text("not a checkpoint")
    (tmp_path / ".7.partial").mkdir()
    other, own = Checkpoints(tmp_path), Checkpoints(tmp_path, limit=2)
    other.write(5, save_model, {})

    for step in (10, 20, 30):
        own.write(step, save_model, {"step": step})

    assert names(tmp_path) == [".7.partial", "1", "20", "30", "5"]
    assert own.newest() == tmp_path / "30"
    assert own.read(tmp_path / "30") == {"step": 30}
    own.clean()
    assert (tmp_path / "1" / "precious.txt").exists()
    assert (tmp_path / ".7.partial").exists()


def test_a_folder_of_the_user_is_not_written_over(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """A folder that has the name of a checkpoint to come is an error before training."""
    (tmp_path / "4").mkdir()
    (tmp_path / "4" / "precious.txt").write_text("not a checkpoint")

    with pytest.raises(CheckpointError, match="4: expected nothing, or a checkpoint, found something else"):
        train(tiny_folders["bert"], tmp_path)

    assert names(tmp_path) == ["4"]
    assert names(tmp_path / "4") == ["precious.txt"]


def test_a_folder_of_the_user_at_the_last_step(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """So it is for the name of the checkpoint at the end; and one that comes meanwhile is left alone."""
    (tmp_path / "12").mkdir()
    with pytest.raises(CheckpointError, match="12: expected nothing, or a checkpoint"):
        train(tiny_folders["bert"], tmp_path)

    with pytest.raises(CheckpointError, match=r"12: the checkpoint could not be written: .*12 is no checkpoint"):
        Checkpoints(tmp_path).write(12, save_model, {})

    assert names(tmp_path) == ["12"]


def test_an_interrupted_replacement_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that another should replace is there again if that cannot get its name, or the process dies."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(2, save_model, {"old": True})
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.suffix == ".partial":
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing)
        with pytest.raises(CheckpointError, match=r"Input/output error.*The last one is .*2"):
            checkpoints.write(2, save_model, {"old": False})
    assert names(tmp_path) == ["2"]
    (tmp_path / "2").rename(tmp_path / ".2.before")

    assert checkpoints.newest() == tmp_path / "2"
    assert checkpoints.read(tmp_path / "2") == {"old": True}


def test_a_clock_that_goes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint that was written last is the newest, whatever the time."""
    checkpoints = Checkpoints(tmp_path, limit=1)
    checkpoints.write(100, save_model, {})

    monkeypatch.setattr("time.time", lambda: 0.0)
    checkpoints.write(200, save_model, {})

    assert names(tmp_path) == ["200"]


def test_a_checkpoint_that_was_moved_away(tmp_path: Path) -> None:
    """What a link leads to is not removed."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", limit=1)
    checkpoints.write(2, save_model, {})
    shutil.move(tmp_path / "checkpoints" / "2", tmp_path / "archive")
    (tmp_path / "checkpoints" / "2").symlink_to(tmp_path / "archive")

    checkpoints.write(4, save_model, {})
    checkpoints.write(6, save_model, {})

    assert names(tmp_path / "checkpoints") == ["2", "6"]
    assert (tmp_path / "archive" / "model.bin").exists()


def test_what_is_left_of_others_stays(tmp_path: Path) -> None:
    """A training that goes on removes what it left unfinished itself, nothing of another's."""
    other, own = Checkpoints(tmp_path), Checkpoints(tmp_path)
    own.write(2, save_model, {})
    other.write(4, save_model, {})
    for number, name in ((2, ".6.partial"), (4, ".8.partial")):
        shutil.copytree(tmp_path / str(number), tmp_path / name)

    own.clean()

    assert names(tmp_path) == [".8.partial", "2", "4"]


def test_an_interrupted_removal_is_made_good(tmp_path: Path) -> None:
    """What is left of a checkpoint that was half removed, or half replaced, does not stop the next one."""
    checkpoints = Checkpoints(tmp_path, limit=1)
    checkpoints.write(2, save_model, {})
    shutil.copytree(tmp_path / "2", tmp_path / ".2.before")
    (tmp_path / ".2.before" / "model.bin").unlink()

    checkpoints.write(2, save_model, {"again": True})
    checkpoints.write(4, save_model, {})

    assert names(tmp_path) == ["4"]


def test_failed_writing_leaves_the_older_ones(tmp_path: Path) -> None:
    """A checkpoint that cannot be written is an error with its cause; the older ones are whole."""
    checkpoints = Checkpoints(tmp_path, limit=1)
    checkpoints.write(2, save_model, {"step": 2})

    def failing(folder: Path) -> None:
        save_model(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        CheckpointError, match=r"4: the checkpoint could not be written: .*No space.*last one is .*2"
    ):
        checkpoints.write(4, failing, {})

    assert names(tmp_path) == ["2"]
    assert checkpoints.read(tmp_path / "2") == {"step": 2}


def test_interrupted_writing_leaves_nothing_behind(tmp_path: Path) -> None:
    """Ctrl-C while a checkpoint is written goes on as what it is; what was written of it is gone."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.write(2, save_model, {"step": 2})

    def interrupted(folder: Path) -> None:
        save_model(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.write(4, interrupted, {})

    assert names(tmp_path) == ["2"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_a_full_disk(tiny_folders: dict[str, Path], uninterrupted: dict[str, Any], tmp_path: Path) -> None:
    """On a disk that is really full training ends with an error; from the older checkpoint it goes on elsewhere."""
    disk, copied = tmp_path / "disk", tmp_path / "copied"
    disk.mkdir()
    train(tiny_folders["bert"], tmp_path / "whole")
    size = sum(path.stat().st_size for path in (tmp_path / "whole" / "12").rglob("*"))
    mount = (
        f'mount -t tmpfs -o size={size * 8 // 5} tmpfs {disk} && "$@"; code=$?; cp -r {disk} {copied}; exit $code'
    )
    prefix = ("unshare", "--mount", "--map-root-user", "sh", "-c", mount, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system lets nobody mount anything")
    shutil.rmtree(copied)

    assert run_script(tiny_folders["bert"], disk, tmp_path / "none.npz", prefix=prefix) == 1
    left = names(copied)
    assert left == ["2"]
    assert run_script(tiny_folders["bert"], copied, tmp_path / "weights.npz") == 0

    assert_same(np.load(tmp_path / "weights.npz"), uninterrupted)


# ── What cannot be resumed ────────────────────────────────────────────────────────────────────────────────────


def _cut(folder: Path) -> None:
    path = folder / "training_state" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:100])


def _no_json(folder: Path) -> None:
    (folder / "training_state" / "state.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (_cut, "the checkpoint cannot be read: .*Take an older one"),
        (_no_json, "the checkpoint cannot be read: .*Take an older one"),
        (lambda folder: shutil.rmtree(folder / "training_state"), "expected a checkpoint that fit has written"),
    ],
    ids=["cut", "no JSON", "a model alone"],
)
def test_a_broken_checkpoint_is_named(
    spoil: Callable[[Path], None], what: str, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    """A checkpoint that cannot be read is an error that names it."""
    train(tiny_folders["bert"], tmp_path)
    spoil(tmp_path / "12")
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    loader = loader_of(examples(InputExample), batch_size=3)

    with pytest.raises(CheckpointError, match=f"12: {what}"):
        model.fit(
            [(loader, losses.CosineSimilarityLoss(model))],
            resume_from_checkpoint=str(tmp_path / "12"),
            show_progress_bar=False,
        )


def test_the_checkpoint_of_another_training(tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """A checkpoint of other objectives, other data or another model is an error before the first step."""
    train(tiny_folders["bert"], tmp_path)
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    before = {name: tensor.clone().numpy() for name, tensor in model.state_dict().items()}
    loader = loader_of(examples(InputExample), batch_size=3)
    similarity = losses.CosineSimilarityLoss(model)

    def resume(*given: nn.Module, **arguments: Any) -> None:
        model.fit(
            [(loader, loss) for loss in given],
            resume_from_checkpoint=tmp_path / "12",
            show_progress_bar=False,
            **arguments,
        )

    with pytest.raises(ValueError, match="12: expected objectives, as many as 1, as in this training, found 2"):
        resume(similarity)
    with pytest.raises(ValueError, match="expected steps per epoch, as many as 7, as in this training, found 4"):
        resume(similarity, similarity)
    with pytest.raises(ValueError, match="expected a checkpoint of the same model and losses, found others"):
        resume(losses.SoftmaxLoss(model, 32, 2), similarity, steps_per_epoch=4)
    again = [losses.CosineSimilarityLoss(model), losses.CosineSimilarityLoss(model)]
    with pytest.raises(ValueError, match="optimizer_class: expected that of the checkpoint, AdamW, found SGD"):
        resume(*again, steps_per_epoch=4, optimizer_class=torch.optim.SGD)
    for name, tensor in model.state_dict().items():  # the weights of the checkpoint had been put in by then
        tensor.copy_(torch.from_numpy(before[name]))

    assert_same(model.state_dict(), before)
