"""Downloads: whole or not there."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError

import pytest

from sentence_embedder.util import http_get

CONTENT = b"vectors " * 5000


BOTH_HALFWAY = threading.Barrier(2)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path.startswith("/packed"):
            self._send_packed()
            return
        if self.path == "/slow":
            self._send_in_halves()
            return
        if self.path.startswith("/said"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())
            return
        if self.path == "/chunks-broken":
            self._send_chunk()
            return
        self.send_response(404 if self.path == "/missing" else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[:1000] if self.path == "/broken" else CONTENT)

    def _send_packed(self) -> None:
        packed = gzip.compress(CONTENT)
        if self.path == "/packed-broken":
            packed = packed[:-20]
        if self.path == "/packed-damaged":
            packed = packed[:10] + bytes(20)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(packed)))
        self.end_headers()
        self.wfile.write(packed)

    def _send_in_halves(self) -> None:
        """The second half when somebody else has the first, or all."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2])
        self.wfile.flush()
        BOTH_HALFWAY.wait(60)
        self.wfile.write(CONTENT[len(CONTENT) // 2 :])

    def _send_chunk(self) -> None:
        """The first chunk of several."""
        self.protocol_version = "HTTP/1.1"
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"ff\r\nvectors")
        self.close_connection = True

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


def test_two_fetch_a_file_to_one_place(address: str, tmp_path: Path) -> None:
    """Processes, or threads, that fetch a file to the same place do not write into each other's."""
    place = tmp_path / "vectors.txt"

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: http_get(f"{address}/slow", place), range(2)))

    assert place.read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [place]


def test_what_is_packed_on_the_way_is_unpacked(address: str, tmp_path: Path) -> None:
    """What a server packs by gzip is what it was before that."""
    http_get(f"{address}/packed", tmp_path / "vectors.txt")

    assert (tmp_path / "vectors.txt").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("a b", "a%20b"),
        ("a%20b", "a%20b"),
        ("ä/ö?q=ü ü&r=[1]", "%C3%A4/%C3%B6?q=%C3%BC%20%C3%BC&r=[1]"),
        ("100% sure%2", "100%25%20sure%252"),
        ("a+b,(c)~;v=1@x:y?u=https://z/?w", "a+b,(c)~;v=1@x:y?u=https://z/?w"),
        ("a#part", "a"),
    ],
)
def test_addresses_are_escaped(path: str, asked: str, address: str, tmp_path: Path) -> None:
    """The server is asked for an address in ASCII without spaces, in which escapes and what has a meaning stay."""
    http_get(f"{address}/said/{path}", tmp_path / "asked")

    assert (tmp_path / "asked").read_text() == f"/said/{asked}"


def test_hosts_beyond_ascii(no_network: list[str], tmp_path: Path) -> None:
    """A host is looked for under its name in ASCII."""
    with pytest.raises(OSError, match="reached for the network"):
        http_get("http://bücher.example:8000/a", tmp_path / "a")

    assert no_network == ["xn--bcher-kva.example"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "404"),
        ("broken", "expected 40,000 bytes, found 1,000"),
        ("chunks-broken", "expected an answer up to its end: the server has broken off"),
        ("packed-broken", "expected packed bytes up to their end: the server has broken off"),
        ("packed-damaged", "packed bytes"),
    ],
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
