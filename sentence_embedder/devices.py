"""Which device a model computes on."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

_MEMORY = Path("/proc/meminfo")


def get_device_name() -> str:
    """The best kind of device of this machine: ``cuda``, ``mps``, ``npu``, ``xpu``, ``hpu`` or ``cpu``."""
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    for kind in ("npu", "xpu", "hpu"):
        backend = getattr(torch, kind, None)  # npu and hpu are there only when their plug-in was imported
        if backend is not None and backend.is_available():
            return kind
    return "cpu"


def module_device(module: nn.Module) -> torch.device:
    """The device of a module's first parameter or buffer; the CPU for a module that has neither."""
    for tensors in (module.parameters(), module.buffers()):
        for tensor in tensors:
            return tensor.device
    return torch.device("cpu")


def available_memory() -> int | None:
    """How many bytes of main memory can still be had; None where the system does not say."""
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = (line.split() for line in lines)
    return next((int(size) * 1024 for name, size, *_ in sizes if name == "MemAvailable:"), None)
