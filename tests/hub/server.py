"""A Hub on loopback, for the real client: it answers as huggingface.co does, or as a test says."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.hub.repositories import Commit, Repository, entry_of, files_in, is_lfs, sha256

TOKEN = "hf_ofTheUserMe"  # noqa: S105
"""The token of the user ``me``."""


@dataclass(frozen=True)
class Fault:
    """An answer that no good server gives.

    Args:
        status: Its status, if it is an error.
        headers: Headers beside the usual ones.
        part: How much of the body is sent of what was promised, between 0 and 1.
        stall: For how many seconds nothing comes, after that part.
        adds: Bytes that the body has beyond what was promised before.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    part: float = 1.0
    stall: float = 0.0
    adds: bytes = b""


class HttpError(Exception):
    """A request that is refused.

    Args:
        status: The status.
        message: Why.
        code: The Hub's own word for it.
        headers: More headers.
    """

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        named = {"X-Error-Code": code} if code else {}
        self.status, self.headers = status, {"X-Error-Message": message, **named, **(headers or {})}


class HubServer:
    """The server, and what tests need of it.

    Attributes:
        endpoint: Its address.
        requests: What was asked for, as ``METHOD path``.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.requests: list[str] = []
        self.repositories: dict[str, Repository] = {}
        self.users = {TOKEN: "me"}
        self.blobs: dict[str, bytes] = {}
        self._faults: list[tuple[re.Pattern[str], list[Fault]]] = []

    def add_user(self, name: str) -> str:
        """A new user; the token."""
        token = f"hf_ofTheUser{name.title()}"
        self.users[token] = name
        return token

    def add_repository(
        self, name: str, files: Path | Mapping[str, bytes], *, private: bool = False, gated: bool = False
    ) -> str:
        """A new repository, or another commit on its main branch; the name of the commit."""
        repository = self.repositories.setdefault(name, Repository(name, private, gated))
        before = repository.commits()[0].files
        title = "more" if len(before) > 1 else "files"
        return repository.commit({".gitattributes": before[".gitattributes"], **files_in(files)}, title=title).oid

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Path → content of the files of a revision."""
        commit = self.repositories[name].find(revision)
        assert commit is not None
        return dict(commit.files)

    def commits(self, name: str, revision: str = "main") -> list[Commit]:
        """The commits of a revision, the newest first."""
        return self.repositories[name].commits(revision)

    def branches(self, name: str) -> list[str]:
        """The branches of a repository."""
        refs = self.repositories[name].refs
        return [ref.removeprefix("refs/heads/") for ref in refs if ref.startswith("refs/heads/")]

    def misbehave(self, pattern: str, *faults: Fault) -> None:
        """Let the next requests that a pattern finds, as ``METHOD path``, be answered like this."""
        self._faults.append((re.compile(pattern), list(faults)))

    def recover(self) -> None:
        """Answer well again."""
        self._faults.clear()

    def fault_for(self, request: str) -> Fault | None:
        """How a request is answered wrongly, if it is."""
        for pattern, faults in self._faults:
            if faults and pattern.search(request):
                return faults.pop(0)
        return None


@contextmanager
def running() -> Iterator[HubServer]:
    """A server that runs within this context, in a thread."""
    hub = HubServer()
    app = Starlette(routes=[Route("/{path:path}", _Answers(hub).answer, methods=[*_METHODS])])
    config = uvicorn.Config(app, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        hub.endpoint = f"http://127.0.0.1:{place.getsockname()[1]}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        try:
            yield hub
        finally:
            server.should_exit = True
            thread.join(timeout=10)


_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_NAME = r"(?P<name>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES: Sequence[tuple[str, str, str]] = (
    ("GET", r"api/whoami-v2", "whoami"),
    ("POST", r"api/repos/create", "create"),
    ("DELETE", r"api/repos/delete", "delete"),
    ("POST", r"api/validate-yaml", "validate"),
    ("GET", rf"api/models/{_NAME}", "info"),
    ("GET", rf"api/models/{_NAME}/revision/{_REVISION}", "info"),
    ("GET", rf"api/models/{_NAME}/tree/{_REVISION}(/.*)?", "tree"),
    ("GET", rf"api/models/{_NAME}/refs", "refs"),
    ("GET", rf"api/models/{_NAME}/commits/{_REVISION}", "log"),
    ("POST", rf"api/models/{_NAME}/paths-info/{_REVISION}", "paths"),
    ("POST", rf"api/models/{_NAME}/branch/{_REVISION}", "branch"),
    ("POST", rf"api/models/{_NAME}/tag/{_REVISION}", "tag"),
    ("POST", rf"api/models/{_NAME}/preupload/{_REVISION}", "preupload"),
    ("POST", rf"api/models/{_NAME}/commit/{_REVISION}", "commit"),
    ("POST", rf"{_NAME}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"lfs/(?P<oid>[0-9a-f]{64})", "store"),
    ("POST", r"lfs/verify", "verify"),
    ("HEAD", rf"{_NAME}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
    ("GET", rf"{_NAME}/resolve/{_REVISION}/(?P<path>.+)", "resolve"),
)


class _Answers:
    """What each request is answered.

    Args:
        hub: The server.
    """

    def __init__(self, hub: HubServer) -> None:
        self._hub = hub

    async def answer(self, request: Request) -> Response:
        """The answer to a request, by its raw path: names in it may have quoted slashes."""
        path = request.scope["raw_path"].decode().lstrip("/")
        line = f"{request.method} {path}"
        self._hub.requests.append(line)
        fault = self._hub.fault_for(line) or Fault()
        try:
            if fault.status is not None:
                raise HttpError(fault.status, "as the test says", headers=fault.headers)
            response = await self._answer(request, path)
        except HttpError as error:
            response = JSONResponse({"error": str(error)}, error.status, dict(error.headers))
        return _spoilt(response, fault) if fault != Fault() and fault.status is None else response

    async def _answer(self, request: Request, path: str) -> Response:
        for method, pattern, name in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and method == request.method:
                arguments = {key: unquote(value) for key, value in found.groupdict().items()}
                body = await request.body()
                answered = getattr(self, name)(request, body, **arguments)
                return answered if isinstance(answered, Response) else JSONResponse(answered)
        raise HttpError(404, f"no route for {request.method} {path}")

    # ── Who may do what ───────────────────────────────────────────────────────────────────────────────────

    def _user(self, request: Request) -> str | None:
        header = request.headers.get("authorization")
        if header is None:
            return None
        user = self._hub.users.get(header.removeprefix("Bearer "))
        if user is None:
            raise HttpError(401, "Invalid credentials in Authorization header")
        return user

    def _seen(self, request: Request, name: str) -> Repository:
        user, repository = self._user(request), self._hub.repositories.get(name)
        if repository is None or (repository.private and user != repository.owner):
            raise HttpError(401 if user is None else 404, "Repository not found", "RepoNotFound")
        return repository

    def _owned(self, request: Request, name: str) -> Repository:
        repository = self._seen(request, name)
        self._check_owner(request, repository.owner)
        return repository

    def _check_owner(self, request: Request, owner: str) -> None:
        user = self._user(request)
        if user is None:
            raise HttpError(401, "Invalid username or password.")
        if user != owner:
            raise HttpError(403, f"You don't have the rights to write as {owner}")

    def _commit(self, repository: Repository, revision: str) -> Commit:
        commit = repository.find(revision)
        if commit is None:
            raise HttpError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # ── Repositories ──────────────────────────────────────────────────────────────────────────────────────

    def whoami(self, request: Request, _body: bytes) -> Any:
        """Whose token it is."""
        user = self._user(request)
        if user is None:
            raise HttpError(401, "Invalid username or password.")
        return {"type": "user", "name": user, "auth": {"accessToken": {"displayName": "t", "role": "write"}}}

    def create(self, request: Request, body: bytes) -> Any:
        """A new repository."""
        wanted = json.loads(body)
        owner = wanted.get("organization") or self._user(request) or ""
        name = f"{owner}/{wanted['name']}"
        self._check_owner(request, owner)
        answer = {"url": f"{self._hub.endpoint}/{name}", "name": name, "id": name}
        if name in self._hub.repositories:
            return JSONResponse({**answer, "error": "You already created this model repo"}, 409)
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        self._hub.repositories[name] = Repository(name, private)
        return answer

    def delete(self, request: Request, body: bytes) -> Any:
        """A repository less."""
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        self._owned(request, name)
        del self._hub.repositories[name]
        return {}

    def validate(self, _request: Request, _body: bytes) -> Any:
        """What is wrong with the front of a card: the tests of the card look at that."""
        return {"errors": [], "warnings": []}

    def info(self, request: Request, _body: bytes, name: str, revision: str = "main") -> Any:
        """What a repository is, and what is in it."""
        repository = self._seen(request, name)
        commit = self._commit(repository, revision)
        return {
            "id": name,
            "sha": commit.oid,
            "private": repository.private,
            "gated": "auto" if repository.gated else False,
            **dict.fromkeys(["lastModified", "createdAt"], "2026-01-01T00:00:00.000Z"),
            **dict.fromkeys(["downloads", "likes"], 0),
            "tags": [],
            "siblings": [{"rfilename": path} for path in commit.files],
        }

    def tree(self, request: Request, _body: bytes, name: str, revision: str) -> Any:
        """Every file of a revision."""
        commit = self._commit(self._seen(request, name), revision)
        return [entry_of(path, content) for path, content in commit.files.items()]

    def paths(self, request: Request, body: bytes, name: str, revision: str) -> Any:
        """Some files of a revision."""
        commit = self._commit(self._seen(request, name), revision)
        wanted = parse_qs(body.decode()).get("paths", [])
        return [entry_of(path, commit.files[path]) for path in wanted if path in commit.files]

    def refs(self, request: Request, _body: bytes, name: str) -> Any:
        """The branches and tags."""
        refs = self._seen(request, name).refs
        rows = [{"name": ref.split("/", 2)[2], "ref": ref, "targetCommit": oid} for ref, oid in refs.items()]
        kinds = {"branches": "refs/heads/", "tags": "refs/tags/"}
        found = {kind: [row for row in rows if row["ref"].startswith(start)] for kind, start in kinds.items()}
        return {**found, "converts": []}

    def log(self, request: Request, _body: bytes, name: str, revision: str) -> Any:
        """The commits of a revision."""
        repository = self._seen(request, name)
        self._commit(repository, revision)
        return [
            {"id": commit.oid, "title": commit.title, "message": commit.message, "authors": []}
            for commit in repository.commits(revision)
        ]

    def branch(self, request: Request, body: bytes, name: str, revision: str) -> Any:
        """A new branch."""
        repository = self._owned(request, name)
        if f"refs/heads/{revision}" in repository.refs:
            raise HttpError(409, "Reference already exists")
        start = json.loads(body or b"{}").get("startingPoint", "main")
        repository.refs[f"refs/heads/{revision}"] = self._commit(repository, start).oid
        return JSONResponse({}, 201)

    def tag(self, request: Request, body: bytes, name: str, revision: str) -> Any:
        """A new tag."""
        repository = self._owned(request, name)
        repository.refs[f"refs/tags/{json.loads(body)['tag']}"] = self._commit(repository, revision).oid
        return JSONResponse({}, 201)

    # ── Uploads ───────────────────────────────────────────────────────────────────────────────────────────

    def preupload(self, request: Request, body: bytes, name: str, revision: str) -> Any:
        """How each file shall come, and which the repository has."""
        present = self._commit(self._seen(request, name), revision).files
        rows = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            row = {"path": path, "uploadMode": "lfs" if is_lfs(path) else "regular", "shouldIgnore": False}
            if path in present:
                entry = entry_of(path, present[path])
                row["oid"] = entry.get("lfs", entry)["oid"]
            rows.append(row)
        return {"files": rows}

    def batch(self, request: Request, body: bytes, name: str) -> Any:
        """Where the large files shall go that are not here yet."""
        self._seen(request, name)
        objects: list[dict[str, Any]] = []
        for wanted in json.loads(body)["objects"]:
            actions = {
                "upload": {"href": f"{self._hub.endpoint}/lfs/{wanted['oid']}", "header": {}},
                "verify": {"href": f"{self._hub.endpoint}/lfs/verify", "header": {}},
            }
            objects.append({**wanted, **({} if wanted["oid"] in self._hub.blobs else {"actions": actions})})
        return {"transfer": "basic", "objects": objects}

    def store(self, request: Request, body: bytes, oid: str) -> Any:
        """A large file."""
        assert "authorization" not in request.headers
        if sha256(body) != oid:
            raise HttpError(400, "the content is not what was announced")
        self._hub.blobs[oid] = body
        return {}

    def verify(self, _request: Request, body: bytes) -> Any:
        """Whether a large file has come."""
        if json.loads(body)["oid"] not in self._hub.blobs:
            raise HttpError(404, "no such object")
        return {}

    def commit(self, request: Request, body: bytes, name: str, revision: str) -> Any:
        """A new commit, on a branch or in a pull request."""
        is_pull = "create_pr" in request.query_params
        repository = self._seen(request, name) if is_pull else self._owned(request, name)
        if is_pull and self._user(request) is None:
            raise HttpError(401, "Invalid username or password.")
        base = self._commit(repository, revision)
        rows = [json.loads(line) for line in body.splitlines()]
        header = next(row["value"] for row in rows if row["key"] == "header")
        if header.get("parentCommit") not in (None, base.oid):
            raise HttpError(412, "A commit has happened since. Please refresh and try again.")
        ref = repository.open_pull() if is_pull else repository.ref_of(revision)
        title, message = header["summary"], header.get("description", "")
        made = repository.commit(self._changed(base, rows), title=title, message=message, ref=ref)
        address = f"{self._hub.endpoint}/{name}"
        answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{address}/commit/{made.oid}"}
        return {**answer, "pullRequestUrl": f"{address}/discussions/{repository.pulls}"} if is_pull else answer

    def _changed(self, base: Commit, rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
        files = dict(base.files)
        for row in rows:
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self._hub.blobs[value["oid"]]
            elif row["key"] == "deletedFile":
                del files[value["path"]]
        return files

    # ── Downloads ─────────────────────────────────────────────────────────────────────────────────────────

    def resolve(self, request: Request, _body: bytes, name: str, revision: str, path: str) -> Response:
        """A file."""
        repository = self._seen(request, name)
        if repository.gated and self._user(request) != repository.owner:
            raise HttpError(403, "Access to this model is restricted", "GatedRepo")
        commit = self._commit(repository, revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise HttpError(404, "Entry not found", "EntryNotFound", headers)
        content = commit.files[path]
        entry = entry_of(path, content)
        oid = entry.get("lfs", entry)["oid"]
        if "lfs" in entry:
            headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        headers |= {"ETag": f'"{oid}"', "Content-Length": str(len(content)), "Accept-Ranges": "bytes"}
        start = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start and request.method == "GET":
            place = f"bytes {start}-{len(content) - 1}/{len(content)}"
            headers |= {"Content-Range": place, "Content-Length": str(len(content) - start)}
            return Response(content[start:], 206, headers)
        return Response(b"" if request.method == "HEAD" else content, 200, headers)


def _spoilt(response: Response, fault: Fault) -> Response:
    """An answer of which only a part comes, or late, or more than was promised."""
    body = bytes(response.body)
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    sent = body[: int(len(body) * fault.part)] + fault.adds

    async def chunks() -> AsyncIterator[bytes]:
        yield sent
        await asyncio.sleep(fault.stall)
        if fault.stall and fault.part < 1:
            yield body[len(sent) :]

    size = len(body) + len(fault.adds)
    return StreamingResponse(
        chunks(), response.status_code, {**headers, **fault.headers, "Content-Length": str(size)}
    )
