"""A Ctrl-C at a place of one's choice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def interrupted_at(number: int, work: Callable[[], object], files: tuple[str, ...] = ("",)) -> bool:
    """Whether a Ctrl-C came at one of the places where it can: where a function begins, and where one of C ends.

    Args:
        number: Which of these places, from 1.
        work: What is interrupted.
        files: How the names of the files end in which they are counted; by default all.
    """
    left = number

    def watch(frame: Any, event: str, _argument: Any) -> None:
        nonlocal left
        if event in ("call", "c_return") and frame.f_code.co_filename.endswith(files):
            left -= 1
            if left == 0:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(watch)
    try:
        work()
    except KeyboardInterrupt:
        pass
    finally:
        sys.setprofile(None)
    return left == 0
