"""Whether torch records what gradients need, in a thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

_inference_guard: Callable[[bool], AbstractContextManager[Any]] | None = getattr(torch._C, "_InferenceMode", None)


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


def inference_mode() -> AbstractContextManager[Any]:
    """``torch.inference_mode``, entered and left in one step, so that no Ctrl-C comes in between and leaves it on.

    The guard inside it is no public interface of torch: where it is not there, ``torch.no_grad`` is slower and no
    less right.
    """
    return torch.no_grad() if _inference_guard is None else _inference_guard(True)
