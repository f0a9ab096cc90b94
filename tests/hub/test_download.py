"""The Hub: which names go there, what is taken from the cache, and what is said when it fails."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import shutil
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from sentence_embedder.hub import (
    AccessError,
    CacheError,
    HubError,
    HubUnavailableError,
    ModelNotFoundError,
    ModelSource,
    RevisionNotFoundError,
    download,
)
from tests.hub.repositories import files_in
from tests.hub.server import TOKEN, Fault, HubServer

NAME = "sentence-transformers/tiny"
COMMIT = "a" * 40

SCALED = """
from pathlib import Path
from torch import nn


class Scaled(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, features):
        return {**features, "sentence_embedding": self.factor * features["sentence_embedding"]}

    def save(self, path):
        (Path(path) / "more" / "factor.dat").write_text(str(self.factor))

    @staticmethod
    def load(path):
        return Scaled(float((Path(path) / "more" / "factor.dat").read_text()))
"""


def fill_cache(cache: Path, name: str, folder: Path) -> Path:
    """Put a folder into a cache of the Hub, as the client lays it out; the folder of the snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    return snapshot


@pytest.fixture
def cache(tmp_path: Path, tiny_folders: dict[str, Path]) -> Path:
    """A cache with a tiny model."""
    fill_cache(tmp_path / "cache", NAME, tiny_folders["bert"])
    return tmp_path / "cache"


class TestCache:
    """Models that are in the cache."""

    @pytest.mark.parametrize("name", [NAME, "tiny"])
    @pytest.mark.parametrize("offline", [True, False])
    def test_a_whole_model_costs_no_request(
        self, name: str, offline: bool, cache: Path, no_network: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A model that is whole in the cache is loaded without a request; no owner means sentence-transformers."""
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)

        model = SentenceTransformer(name, cache_folder=str(cache), device="cpu")

        assert model.encode("hello world").shape == (32,)
        assert no_network == []

    def test_the_environment_names_the_cache(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """SENTENCE_TRANSFORMERS_HOME is where the cache is, unless cache_folder says otherwise."""
        monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(cache))

        assert len(SentenceTransformer("tiny", local_files_only=True, device="cpu")) == 2

    def test_revisions(self, cache: Path) -> None:
        """A revision is a branch, a tag or a commit."""
        arguments: dict[str, Any] = {"cache_folder": str(cache), "local_files_only": True, "device": "cpu"}

        assert len(SentenceTransformer("tiny", revision=COMMIT, **arguments)) == 2
        with pytest.raises(HubError, match="found nothing"):
            SentenceTransformer("tiny", revision="v9", **arguments)

    @pytest.mark.parametrize("missing", ["model.safetensors", "1_Pooling/config.json", "config.json"])
    def test_a_part_of_a_model_is_not_loaded(self, missing: str, cache: Path) -> None:
        """A model that lacks a file is fetched, or refused where that is not allowed."""
        next(cache.rglob(f"snapshots/*/{missing}")).unlink()

        with pytest.raises(HubError, match="found a part of it: load it once without local_files_only"):
            SentenceTransformer("tiny", cache_folder=str(cache), local_files_only=True, device="cpu")

    def test_a_transformer_alone_may_be_part_of_a_model(self, cache: Path, no_network: list[Any]) -> None:
        """Where modules.json is not in the cache the Hub is asked; if it is silent no mean pooling is made up."""
        next(cache.rglob("modules.json")).unlink()

        with pytest.raises(HubError, match="is there a network"):
            SentenceTransformer("tiny", cache_folder=str(cache), device="cpu")
        assert no_network

    def test_settings_that_nobody_knows_of(
        self, cache: Path, no_network: list[Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where the cache does not say whether a model has settings, the Hub is asked; if it is silent, the model
        is loaded without, and a log line says so. Where only the cache may be used, it is.
        """
        next(cache.rglob("config_sentence_transformers.json")).unlink()
        next(cache.rglob("sentence_bert_config.json")).unlink()

        assert len(SentenceTransformer("tiny", cache_folder=str(cache), local_files_only=True, device="cpu")) == 2
        assert not no_network
        assert len(SentenceTransformer("tiny", cache_folder=str(cache), device="cpu")) == 2

        assert no_network
        names = "config_sentence_transformers.json and sentence_bert_config.json"
        offline, silent = (message for message in caplog.messages if f"taken to have no {names}, as" in message)
        assert "nothing may be fetched" in offline
        assert "is there a network" in silent

    def test_offline_it_is_taken_for_a_plain_transformer(
        self, cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Where only the cache may be used, it is a plain transformer, and a log line says so."""
        next(cache.rglob("modules.json")).unlink()

        SentenceTransformer("tiny", cache_folder=str(cache), local_files_only=True, device="cpu")

        assert "has no modules.json: a plain transformer (BertModel), of which mean pooling" in caplog.text

    @pytest.mark.parametrize("name", ["bert-base-uncased", "Roberta-Base", "owner/model"])
    def test_names_that_are_not_sentence_transformers(self, name: str, tmp_path: Path, checkpoint: Path) -> None:
        """Names of well-known language models, and names with an owner, get no prefix."""
        fill_cache(tmp_path, name, checkpoint)

        assert len(SentenceTransformer(name, cache_folder=str(tmp_path), local_files_only=True, device="cpu")) == 2

    def test_instructor_models_leave_the_prompt_out(self, tmp_path: Path, tiny_folders: dict[str, Path]) -> None:
        """INSTRUCTOR models do not pool their instruction, though their files do not say so."""
        fill_cache(tmp_path, "hkunlp/instructor-base", tiny_folders["bert"])

        model = SentenceTransformer("hkunlp/instructor-base", cache_folder=str(tmp_path), device="cpu")

        assert model[1].include_prompt is False


def test_a_token_is_not_shown() -> None:
    """The token is no part of what is printed of a source."""
    source = ModelSource(name="owner/model", token="hf_secret")  # noqa: S106

    assert "hf_secret" not in repr(source)


class TestPaths:
    """Names that are paths."""

    @pytest.mark.parametrize(
        "path", ["./nothing", "../nothing", "/nothing/here", "a/b/c", "~/nothing-here", r"C:\nothing", "models/"]
    )
    def test_a_path_to_nothing(self, path: str, no_network: list[Any]) -> None:
        """A path where nothing is, is said to be that, and never looked up on the Hub."""
        with pytest.raises(FileNotFoundError, match="is the path right"):
            SentenceTransformer(path)
        assert no_network == []

    def test_a_path_to_a_file(self, tmp_path: Path) -> None:
        """A path to a file is said to be that."""
        (tmp_path / "model.bin").touch()

        with pytest.raises(NotADirectoryError, match="found a file"):
            SentenceTransformer(str(tmp_path / "model.bin"))

    def test_a_folder_that_is_called_like_home(
        self, tmp_path: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was saved as "~/mine" is found there; without it, it is looked for at home, if there is one."""
        home = tmp_path / "home"
        shutil.copytree(tiny_folders["bert"], home / "theirs")
        monkeypatch.setenv("HOME", str(home))
        monkeypatch.chdir(tmp_path)
        model = SentenceTransformer("~/theirs", device="cpu")
        model.save("~/mine")

        assert len(SentenceTransformer("~/mine", device="cpu")) == 2
        assert (tmp_path / "~" / "mine").is_dir()
        with pytest.raises(FileNotFoundError, match="expected a model folder, found nothing"):
            SentenceTransformer("~nobody-of-that-name/mine", device="cpu")

    def test_a_folder_goes_before_a_name(
        self, tiny_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[Any]
    ) -> None:
        """A folder of the name is taken, by a relative path, too."""
        shutil.copytree(tiny_folders["bert"], tmp_path / "owner" / "model")
        monkeypatch.chdir(tmp_path)

        assert len(SentenceTransformer("owner/model", device="cpu")) == 2
        assert no_network == []

    def test_a_name_that_the_hub_does_not_allow(self) -> None:
        """What is neither a folder nor a possible name is said to be that."""
        with pytest.raises(HubError, match="neither a folder nor a name"):
            SentenceTransformer("no such/name!", device="cpu")


class TestServer:
    """The real client against a server on loopback."""

    @pytest.fixture
    def load(self, tmp_path: Path) -> Any:
        """Load a model into a cache of the test's own."""

        def load(name: str = "tiny", **arguments: Any) -> SentenceTransformer:
            return SentenceTransformer(name, device="cpu", **{"cache_folder": str(tmp_path / "cache"), **arguments})

        return load

    @pytest.mark.parametrize("kind", ["bert", "bert-chain"])
    def test_fetch_and_load_again(
        self, kind: str, hub: HubServer, load: Any, tiny_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """A model is fetched once, without copies in other formats, by one request and two a file; the second load
        makes none.
        """
        folder = tmp_path / "repository"
        shutil.copytree(tiny_folders[kind], folder)
        (folder / "onnx").mkdir()
        for extra in ("onnx/model.onnx", "tf_model.h5", "flax_model.msgpack", "pytorch_model.bin"):
            (folder / extra).write_bytes(b"0" * 10)
        hub.add_repository(NAME, folder)

        first = load()
        requests = list(hub.requests)
        hub.requests.clear()
        second = load()

        expected = SentenceTransformer(str(tiny_folders[kind]), device="cpu").encode("hello world")
        np.testing.assert_allclose(first.encode("hello world"), expected, atol=1e-6)
        np.testing.assert_array_equal(second.encode("hello world"), first.encode("hello world"))
        assert hub.requests == []
        fetched = [
            request.partition("/resolve/")[2].partition("/")[2] for request in requests if "GET sent" in request
        ]
        weights = {"model.safetensors", *(["2_Dense/pytorch_model.bin", "3_LayerNorm/pytorch_model.bin"])}
        assert {file for file in fetched if not file.endswith(".json")} == (
            weights if kind == "bert-chain" else {"model.safetensors"}
        )
        assert len(requests) == 1 + 2 * len(fetched)
        assert requests[0] == f"GET api/models/{NAME}"

    def test_a_module_with_files_of_its_own(
        self, hub: HubServer, tiny_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """What a module of somebody's own has written into its folder is fetched, whatever it is called."""
        folder = Path(shutil.copytree(tiny_folders["bert"], tmp_path / "repository"))
        rows = json.loads((folder / "modules.json").read_text())
        rows.append({"idx": len(rows), "name": str(len(rows)), "path": "2_Scaled", "type": "scaled.Scaled"})
        (folder / "modules.json").write_text(json.dumps(rows))
        (folder / "scaled.py").write_text(SCALED)
        (folder / "2_Scaled" / "more").mkdir(parents=True)
        (folder / "2_Scaled" / "more" / "factor.dat").write_text("3.0")
        hub.add_repository(NAME, folder)
        arguments: Any = {"device": "cpu", "trust_remote_code": True}
        expected = 3 * SentenceTransformer(str(tiny_folders["bert"]), device="cpu").encode("hello world")

        for name in (str(folder), NAME):
            model = SentenceTransformer(name, cache_folder=str(tmp_path / "cache"), **arguments)
            np.testing.assert_allclose(model.encode("hello world"), expected, rtol=1e-6, atol=1e-6)

    def test_a_plain_checkpoint(self, hub: HubServer, load: Any, checkpoint: Path) -> None:
        """A repository without modules.json is a plain transformer, which the cache remembers."""
        hub.add_repository("owner/plain", checkpoint)

        assert len(load("owner/plain")) == 2
        assert hub.requests
        hub.requests.clear()
        assert len(load("owner/plain")) == 2
        assert hub.requests == []

    @pytest.mark.parametrize("revision", ["dev", "v1", "feature/x", "commit"])
    def test_revisions_of_the_hub(
        self, revision: str, hub: HubServer, load: Any, tiny_folders: dict[str, Path]
    ) -> None:
        """A branch, a tag and a commit are loaded, each kept under its name."""
        commit = hub.add_repository(NAME, tiny_folders["roberta"])
        hub.add_repository(NAME, tiny_folders["bert"])
        kind = "tags" if revision == "v1" else "heads"
        hub.repositories[NAME].refs[f"refs/{kind}/{revision}"] = commit
        revision = commit if revision == "commit" else revision

        first = load(revision=revision)
        hub.requests.clear()

        assert type(first[0].auto_model).__name__ == "RobertaModel"
        assert type(load(revision=revision)[0].auto_model).__name__ == "RobertaModel"
        assert hub.requests == []
        assert type(load()[0].auto_model).__name__ == "BertModel"

    def test_refresh(self, hub: HubServer, load: Any, tiny_folders: dict[str, Path]) -> None:
        """What is in the cache is taken until a refresh is asked for, which brings what is new."""
        hub.add_repository(NAME, tiny_folders["bert"])
        load()
        hub.add_repository(NAME, tiny_folders["roberta"])

        assert type(load()[0].auto_model).__name__ == "BertModel"
        assert type(load(refresh=True)[0].auto_model).__name__ == "RobertaModel"
        assert type(load()[0].auto_model).__name__ == "RobertaModel"
        hub.requests.clear()
        load(refresh=True)
        assert len(hub.requests) == 2  # the commit, and whether modules.json is that of it
        with pytest.raises(ValueError, match="refresh and local_files_only"):
            load(refresh=True, local_files_only=True)

    def test_refresh_offline(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Where nothing may be fetched, nothing is refreshed."""
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

        with pytest.raises(HubError, match="refresh=True, but HF_HUB_OFFLINE says that nothing may be fetched"):
            SentenceTransformer("tiny", cache_folder=str(cache), refresh=True, device="cpu")

    def test_a_branch_that_moves(
        self, hub: HubServer, load: Any, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whoever pushes while a model is fetched does not mix two models in it."""
        hub.add_repository(NAME, tiny_folders["bert"])
        fetched = download._fetched
        moves = [tiny_folders["roberta"]]

        def pushed_meanwhile(*arguments: Any) -> Path:
            if moves:
                hub.add_repository(NAME, moves.pop())
            return fetched(*arguments)

        monkeypatch.setattr(download, "_fetched", pushed_meanwhile)

        model = load()

        assert type(model[0].auto_model).__name__ == "RobertaModel"
        moves += [tiny_folders[kind] for kind in ("bert", "mpnet", "distilbert")] * 3
        with pytest.raises(HubError, match="did not give the files of one commit"):
            load(refresh=True)

    def test_an_interrupted_download(
        self, hub: HubServer, load: Any, tiny_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """What an interrupted download leaves in the cache is not taken for a model: the rest is fetched."""
        hub.add_repository(NAME, tiny_folders["bert"])
        load()
        snapshot = next((tmp_path / "cache").rglob("snapshots/*"))
        for name in ("modules.json", "tokenizer.json"):
            (snapshot / name).unlink()
        hub.requests.clear()

        assert len(load()) == 2
        assert any(request.endswith("tokenizer.json") for request in hub.requests)

    @pytest.mark.parametrize("name", ["config_sentence_transformers.json", "sentence_bert_config.json"])
    def test_settings_that_were_not_fetched(
        self, name: str, hub: HubServer, load: Any, tiny_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """Settings without which a model can be loaded, but is another, are fetched if the cache lacks them; a
        model that has none is known by the cache to have none.
        """
        files = files_in(tiny_folders["bert"])
        hub.add_repository(NAME, files)
        load()
        next((tmp_path / "cache").rglob(f"snapshots/*/{name}")).unlink()
        hub.add_repository(NAME, {path: content for path, content in files.items() if path != name})
        assert len(load()) == 2
        # Of the commit that is there: nobody has asked for a newer one.
        assert [path.name for path in (tmp_path / "cache").rglob(f"snapshots/*/{name}")] == [name]

        load(refresh=True)
        hub.requests.clear()
        assert len(load()) == 2
        assert hub.requests == []

    def test_a_cache_that_cannot_be_written(
        self, hub: HubServer, load: Any, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is whole in it is loaded, without writing anything, locks included; what is not, is an error."""
        hub.add_repository(NAME, tiny_folders["bert"])
        load()

        def refused(path: Any, *_args: Any, **_kwargs: Any) -> None:
            raise OSError(errno.EROFS, "Read-only file system", str(path))

        for name in ("mkdir", "open", "makedirs"):
            if name != "open":
                monkeypatch.setattr(os, name, refused)
        assert len(load()) == 2
        with pytest.raises(CacheError, match=r"could not be written .Read-only file system.*cache_folder="):
            load(cache_folder="/nowhere/at-all")

    @pytest.mark.parametrize("kind", ["bert", "no weights", "nothing"])
    def test_what_is_no_model(
        self, kind: str, hub: HubServer, load: Any, tiny_folders: dict[str, Path], checkpoint: Path
    ) -> None:
        """A repository that lacks the weights, and one that lacks everything, is an error."""
        files = {} if kind == "nothing" else files_in(checkpoint if kind == "no weights" else tiny_folders["bert"])
        files.pop("model.safetensors", None)
        hub.add_repository("owner/empty", files)

        message = (
            "found an empty repository" if kind == "nothing" else "no settings or no weights in the model folder"
        )
        with pytest.raises(HubError, match=message):
            load("owner/empty")

    @pytest.mark.parametrize(
        ("name", "arguments", "kind", "message"),
        [
            ("owner/nothing", {}, ModelNotFoundError, "the Hub has no such model, or it is private"),
            ("owner/nothing", {"token": TOKEN}, ModelNotFoundError, "the Hub has no such model, or it is private"),
            ("owner/private", {"token": TOKEN}, ModelNotFoundError, "the Hub has no such model, or it is private"),
            ("tiny", {"revision": "v9"}, RevisionNotFoundError, "the Hub has the model, but no revision 'v9'"),
            ("tiny", {"token": "hf_wrong"}, AccessError, "the Hub does not accept the token"),
            ("tiny", {"token": True}, AccessError, "none is stored on this machine: log in"),
            ("owner/gated", {}, AccessError, "its owner must grant access"),
        ],
    )
    def test_what_the_hub_does_not_give(
        self,
        name: str,
        arguments: Any,
        kind: type[HubError],
        message: str,
        hub: HubServer,
        load: Any,
        tiny_folders: dict[str, Path],
    ) -> None:
        """A model and a revision that are not there, a wrong token, a missing right are different errors."""
        hub.add_repository(NAME, tiny_folders["bert"])
        hub.add_repository("owner/private", tiny_folders["bert"], private=True)
        hub.add_repository("owner/gated", tiny_folders["bert"], gated=True)

        with pytest.raises(kind, match=message):
            load(name, **arguments)

    def test_the_token_is_nowhere(
        self,
        hub: HubServer,
        load: Any,
        tiny_folders: dict[str, Path],
        caplog: pytest.LogCaptureFixture,
        tmp_path: Path,
    ) -> None:
        """No file, no log line, no error and no model holds the token."""
        caplog.set_level(logging.DEBUG)
        hub.add_repository(NAME, tiny_folders["bert"])
        token = hub.add_user("other")
        model = load(token=token)
        model.save(tmp_path / "saved")
        with pytest.raises(HubError) as raised:
            load("owner/nothing", token=token)

        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert not [path for path in files if token.encode() in path.read_bytes()]
        assert token not in caplog.text
        assert token.encode() not in pickle.dumps(model)
        assert token not in "".join(traceback.format_exception(raised.value))


MODULES, CONFIG, WEIGHTS = (rf"GET .*/resolve/.*{name}" for name in ("modules.json", "/config.json", "safetensors"))


class TestMisbehavingServer:
    """A server that fails: tried again where that is right, and never half a model."""

    @pytest.fixture
    def load(self, hub: HubServer, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Any:
        """Load the model from the server, without long waits; how long it would have waited."""
        hub.add_repository(NAME, tiny_folders["bert"])
        waits: list[float] = []
        monkeypatch.setattr("time.sleep", waits.append)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        monkeypatch.setattr(download, "_SECONDS_TO_ANSWER", 0.3)

        def load(**arguments: Any) -> tuple[SentenceTransformer, list[float]]:
            return SentenceTransformer("tiny", device="cpu", **arguments), waits

        return load

    def _assert_loads_again(self, load: Any, tiny_folders: dict[str, Path]) -> None:
        """Once the server is well, the whole model is there."""
        model, _ = load()
        expected = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
        assert len(model) == len(expected)
        np.testing.assert_array_equal(model.encode("hello world"), expected.encode("hello world"))

    @pytest.mark.parametrize("request_line", ["GET api/models", MODULES, CONFIG, WEIGHTS, "HEAD .*config.json"])
    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_failures_that_pass(
        self, request_line: str, status: int, hub: HubServer, load: Any, tiny_folders: dict[str, Path]
    ) -> None:
        """Twice a failure, then all is well: it is loaded."""
        hub.misbehave(request_line, Fault(status=status), Fault(status=status))

        self._assert_loads_again(load, tiny_folders)

    @pytest.mark.parametrize("meanwhile", ["reading", "asking"])
    def test_closed_by_another_thread(
        self, meanwhile: str, load: Any, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A thread that cannot connect closes the client that all share: what the others read is read again."""
        import huggingface_hub
        from huggingface_hub import errors, get_session

        fetch = huggingface_hub.hf_hub_download
        closed: list[str] = []

        def fetch_at_second_try(repository: str, name: str, **place: Any) -> str:
            if name not in closed:
                closed.append(name)
                if meanwhile == "asking":
                    client = type(get_session())()
                    client.close()
                    client.get(huggingface_hub.constants.ENDPOINT)
                raise errors.HTTPError("closed") from OSError(errno.EBADF, "Bad file descriptor")  # type: ignore[attr-defined]
            path: str = fetch(repository, name, **place)
            return path

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch_at_second_try)

        self._assert_loads_again(load, tiny_folders)
        assert "config.json" in closed

    @pytest.mark.parametrize("request_line", ["GET api/models", WEIGHTS])
    def test_retry_after(self, request_line: str, hub: HubServer, load: Any) -> None:
        """A server that says how long to wait is not asked before."""
        hub.misbehave(request_line, Fault(status=429, headers={"Retry-After": "7"}))

        _, waits = load()

        assert max(waits) >= 7

    def test_retry_after_too_long(self, hub: HubServer, load: Any, tiny_folders: dict[str, Path]) -> None:
        """Nobody waits an hour: it is an error that says so."""
        hub.misbehave("GET api/models", Fault(status=429, headers={"Retry-After": "3600"}))

        with pytest.raises(HubUnavailableError, match="too many requests: wait a while"):
            load()
        self._assert_loads_again(load, tiny_folders)

    @pytest.mark.parametrize("request_line", ["GET api/models", "HEAD .*modules.json", MODULES, CONFIG, WEIGHTS])
    @pytest.mark.parametrize(
        ("status", "kind"), [(401, AccessError), (403, AccessError), (500, HubUnavailableError)]
    )
    def test_failures_that_last(
        self,
        request_line: str,
        status: int,
        kind: type[HubError],
        hub: HubServer,
        load: Any,
        tiny_folders: dict[str, Path],
    ) -> None:
        """A failure that lasts is an error, whichever file it befalls; it is no half model, and no plain one."""
        hub.misbehave(request_line, *[Fault(status=status)] * 30)

        with pytest.raises(kind):
            load()
        hub.recover()
        self._assert_loads_again(load, tiny_folders)

    @pytest.mark.parametrize(
        ("request_line", "part"), [(WEIGHTS, 0.5), (WEIGHTS, 0.0), (CONFIG, 0.5), (MODULES, 0.5), (MODULES, 0.0)]
    )
    @pytest.mark.parametrize("lasts", [False, True])
    def test_bodies_that_are_cut(
        self, request_line: str, part: float, lasts: bool, hub: HubServer, load: Any, tiny_folders: dict[str, Path]
    ) -> None:
        """A file of which a part comes is asked for again, and if that does not help, it is an error."""
        hub.misbehave(request_line, *[Fault(part=part)] * (40 if lasts else 1))

        if lasts:
            with pytest.raises(HubUnavailableError):
                load()
            hub.recover()
        self._assert_loads_again(load, tiny_folders)

    @pytest.mark.parametrize("request_line", ["GET api/models", WEIGHTS])
    def test_answers_that_stall(
        self, request_line: str, hub: HubServer, load: Any, tiny_folders: dict[str, Path]
    ) -> None:
        """A server that falls silent is not waited for without end."""
        hub.misbehave(request_line, *[Fault(part=0.2, stall=2)] * 40)

        with pytest.raises(HubUnavailableError, match="is there a network"):
            load()
        hub.recover()
        self._assert_loads_again(load, tiny_folders)

    @pytest.mark.parametrize("request_line", [WEIGHTS, MODULES])
    def test_wrong_sizes(self, request_line: str, hub: HubServer, load: Any, tiny_folders: dict[str, Path]) -> None:
        """A file of another size than was said before is not taken."""
        hub.misbehave(request_line, *[Fault(adds=b"more")] * 40)

        with pytest.raises(HubUnavailableError):
            load()
        hub.recover()
        self._assert_loads_again(load, tiny_folders)

    def test_a_file_that_is_gone(self, hub: HubServer, load: Any, tiny_folders: dict[str, Path]) -> None:
        """A modules.json that is listed and then not there makes no plain transformer."""
        hub.misbehave("HEAD .*modules.json", Fault(status=404, headers={"X-Error-Code": "EntryNotFound"}))

        with pytest.raises(HubError):
            load()
        self._assert_loads_again(load, tiny_folders)

    def test_a_full_disk(self, load: Any, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """A disk that is full is said to be that."""

        def full(*_args: Any, **_kwargs: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", "blob")

        with monkeypatch.context() as patched:
            patched.setattr("huggingface_hub.file_download.http_get", full)
            with pytest.raises(CacheError, match=r"No space left on device: blob.: make room"):
                load()
        self._assert_loads_again(load, tiny_folders)
