"""Devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from sentence_embedder import devices
from sentence_embedder.devices import available_memory, get_device_name, module_device


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
