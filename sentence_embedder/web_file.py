"""A file from the web."""

from __future__ import annotations

import gzip
import os
import re
import secrets
import zlib
from http.client import IncompleteRead
from pathlib import Path
from typing import IO, cast
from urllib.parse import quote, urlsplit, urlunsplit
from urllib.request import urlopen

from sentence_embedder.progress import progress_bar

_SECONDS_OF_SILENCE = 30
_BYTES_AT_ONCE = 2**20

_STRAY_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")
_KEPT_IN_PATH = "%/:@!$&'()*+,;=~"
_KEPT_IN_QUERY = f"{_KEPT_IN_PATH}?[]"


def http_get(url: str, path: str | os.PathLike[str]) -> None:
    """Download a file, with a progress bar; it appears at its place when it is whole.

    Args:
        url: ``https://…`` or ``http://…``; spaces and letters beyond ASCII in it are escaped, escapes stay.
        path: Where it goes; missing folders are made. What the server packs by gzip on the way is unpacked.

    Raises:
        ValueError: It is another kind of URL.
        OSError: The server does not give it (``urllib.error.HTTPError``), cannot be reached, or has broken off.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"url: expected http://… or https://…, found {url!r}")
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}_{secrets.token_hex(6)}_part")  # nobody else's
    try:
        # Its scheme was looked at. A server that falls silent is not waited for without end.
        with urlopen(_escaped(url), timeout=_SECONDS_OF_SILENCE) as response, partial.open("wb") as file:  # noqa: S310
            is_packed = response.headers.get("Content-Encoding", "").lower() in ("gzip", "x-gzip")
            # Of what is packed, nobody says how many bytes it will be.
            promised = 0 if is_packed else int(response.headers.get("Content-Length") or 0)
            content = cast("IO[bytes]", gzip.GzipFile(fileobj=response) if is_packed else response)
            shown = f"Downloading {place.name}"
            with progress_bar(promised or None, unit="byte", shown=True, description=shown) as progress:
                while chunk := content.read(_BYTES_AT_ONCE):
                    progress.update(file.write(chunk))
        found = partial.stat().st_size
        if promised and found != promised:
            raise OSError(f"{url}: expected {promised:,} bytes, found {found:,}: the server has broken off")
        partial.replace(place)
    except IncompleteRead as error:  # which is no OSError
        raise OSError(f"{url}: expected an answer up to its end: the server has broken off: {error}") from error
    except (EOFError, zlib.error) as error:
        raise OSError(f"{url}: expected packed bytes up to their end: the server has broken off") from error
    finally:
        partial.unlink(missing_ok=True)


def _escaped(url: str) -> str:
    """A URL as it is sent: in ASCII, without spaces."""
    parts = urlsplit(_STRAY_PERCENT.sub("%25", url))
    host, colon, port = parts.netloc.partition(":")
    place = parts.netloc if parts.netloc.isascii() else f"{host.encode('idna').decode()}{colon}{port}"
    path, query = quote(parts.path, safe=_KEPT_IN_PATH), quote(parts.query, safe=_KEPT_IN_QUERY)
    return urlunsplit((parts.scheme, place, path, query, ""))
