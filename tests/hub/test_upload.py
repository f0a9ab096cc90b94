"""Pushing: what lies on the Hub afterwards, what is said when it fails, and that what was pushed can be loaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer
from sentence_embedder.hub import HubError, HubUnavailableError
from tests.hub.server import TOKEN, Fault, HubServer

TEXTS = ["hello world", "a longer text than the other"]


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Load a model from the server, into a cache of the test's own."""

    def load(name: str, **arguments: Any) -> SentenceTransformer:
        return SentenceTransformer(
            name, device="cpu", **{"cache_folder": str(tmp_path / "cache"), "token": TOKEN, **arguments}
        )

    return load


def assert_same_vectors(model: SentenceTransformer, other: SentenceTransformer) -> None:
    """Two models embed alike, to the bit."""
    np.testing.assert_array_equal(model.encode(TEXTS), other.encode(TEXTS))


def changed(model: SentenceTransformer) -> SentenceTransformer:
    """The model with other weights."""
    model[0].auto_model.embeddings.word_embeddings.weight.data *= 2
    return model


class TestPush:
    """What is on the Hub afterwards."""

    def test_push_and_load(self, hub: HubServer, model: SentenceTransformer, load: Any, tmp_path: Path) -> None:
        """A new repository holds what save writes, in one commit, whose address is returned; vectors come back."""
        url = model.push_to_hub("me/mine", token=TOKEN)

        model.save(tmp_path / "saved", model_name="me/mine")
        expected = {
            path.relative_to(tmp_path / "saved").as_posix(): path.read_bytes()
            for path in (tmp_path / "saved").rglob("*")
            if path.is_file()
        }
        found = hub.files("me/mine")
        assert {name: found[name] for name in found if name != ".gitattributes"} == expected
        assert 'SentenceTransformer("me/mine")' in found["README.md"].decode()
        commits = hub.commits("me/mine")
        assert [commit.title for commit in commits] == ["Add new SentenceTransformer model.", "initial commit"]
        assert url == f"{hub.endpoint}/me/mine/commit/{commits[0].oid}"
        assert_same_vectors(load("me/mine"), model)

    @pytest.mark.usefixtures("hub")
    @pytest.mark.parametrize("kind", ["bert-chain", "decoder"])
    def test_other_chains(self, kind: str, tiny_folders: dict[str, Path], load: Any) -> None:
        """So it is for modules in folders of their own."""
        model = SentenceTransformer(str(tiny_folders[kind]), device="cpu")

        model.push_to_hub("me/mine", token=TOKEN)

        assert_same_vectors(load("me/mine"), model)

    @pytest.mark.usefixtures("hub")
    def test_push_again(self, model: SentenceTransformer, load: Any) -> None:
        """A second push replaces the first where that was allowed; an earlier commit can still be loaded."""
        first = model.push_to_hub("me/mine", TOKEN).rpartition("/")[2]
        before = model.encode(TEXTS)
        changed(model).push_to_hub("me/mine", TOKEN, exist_ok=True, commit_message="Better")

        assert_same_vectors(load("me/mine"), model)
        np.testing.assert_array_equal(load("me/mine", revision=first).encode(TEXTS), before)

    def test_an_existing_repository(self, hub: HubServer, model: SentenceTransformer) -> None:
        """Without exist_ok a repository that is there is an error, before anything is sent to it."""
        hub.add_repository("me/mine", {"README.md": b"mine"})
        before = hub.files("me/mine")

        with pytest.raises(HubError, match=r"me/mine: it exists: pass exist_ok=True .*; nothing was pushed"):
            model.push_to_hub("me/mine", token=TOKEN)

        assert hub.files("me/mine") == before
        assert not [request for request in hub.requests if "preupload" in request or "commit" in request]

    def test_a_branch(self, hub: HubServer, model: SentenceTransformer, load: Any) -> None:
        """A branch is made if need be; the main one stays as it is. Its name may have a slash."""
        model.push_to_hub("me/mine", token=TOKEN)
        before = hub.files("me/mine")
        changed(model)

        for _ in range(2):
            model.push_to_hub("me/mine", token=TOKEN, exist_ok=True, revision="feature/x")

        assert hub.files("me/mine") == before
        assert "feature/x" in hub.branches("me/mine")
        assert_same_vectors(load("me/mine", revision="feature/x"), model)

    def test_a_pull_request(self, hub: HubServer, model: SentenceTransformer, load: Any) -> None:
        """A pull request needs no exist_ok, changes nothing of the repository, and can be loaded by its ref."""
        model.push_to_hub("me/mine", token=TOKEN)
        before = hub.files("me/mine")

        url = changed(model).push_to_hub("me/mine", token=TOKEN, create_pr=True)

        assert url == f"{hub.endpoint}/me/mine/discussions/1"
        assert hub.files("me/mine") == before
        assert_same_vectors(load("me/mine", revision="refs/pr/1"), model)

    @pytest.mark.usefixtures("hub")
    def test_a_pull_request_is_for_the_main_branch(self, model: SentenceTransformer) -> None:
        """A branch and a pull request together make no sense."""
        with pytest.raises(ValueError, match="revision and create_pr"):
            model.push_to_hub("me/mine", token=TOKEN, create_pr=True, revision="dev")

    def test_a_name_without_an_owner(self, hub: HubServer, model: SentenceTransformer) -> None:
        """It belongs to who pushes, in the card, too."""
        model.push_to_hub("mine", token=TOKEN)

        assert 'SentenceTransformer("me/mine")' in hub.files("me/mine")["README.md"].decode()

    def test_a_folder(self, hub: HubServer, model: SentenceTransformer, tmp_path: Path) -> None:
        """local_model_path is what is pushed then, as it is, but for version control."""
        (tmp_path / "folder" / "1_Pooling").mkdir(parents=True)
        (tmp_path / "folder" / ".git").mkdir()
        for name in ("config.json", "1_Pooling/config.json", ".git/config"):
            (tmp_path / "folder" / name).write_text("{}")

        model.push_to_hub("me/mine", token=TOKEN, local_model_path=str(tmp_path / "folder"))

        assert sorted(hub.files("me/mine")) == [".gitattributes", "1_Pooling/config.json", "config.json"]

    @pytest.mark.parametrize("name", ["nothing", "empty"])
    def test_a_folder_with_nothing_in_it(
        self, name: str, hub: HubServer, model: SentenceTransformer, tmp_path: Path
    ) -> None:
        """A folder that is not there, or empty, is an error before a repository is made."""
        (tmp_path / "empty").mkdir()

        with pytest.raises(FileNotFoundError, match=f"{name}: expected a model folder, found nothing"):
            model.push_to_hub("me/mine", token=TOKEN, local_model_path=str(tmp_path / name))

        assert hub.requests == []

    def test_what_an_earlier_model_left(self, hub: HubServer, model: SentenceTransformer, load: Any) -> None:
        """Files of an earlier model are deleted by the commit, or readers would take them; all others stay."""
        left = {
            **dict.fromkeys(["model.safetensors", "adapter_config.json", "2_Dense/config.json"], b"{}"),
            **dict.fromkeys(["data.csv", "onnx/model.onnx", "notes/config.json", "2024_results/a.csv"], b"mine"),
            "3_Mine/weights.pt": b"old",
        }
        hub.add_repository("me/mine", left)

        model.push_to_hub("me/mine", token=TOKEN, exist_ok=True, safe_serialization=False)

        found = hub.files("me/mine")
        kept = {"data.csv", "onnx/model.onnx", "notes/config.json", "2024_results/a.csv"}
        assert {*kept, "pytorch_model.bin"} <= found.keys()
        gone = {"model.safetensors", "adapter_config.json", "2_Dense/config.json", "3_Mine/weights.pt"}
        assert not gone & found.keys()
        assert_same_vectors(load("me/mine"), model)

    @pytest.mark.parametrize("replaces", [False, True])
    def test_the_card_that_is_there(self, replaces: bool, hub: HubServer, model: SentenceTransformer) -> None:
        """It stays, unless it shall be replaced."""
        hub.add_repository("me/mine", {"README.md": b"# By hand"})

        model.push_to_hub("me/mine", token=TOKEN, exist_ok=True, replace_model_card=replaces)

        assert (hub.files("me/mine")["README.md"] == b"# By hand") is not replaces
        assert "model.safetensors" in hub.files("me/mine")

    def test_the_same_again(self, hub: HubServer, model: SentenceTransformer) -> None:
        """Pushing what is there already sends no weights."""
        model.push_to_hub("me/mine", token=TOKEN)
        hub.requests.clear()

        model.push_to_hub("me/mine", token=TOKEN, exist_ok=True)

        assert not [request for request in hub.requests if request.startswith("PUT")]

    def test_names_of_data_sets(self, hub: HubServer, model: SentenceTransformer) -> None:
        """train_datasets stand in the card."""
        model.push_to_hub("me/mine", token=TOKEN, train_datasets=["snli"])

        assert 'datasets: ["snli"]' in hub.files("me/mine")["README.md"].decode()


class TestRights:
    """Who may do what."""

    def test_private(self, hub: HubServer, model: SentenceTransformer, load: Any, tmp_path: Path) -> None:
        """A private repository is loaded with the owner's token, and by nobody else."""
        model.push_to_hub("me/mine", token=TOKEN, private=True)

        assert_same_vectors(load("me/mine"), model)
        for token in (False, hub.add_user("other")):
            with pytest.raises(HubError, match="me/mine: the Hub has no such model, or it is private"):
                load("me/mine", token=token, cache_folder=str(tmp_path / "other"))

    def test_private_and_public(self, hub: HubServer, model: SentenceTransformer) -> None:
        """What shall be private is not pushed into a repository that is public."""
        hub.add_repository("me/mine", {"data.csv": b"mine"})
        before = hub.files("me/mine")

        with pytest.raises(HubError, match="expected a private repository, found a public one"):
            model.push_to_hub("me/mine", token=TOKEN, exist_ok=True, private=True)

        assert hub.files("me/mine") == before

    @pytest.mark.parametrize(
        ("name", "token", "message"),
        [
            ("other/mine", TOKEN, "the owner of this token may not write there"),
            ("me/mine", "hf_unknown", "the Hub does not know who is pushing: pass token="),
            ("mine", "hf_unknown", "the Hub does not know who is pushing: pass token="),
            ("no such/name!", TOKEN, "expected a name that the Hub allows"),
        ],
    )
    def test_without_a_right(
        self, name: str, token: str, message: str, hub: HubServer, model: SentenceTransformer
    ) -> None:
        """Whoever may not push is told so, and what to do."""
        hub.add_user("other")

        with pytest.raises(HubError, match=message):
            model.push_to_hub(name, token=token)

    def test_a_pull_request_to_another(self, hub: HubServer, model: SentenceTransformer) -> None:
        """Anybody may open a pull request."""
        hub.add_user("other")
        hub.add_repository("other/theirs", {"data.csv": b"theirs"})

        url = model.push_to_hub("other/theirs", token=TOKEN, create_pr=True)

        assert url.endswith("/other/theirs/discussions/1")
        assert sorted(hub.files("other/theirs")) == [".gitattributes", "data.csv"]

    def test_the_token_is_nowhere(
        self, hub: HubServer, model: SentenceTransformer, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No file, no log line and no error holds the token."""
        caplog.set_level(logging.DEBUG)
        model.push_to_hub("me/mine", token=TOKEN)
        with pytest.raises(HubError) as raised:
            model.push_to_hub("me/mine", token=TOKEN)

        assert not [name for name, content in hub.files("me/mine").items() if TOKEN.encode() in content]
        assert TOKEN not in caplog.text
        error: BaseException | None = raised.value
        while error is not None:
            assert TOKEN not in f"{error!r}{error}{vars(error)}"
            error = error.__cause__ or error.__context__


class TestFailures:
    """Pushes that come to nothing."""

    def test_somebody_else_pushes_meanwhile(
        self, hub: HubServer, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Then the commit is refused, rather than mixing two models."""
        hub.add_repository("me/mine", {"data.csv": b"mine"})
        import huggingface_hub

        model_info = huggingface_hub.HfApi.model_info

        def overtaken(client: Any, *args: Any, **kwargs: Any) -> Any:
            info = model_info(client, *args, **kwargs)
            client.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs.txt", repo_id="me/mine")
            return info

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", overtaken)

        with pytest.raises(HubError, match="somebody else has pushed meanwhile: push again"):
            model.push_to_hub("me/mine", token=TOKEN, exist_ok=True)

        assert sorted(hub.files("me/mine")) == [".gitattributes", "data.csv", "theirs.txt"]

    def test_a_card_that_the_hub_does_not_take(
        self, hub: HubServer, model: SentenceTransformer, tmp_path: Path
    ) -> None:
        """A card with a front that is not allowed is an error, before any file is sent."""
        model.save(tmp_path / "folder")
        (tmp_path / "folder" / "README.md").write_text("---\nlicense: [\n---\n", encoding="utf-8")
        hub.misbehave("POST api/validate-yaml", Fault(status=400))

        with pytest.raises(HubError, match=r"the Hub does not take this: .*README.*push again with exist_ok=True"):
            model.push_to_hub("me/mine", token=TOKEN, local_model_path=tmp_path / "folder")

        assert not [request for request in hub.requests if "preupload" in request]

    @pytest.mark.parametrize("request_line", ["PUT lfs", "POST .*preupload", "POST .*/commit/", "GET api/models"])
    def test_a_hub_that_fails(
        self, request_line: str, hub: HubServer, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If the Hub fails for good, the repository has none of the model, and a second push makes it good."""
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        hub.misbehave(request_line, *[Fault(status=500)] * 40)

        with pytest.raises(HubUnavailableError, match="the Hub did not take it"):
            model.push_to_hub("me/mine", token=TOKEN)
        assert sorted(hub.files("me/mine")) == [".gitattributes"]
        hub.recover()
        model.push_to_hub("me/mine", token=TOKEN, exist_ok=True)

        assert "model.safetensors" in hub.files("me/mine")

    def test_a_model_that_cannot_be_saved(
        self, hub: HubServer, model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No repository is made for it."""

        def full(*_args: Any, **_kwargs: Any) -> None:
            raise OSError("No space left on device")

        monkeypatch.setattr(model, "save", full)

        with pytest.raises(OSError, match="No space left"):
            model.push_to_hub("me/mine", token=TOKEN)

        assert hub.requests == []


class TestOlderNames:
    """save_to_hub and use_auth_token."""

    @pytest.mark.parametrize(
        ("args", "kwargs"),
        [
            (("me/mine",), {}),
            (("mine", "me"), {}),
            (("me/mine", "me"), {}),
            ((), {"repo_name": "mine"}),
            (("mine",), {"organization": "me"}),
        ],
    )
    def test_save_to_hub(
        self, args: tuple[str, ...], kwargs: dict[str, str], hub: HubServer, model: SentenceTransformer
    ) -> None:
        """It is push_to_hub, with the owner apart if need be, and a warning."""
        with pytest.warns(FutureWarning, match="save_to_hub is the older name of push_to_hub"):
            url = model.save_to_hub(*args, **kwargs, token=TOKEN)

        assert url.startswith(f"{hub.endpoint}/me/mine/commit/")

    def test_two_owners(self, model: SentenceTransformer) -> None:
        """Two owners are an error, and so is no name."""
        with (
            pytest.warns(FutureWarning, match="older name"),
            pytest.raises(ValueError, match="organization: expected the owner in repo_id, 'me', found 'other'"),
        ):
            model.save_to_hub("me/mine", organization="other")
        with pytest.warns(FutureWarning, match="older name"), pytest.raises(TypeError, match="expected repo_id"):
            model.save_to_hub()

    def test_use_auth_token(self, hub: HubServer, model: SentenceTransformer) -> None:
        """It is the older name of token; both together are an error."""
        with pytest.warns(FutureWarning, match="use_auth_token is the older name"):
            model.push_to_hub("me/mine", use_auth_token=TOKEN)
        with pytest.raises(ValueError, match="both given"):
            model.push_to_hub("me/mine", token=TOKEN, use_auth_token=TOKEN)

        assert "model.safetensors" in hub.files("me/mine")
