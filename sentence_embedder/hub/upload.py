"""A folder → a commit on the Hub."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sentence_embedder.formats import MODULES_NAME
from sentence_embedder.hub.errors import AccessError, HubError, HubUnavailableError, ModelNotFoundError, status_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import ModelInfo

_CARD_NAME = "README.md"
_NOT_UPLOADED = {".git", ".cache"}

IsOfModel = Callable[[str], bool]
"""The path of a file in a repository → whether it belongs to the model in it."""


@dataclass(frozen=True, kw_only=True)
class ModelTarget:
    """Where a model goes.

    Args:
        name: The name of the repository, with or without its owner.
        token: A token that may write; None or True for the one that is stored on this machine.
        private: Whether a new repository is private; by default as its owner has it.
        exist_ok: Whether it may exist.
        revision: The branch, made if need be; by default the main branch.
        create_pr: Whether a pull request is opened instead; the repository may exist then.
        replaces_card: Whether a model card that is there is replaced.
        message: The message of the commit.
        description: The description of a pull request.
    """

    name: str
    token: bool | str | None = field(default=None, repr=False)
    private: bool | None = None
    exist_ok: bool = False
    revision: str | None = None
    create_pr: bool = False
    replaces_card: bool = False
    message: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if self.create_pr and self.revision is not None:
            raise ValueError("revision and create_pr: a pull request is for the main branch: give one of the two")

    def qualified(self) -> ModelTarget:
        """The same with the owner in its name: the owner of the token, if it has none.

        Raises:
            HubError: The Hub does not know the token.
        """
        if "/" in self.name:
            return self
        with _as_hub_errors(self):
            return replace(self, name=f"{_client(self).whoami()['name']}/{self.name}")


def upload(folder: Path, target: ModelTarget, is_of_model: IsOfModel) -> str:
    """Put a folder on the Hub, in one commit; files of an earlier model that the folder lacks are deleted by it.

    Args:
        folder: The folder. Of a folder that is no model nothing is deleted.
        target: Where it goes; its name has an owner.
        is_of_model: Says of a file in the repository whether it belongs to the model.

    Returns:
        The address of the commit, or of the pull request.

    Raises:
        FileNotFoundError: There is no such folder, or nothing in it.
        HubError: The repository exists, though it must not, or the Hub did not take it.
    """
    names = _names_in(folder)
    if not names:
        raise FileNotFoundError(f"{folder}: expected a model folder, found nothing")
    client = _client(target)
    with _as_hub_errors(target):
        _make_repository(client, target)
    with _as_hub_errors(target, "the repository is there, without this model: push again with exist_ok=True"):
        info = _state_of(client, target)
        operations = _operations(folder, names, target, info, is_of_model)
        commit = client.create_commit(
            target.name,
            operations,
            commit_message=target.message,
            commit_description=target.description if target.create_pr else None,
            revision=target.revision,
            create_pr=target.create_pr,
            parent_commit=info.sha,
        )
    return commit.pr_url or commit.commit_url


def _client(target: ModelTarget) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=target.token, library_name="sentence_embedder")


def _make_repository(client: HfApi, target: ModelTarget) -> None:
    client.create_repo(target.name, private=target.private, exist_ok=target.exist_ok or target.create_pr)
    if target.revision is not None:
        client.create_branch(target.name, branch=target.revision, exist_ok=True)


def _state_of(client: HfApi, target: ModelTarget) -> ModelInfo:
    """What is in the repository."""
    info = client.model_info(target.name, revision=target.revision)
    if target.private and not info.private:
        raise HubError(f"{target.name}: expected a private repository, found a public one: make it private first")
    return info


def _operations(
    folder: Path, names: Sequence[str], target: ModelTarget, info: ModelInfo, is_of_model: IsOfModel
) -> list[Any]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = {file.rfilename for file in info.siblings or ()}
    keeps_card = _CARD_NAME in there and not target.replaces_card
    added = [name for name in names if not (keeps_card and name == _CARD_NAME)]
    is_model = MODULES_NAME in names
    gone = sorted(name for name in there - {*names} if is_model and is_of_model(name))
    return [
        *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in added),
        *(CommitOperationDelete(path_in_repo=name) for name in gone),
    ]


def _names_in(folder: Path) -> list[str]:
    """The files of a folder, apart from those of version control and of the client itself."""
    inside = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in inside if not _NOT_UPLOADED & {*path.parts})


@contextmanager
def _as_hub_errors(target: ModelTarget, so_far: str = "nothing was pushed") -> Iterator[None]:
    """Every error of the client as a HubError that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except errors.HFValidationError as error:
        raise HubError(f"{target.name}: expected a name that the Hub allows, as owner/name") from error
    except (OSError, errors.HTTPError, RuntimeError) as error:  # type: ignore[attr-defined]  # of its HTTP client
        unknown = HubUnavailableError, f"the Hub did not take it; is there a network? ({type(error).__name__})"
        kind, reason = _REASONS.get(status_of(error) or 0, unknown)
        raise kind(f"{target.name}: {reason}; {so_far}") from error
    except ValueError as error:  # of the front of a card
        raise HubError(f"{target.name}: the Hub does not take this: {str(error).strip()} {so_far}") from error


_REASONS: Mapping[int, tuple[type[HubError], str]] = {
    401: (AccessError, "the Hub does not know who is pushing: pass token=, or log in by `hf auth login`"),
    403: (AccessError, "the owner of this token may not write there: pass another token=, or create_pr=True"),
    404: (
        ModelNotFoundError,
        "the Hub has no such repository or branch, or does not show it to this token's owner",
    ),
    409: (HubError, "it exists: pass exist_ok=True to push into it, or choose another name"),
    412: (HubError, "somebody else has pushed meanwhile: push again"),
}
"""What a status means when a model is pushed, and what to do."""
