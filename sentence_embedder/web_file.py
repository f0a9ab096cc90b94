"""A file from the web."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlretrieve

from sentence_embedder.progress import progress_bar


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
        with progress_bar(None, unit="byte", shown=True, description=f"Downloading {place.name}") as progress:
            urlretrieve(  # noqa: S310  # its scheme was looked at
                url, partial, reporthook=lambda block, size, _total: progress.update(size if block else 0)
            )
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
