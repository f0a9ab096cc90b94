"""TokenBudget: how many tokens a batch may have, for the memory of the device."""

from __future__ import annotations

from typing import Any

from sentence_embedder.lock import Lock


class TokenBudget:
    """What a batch may take, in tokens as they are padded: what was said, less what has failed.

    It belongs to the running process alone: a copy or a pickle keeps what was said, and forgets what has failed.
    Threads share it.

    Args:
        limit: The most tokens of a batch, if somebody has said it.

    Example:
        >>> budget = TokenBudget()
        >>> budget.has_failed("cuda:0", 4096)
        >>> budget.most("cuda:0"), budget.most("cpu")
        (2048, None)
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self._fitting: dict[str, int] = {}
        self._lock = Lock()

    def most(self, device: str) -> int | None:
        """The most tokens of a batch on a device; None if nothing is known against any number."""
        known = [tokens for tokens in (self.limit, self._fitting.get(device)) if tokens is not None]
        return min(known, default=None)

    def has_failed(self, device: str, tokens: int) -> None:
        """Take note that so many tokens did not fit: half of them may be tried from now on."""
        with self._lock:
            self._fitting[device] = min(tokens // 2, self._fitting.get(device, tokens))

    def __reduce__(self) -> tuple[type[TokenBudget], tuple[Any]]:
        return TokenBudget, (self.limit,)
