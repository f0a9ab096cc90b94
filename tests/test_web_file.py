"""Downloads: whole or not there."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest

from sentence_embedder.util import http_get

CONTENT = b"vectors " * 5000


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/broken" else CONTENT)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_comes_whole(address: str, tmp_path: Path) -> None:
    """What the server has, is there afterwards, in a folder that is made, and nothing beside it."""
    place = tmp_path / "data" / "vectors.txt"

    http_get(f"{address}/vectors", str(place))

    assert place.read_bytes() == CONTENT
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize(
    ("path", "message"), [("missing", "404"), ("broken", "expected 40,000 bytes, found 1,000")]
)
def test_what_fails_leaves_nothing_behind(path: str, message: str, address: str, tmp_path: Path) -> None:
    """A file that the server lacks, or breaks off in the midst of, is an error; an older one stays."""
    place = tmp_path / "vectors.txt"
    place.write_bytes(b"older")

    with pytest.raises(OSError, match=message) as caught:
        http_get(f"{address}/{path}", place)

    if isinstance(caught.value, HTTPError):
        caught.value.close()
    assert place.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [place]


def test_files_of_this_machine_are_no_web(tmp_path: Path) -> None:
    """Only http and https are fetched."""
    (tmp_path / "secret").write_text("…")

    with pytest.raises(ValueError, match=r"expected http://… or https://…, found 'file://"):
        http_get((tmp_path / "secret").as_uri(), tmp_path / "copy")
