"""The Hub: which names go there, what is taken from the cache, and what is said when it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from sentence_embedder.hub import HubError, ModelSource
from tests.hub_server import COMMIT, serving

NAME = "sentence-transformers/tiny"

PROGRAM = """
import json, logging, sys
import numpy as np
from sentence_embedder import SentenceTransformer
try:
    model = SentenceTransformer(sys.argv[1], device="cpu", **json.loads(sys.argv[2]))
except OSError as error:
    print(json.dumps({"error": type(error).__name__, "message": str(error)}))
else:
    print(json.dumps({"embedding": model.encode("hello world").tolist(), "modules": len(model)}))
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
        """Load a model in a process of its own, which reads HF_ENDPOINT; what it printed, and its requests."""

        def load(repositories: dict[str, Path], name: str, **arguments: Any) -> tuple[dict[str, Any], list[str]]:
            with serving(repositories) as server:
                done = subprocess.run(
                    [sys.executable, "-W", "error", "-c", PROGRAM, name, json.dumps(arguments)],
                    env={**os.environ, "HF_ENDPOINT": server.endpoint, "HF_HOME": str(tmp_path / "home")},
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                return json.loads(done.stdout), list(server.requests)

        return load

    @pytest.mark.parametrize("kind", ["bert", "bert-chain"])
    def test_fetch_and_load_again(
        self, kind: str, load: Any, tiny_folders: dict[str, Path], tmp_path: Path
    ) -> None:
        """A model is fetched once, without copies in other formats; the second load makes no request."""
        folder = tmp_path / "repository"
        shutil.copytree(tiny_folders[kind], folder)
        (folder / "onnx").mkdir()
        for extra in ("onnx/model.onnx", "tf_model.h5", "pytorch_model.bin"):
            (folder / extra).write_bytes(b"0" * 10)

        first, requests = load({NAME: folder}, "tiny")
        second, none = load({}, "tiny")

        expected = SentenceTransformer(str(tiny_folders[kind]), device="cpu").encode("hello world")
        np.testing.assert_allclose(first["embedding"], expected, atol=1e-6)
        assert second == first
        assert none == []
        fetched = {
            request.rpartition(f"{COMMIT}/")[2] for request in requests if request.startswith("GET sentence")
        }
        weights = {"model.safetensors", *(["2_Dense/pytorch_model.bin", "3_LayerNorm/pytorch_model.bin"])}
        assert {file for file in fetched if not file.endswith(".json")} == (
            weights if kind == "bert-chain" else {"model.safetensors"}
        )

    def test_a_plain_checkpoint(self, load: Any, checkpoint: Path) -> None:
        """A repository without modules.json is a plain transformer, which the cache remembers."""
        first, requests = load({"owner/plain": checkpoint}, "owner/plain")
        second, none = load({}, "owner/plain")

        assert first["modules"] == 2
        assert requests
        assert second == first
        assert none == []

    def test_an_interrupted_download(self, load: Any, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
        """What an interrupted download leaves in the cache is not taken for a model: the rest is fetched."""
        load({NAME: tiny_folders["bert"]}, "tiny")
        snapshot = next((tmp_path / "home").rglob("snapshots/*"))
        for name in ("modules.json", "tokenizer.json"):
            (snapshot / name).unlink()

        loaded, requests = load({NAME: tiny_folders["bert"]}, "tiny")

        assert loaded["modules"] == 2
        assert any(request.endswith("tokenizer.json") for request in requests)

    def test_a_repository_without_weights(self, load: Any, checkpoint: Path, tmp_path: Path) -> None:
        """A repository that lacks the weights is an error."""
        shutil.copytree(checkpoint, tmp_path / "empty")
        (tmp_path / "empty" / "model.safetensors").unlink()

        loaded, _ = load({"owner/empty": tmp_path / "empty"}, "owner/empty")

        assert "found no settings or no weights in the model folder itself" in loaded["message"]

    @pytest.mark.parametrize(
        ("name", "arguments", "message"),
        [
            ("owner/nothing", {}, "the Hub has no such model, or it is private"),
            ("tiny", {"revision": "v9"}, "the Hub has the model, but no revision 'v9'"),
        ],
    )
    def test_what_the_hub_does_not_have(
        self, name: str, arguments: Any, message: str, load: Any, tiny_folders: dict[str, Path]
    ) -> None:
        """A model and a revision that are not there are different errors."""
        loaded, _ = load({NAME: tiny_folders["bert"]}, name, **arguments)

        assert loaded["error"] == "HubError"
        assert message in loaded["message"]
