"""A cluster of Ray on this machine: a head that computes nothing, and machines that can be killed."""

from __future__ import annotations

import atexit
import gc
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_DEDUP_LOGS"] = "0"
# By default its workers are nice to others (15): beside the other processes of the suite they hardly got to run.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112  # its name

import pytest

from sentence_embedder import SentenceTransformer
from tests.pool.misbehaving import misbehaving_model

ROOT = Path(__file__).parents[2]
_STORE = 80 * 2**20


class Machines:
    """The machines of a cluster.

    Args:
        cluster: The cluster, with a head alone.
    """

    def __init__(self, cluster: Any) -> None:
        self._cluster = cluster
        self._alive: list[Any] = []

    def fill_up(self) -> None:
        """See to it that there are two."""
        while len(self._alive) < 2:
            self._alive.append(self._cluster.add_node(num_cpus=1, object_store_memory=_STORE))
        self._cluster.wait_for_nodes()

    def kill_one(self) -> None:
        """End all processes of one at once, as if its power were cut."""
        self._cluster.remove_node(self._alive.pop(), allow_graceful=False)


@contextmanager
def _nothing_left_at_exit() -> Iterator[None]:
    """What Ray registers meanwhile for the end of the process is taken back, and what is kept for that is gone.

    Since Python 3.13 ``multiprocessing`` drops it in each process that it forks, where the end of a client of Ray
    ends the process.
    """
    registered: list[Any] = []
    register = atexit.register

    def noted(function: Any, *args: Any, **kwargs: Any) -> Any:
        if str(getattr(function, "__module__", "")).startswith("ray."):
            registered.append(function)
        return register(function, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atexit, "register", noted)
        try:
            yield
        finally:
            for function in registered:
                atexit.unregister(function)
            registered.clear()
            gc.collect()


@pytest.fixture(scope="package")
def _machines() -> Iterator[Machines]:
    ray: Any = pytest.importorskip("ray")
    with _nothing_left_at_exit():
        yield from _machines_of(ray)


def _machines_of(ray: Any) -> Iterator[Machines]:
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(ROOT)  # actors import what the tests define
    head = {"num_cpus": 0, "object_store_memory": _STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    machines = Machines(cluster)
    machines.fill_up()
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield machines
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture
def machines(_machines: Machines) -> Machines:
    """Two machines with a core each, whatever happened to those of the test before."""
    _machines.fill_up()
    return _machines


@pytest.fixture(scope="session")
def bert(tiny_folders: dict[str, Path]) -> SentenceTransformer:
    """A tiny BERT."""
    return SentenceTransformer(str(tiny_folders["bert"]), device="cpu", prompts={"query": "find the "})


@pytest.fixture(scope="session")
def misbehaving() -> SentenceTransformer:
    """A model that does what its texts say. Its actors do not import transformers, which takes seconds."""
    return misbehaving_model()
