"""A model in the object store, and the cluster that this process is connected to."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any

import pytest

from sentence_embedder.cluster.shipped_model import connected_ray


def test_threads_that_connect_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray is connected once."""
    connections: list[dict[str, Any]] = []
    asking = threading.Barrier(2)
    ray: Any = ModuleType("ray")

    def init(**settings: Any) -> None:
        time.sleep(0.2)
        connections.append(settings)

    ray.is_initialized = lambda: len(connections) > 0
    ray.init = init
    monkeypatch.setitem(sys.modules, "ray", ray)

    def connect(_: int) -> Any:
        asking.wait(60)
        return connected_ray()

    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(connect, range(2))) == [ray, ray]

    assert len(connections) == 1
