"""A Hub for reading, on loopback: serves folders as repositories to the real client, and counts the requests."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "a" * 40

_ROUTE = re.compile(
    r"(api/models/)?(?P<name>[^/]+/[^/]+)(/(?P<kind>revision|tree|resolve)/(?P<revision>[^/]+)(/(?P<file>.+))?)?"
)


class HubServer(ThreadingHTTPServer):
    """Serves repositories.

    Args:
        repositories: Name → folder.
    """

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.requests: list[str] = []

    @property
    def endpoint(self) -> str:
        """The address, as ``HF_ENDPOINT`` wants it."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(repositories: Mapping[str, Path]) -> Iterator[HubServer]:
    """A server that runs within this context."""
    server = HubServer(repositories)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_args: object) -> None:
        """Say nothing on the terminal."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path).lstrip("/")
        self.server.requests.append(f"{self.command} {path}")
        found = _ROUTE.fullmatch(path)
        name, kind, revision, file_name = found.group("name", "kind", "revision", "file") if found else ("",) * 4
        folder = self.server.repositories.get(name)
        if folder is None:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if revision not in (None, "main", COMMIT):
            return self._send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        if kind in (None, "revision"):
            siblings = [{"rfilename": file} for file in files]
            return self._send(200, {"id": name, "sha": COMMIT, "private": False, "siblings": siblings})
        if kind == "tree":
            rows = [
                {"type": "file", "path": file, "size": path.stat().st_size, "oid": _digest(path)}
                for file, path in files.items()
            ]
            return self._send(200, rows)
        if file_name not in files:
            return self._send(404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        return self._send(200, files[file_name].read_bytes(), {"ETag": f'"{_digest(files[file_name])}"'})

    def _send(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"X-Repo-Commit": COMMIT, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
