"""What all tests share: no network, tiny models, and the real MiniLM."""

# ruff: noqa: E402 (the environment comes before the imports that read it)

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before anything imports torch: tests, and the processes that they start, run side by side, so each has one thread;
# and those that ask for more do not wait for work in a loop, which would keep the others from theirs.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"

# Before anything imports huggingface_hub, which reads them once: an empty cache, and no telemetry.
_hub_home = tempfile.TemporaryDirectory(prefix="hub-")
os.environ["HF_HOME"] = _hub_home.name
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import pytest
import torch
from huggingface_hub import constants

from sentence_embedder import SentenceTransformer
from sentence_embedder.acceleration import dtypes
from tests.hub.server import HubServer, running
from tests.minilm import minilm_folder
from tests.tiny_chains import Folders, write_checkpoints
from tests.tiny_models import TINY_MODELS, write_model, write_transformer

# Where tests run in the background, a shell has Ctrl-C ignored, in processes that they start, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)  # a plugin of pytest may have imported it before

hypothesis.settings.register_profile("suite", deadline=None)  # how long anything takes is for the benchmarks
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that one process does in a row come first: nobody waits for them in the end."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests of a group are done by one process, or fail: pytest 9.2 keeps pytest-xdist 3.8 from knowing them."""
    is_grouped = item.get_closest_marker("xdist_group") is not None and item.config.getoption("loadgroup", False)
    if is_grouped and "@" not in item.nodeid:
        pytest.fail("tests are not grouped: these versions of pytest and pytest-xdist do not fit", pytrace=False)


@pytest.fixture
def native_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that computes in every format, as far as it is asked."""
    monkeypatch.setattr(dtypes, "is_native", lambda _dtype, _device: True)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to reach another machine fails; the list says which there were."""
    attempts: list[Any] = []
    connect, resolve = socket.socket.connect, socket.getaddrinfo
    loopback = ("127.0.0.1", "::1")

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or address[0] in loopback:
            return connect(self, address)
        attempts.append(address)
        raise OSError(f"a test reached for the network: {address}")

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host in loopback:
            return resolve(host, *args, **kwargs)
        attempts.append(host)
        raise OSError(f"a test reached for the network: {host}")

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return attempts


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine's reaches a test."""
    for name in ("SENTENCE_TRANSFORMERS_HOME", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def termination() -> None:
    """SIGTERM ends what a test forks. The machines of Ray, which live on from test to test, have a handler in this
    process, which children would inherit: they would wait for Ray instead of ending.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def log_levels() -> Iterator[None]:
    """What a test does to the loggers ends with it."""
    logger = logging.getLogger("sentence_embedder.sentence_transformers")
    before = logger.level
    yield
    logger.setLevel(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """torch with two threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        yield
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def hub_server() -> Iterator[HubServer]:
    """A Hub on loopback, one for all tests of a process."""
    with running() as server:
        yield server


@pytest.fixture
def hub(hub_server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub on loopback, empty, and the client of this process pointed at it, with an empty cache."""
    hub_server.reset()
    template = f"{hub_server.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    settings = {
        "ENDPOINT": hub_server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": template,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_PROGRESS_BARS": True,
    }
    for name, value in settings.items():
        monkeypatch.setattr(constants, name, value)
    yield hub_server
    # Downloads that nobody waits for would go on, at the address of the real Hub, and disturb those of other tests.
    hub_server.reset()
    for thread in threading.enumerate():
        if thread.name.startswith("download"):
            thread.join(60)


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name of a tiny model → its folder, in the form of sentence-transformers 2.7."""
    root = tmp_path_factory.mktemp("tiny")
    for name, model in TINY_MODELS.items():
        write_model(root / name, model)
    return {name: root / name for name in TINY_MODELS}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain BERT checkpoint of transformers."""
    folder = tmp_path_factory.mktemp("checkpoint") / "bert"
    write_transformer(folder, TINY_MODELS["bert"])
    return folder


@pytest.fixture(scope="session")
def tiny_checkpoints(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Name of a tiny checkpoint → its folder, for the chains of ``tests.tiny_chains``."""
    return write_checkpoints(tmp_path_factory.mktemp("checkpoints"), checkpoint)


@pytest.fixture
def model(tiny_folders: dict[str, Path]) -> SentenceTransformer:
    """A tiny BERT with mean pooling, a test's own."""
    return SentenceTransformer(str(tiny_folders["bert"]), device="cpu")


@pytest.fixture(scope="session")
def minilm() -> SentenceTransformer:
    """The real all-MiniLM-L6-v2; tests leave it as it is."""
    return SentenceTransformer(str(minilm_folder()), device="cpu")
