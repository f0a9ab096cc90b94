"""Devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sentence_embedder import devices
from sentence_embedder.devices import available_cores, available_memory, get_device_name, module_device


class Plugin:
    """A backend that a plug-in adds to torch."""

    @staticmethod
    def is_available() -> bool:
        """It is there."""
        return True


@pytest.mark.parametrize("available", ["cuda", "mps", "cpu"])
def test_the_best_device(available: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU goes before the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available == "cuda")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: available == "mps")
    monkeypatch.setattr(torch, "xpu", None)

    assert get_device_name() == available


@pytest.mark.parametrize("kind", ["npu", "xpu", "hpu"])
def test_devices_of_plugins(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices that plug-ins add are found, too."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "xpu", None)
    monkeypatch.setattr(torch, kind, Plugin, raising=False)

    assert get_device_name() == kind


def test_the_device_of_a_module() -> None:
    """It is that of the parameters, else of the buffers, else the CPU."""
    assert module_device(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert module_device(nn.BatchNorm1d(1, affine=False, device="meta")) == torch.device("meta")
    assert module_device(nn.Identity()) == torch.device("cpu")


def test_available_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what the system says can still be had, in bytes; None where it does not say."""
    said = tmp_path / "meminfo"
    monkeypatch.setattr(devices, "_MEMORY", said)

    assert available_memory() is None
    said.write_text("MemTotal:       24000 kB\nMemAvailable:   12000 kB\nHugePages_Total:       0\n")
    assert available_memory() == 12000 * 1024
    said.write_text("MemTotal:       24000 kB\n")
    assert available_memory() is None


CONTROL_GROUPS = {
    "none": ({}, "0::/\n", 8),
    "unlimited": ({"cpu.max": "max 100000"}, "0::/\n", 8),
    "a container's": ({"cpu.max": "250000 100000"}, "0::/unseen/from/here\n", 2),
    "an inner one": ({"cpu.max": "max 100000", "a/cpu.max": "400000 100000"}, "0::/a/b\n", 4),
    "less than a core": ({"cpu.max": "50000 100000"}, "0::/\n", 1),
    "more than there are": ({"cpu.max": "1600000 100000"}, "0::/\n", 8),
    "version 1": (
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        "5:memory:/a\n4:cpu,cpuacct:/a\n",
        3,
    ),
    "version 1, unlimited": (
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        "4:cpu,cpuacct:/\n",
        8,
    ),
}


@pytest.mark.parametrize("name", CONTROL_GROUPS)
def test_cores_that_may_be_used(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the cores of the affinity no more count than control groups give time for."""
    files, groups, expected = CONTROL_GROUPS[name]
    for path, content in files.items():
        (tmp_path / "controls" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "controls" / path).write_text(content)
    (tmp_path / "cgroup").write_text(groups)
    monkeypatch.setattr(devices, "_CONTROLS", tmp_path / "controls")
    monkeypatch.setattr(devices, "_CONTROL_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)

    assert available_cores() == expected


def test_cores_where_the_system_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without affinity and control groups, those of the machine count, one at least."""
    monkeypatch.setattr(devices, "_CONTROL_GROUPS", tmp_path / "missing")
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: None)

    assert available_cores() == 1
