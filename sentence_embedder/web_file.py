"""A file from the web."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from sentence_embedder.progress import progress_bar

_SECONDS_OF_SILENCE = 30
_BYTES_AT_ONCE = 2**20


def http_get(url: str, path: str | os.PathLike[str]) -> None:
    """Download a file, with a progress bar; it appears at its place when it is whole.

    Args:
        url: ``https://…`` or ``http://…``.
        path: Where it goes; missing folders are made.

    Raises:
        ValueError: It is another kind of URL.
        OSError: The server does not give it (``urllib.error.HTTPError``), cannot be reached, or has broken off.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"url: expected http://… or https://…, found {url!r}")
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f"{place.name}_part")
    try:
        # Its scheme was looked at. A server that falls silent is not waited for without end.
        with urlopen(url, timeout=_SECONDS_OF_SILENCE) as response, partial.open("wb") as file:  # noqa: S310
            promised = int(response.headers.get("Content-Length") or 0)
            shown = f"Downloading {place.name}"
            with progress_bar(promised or None, unit="byte", shown=True, description=shown) as progress:
                while chunk := response.read(_BYTES_AT_ONCE):
                    progress.update(file.write(chunk))
        found = partial.stat().st_size
        if promised and found != promised:
            raise OSError(f"{url}: expected {promised:,} bytes, found {found:,}: the server has broken off")
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
