"""Repositories in memory: what the server of the tests keeps."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAIN = "refs/heads/main"


@dataclass(frozen=True)
class Commit:
    """A state of a repository.

    Args:
        oid: Its name.
        title: The first line of its message.
        message: What follows that.
        parent: The commit before it.
        files: Path → content.
    """

    oid: str
    title: str
    message: str
    parent: str | None
    files: Mapping[str, bytes]


@dataclass
class Repository:
    """A repository.

    Args:
        name: Its name, with the owner.
        private: Whether only the owner sees it.
        gated: Whether only the owner gets its files.
    """

    name: str
    private: bool = False
    gated: bool = False
    refs: dict[str, str] = field(default_factory=dict)
    history: dict[str, Commit] = field(default_factory=dict)
    pulls: int = 0

    def __post_init__(self) -> None:
        self.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, title="initial commit")

    @property
    def owner(self) -> str:
        """Whose it is."""
        return self.name.split("/")[0]

    def commit(self, files: Mapping[str, bytes], *, title: str, message: str = "", ref: str = MAIN) -> Commit:
        """Let a ref lead to a new commit with these files and no others."""
        parent = self.refs.get(ref)
        facts = f"{self.name} {parent} {title} {len(self.history)}"
        commit = Commit(hashlib.sha1(facts.encode()).hexdigest(), title, message, parent, dict(files))  # noqa: S324
        self.history[commit.oid] = commit
        self.refs[ref] = commit.oid
        return commit

    def find(self, revision: str) -> Commit | None:
        """The commit of a branch, a tag, another ref, or of its own name."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        oid = next((self.refs[name] for name in names if name in self.refs), revision)
        return self.history.get(oid)

    def commits(self, revision: str = "main") -> list[Commit]:
        """The commits of a revision, the newest first."""
        found, commit = [], self.find(revision)
        while commit is not None:
            found.append(commit)
            commit = self.history.get(commit.parent or "")
        return found

    def open_pull(self) -> str:
        """The ref of a new pull request."""
        self.pulls += 1
        ref = f"refs/pr/{self.pulls}"
        self.refs[ref] = self.refs[MAIN]
        return ref

    def ref_of(self, revision: str) -> str:
        """The full name of the ref that a commit to a revision moves."""
        return revision if revision.startswith("refs/") else f"refs/heads/{revision}"


def is_lfs(path: str) -> bool:
    """Whether a file is kept apart from the repository."""
    return path.endswith((".safetensors", ".bin", ".onnx"))


def entry_of(path: str, content: bytes) -> dict[str, Any]:
    """A file as the tree of a repository lists it."""
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # noqa: S324
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git}
    if is_lfs(path):
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
    return entry


def sha256(content: bytes) -> str:
    """The name of a file that is kept apart."""
    return hashlib.sha256(content).hexdigest()


def files_in(place: Path | Mapping[str, bytes]) -> dict[str, bytes]:
    """Path → content of the files in a folder, or those that are given."""
    if isinstance(place, Mapping):
        return dict(place)
    inside = (path for path in place.rglob("*") if path.is_file())
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in inside}
