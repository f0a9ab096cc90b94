"""Which device a model computes on."""

from __future__ import annotations

import torch
from torch import nn


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
    tensor = next(module.parameters(), next(module.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device
