"""Whether torch records what gradients need, in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def grad_mode_kept() -> Iterator[None]:
    """After this context gradients are recorded as before it, also if Ctrl-C comes.

    ``torch.no_grad`` does not see to that: interrupted while it is entered, or left, it stays for good.
    """
    before = torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_grad_enabled(before)
