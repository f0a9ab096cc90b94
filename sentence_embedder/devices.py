"""Which device a model computes on."""

from __future__ import annotations

import ctypes
import gc
import operator
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.deferred import modules_seen

_MEMORY = Path("/proc/meminfo")
_CONTROL_GROUPS = Path("/proc/self/cgroup")
_CONTROLS = Path("/sys/fs/cgroup")

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


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


def check_fork(device: torch.device) -> None:
    """Check that this process can compute on a device.

    Raises:
        RuntimeError: It was forked from one that had computed on a GPU.
    """
    if device.type == "cuda" and torch.cuda._is_in_bad_fork():
        raise RuntimeError(
            f"device {device}: expected a process that was started anew, found one that was forked from a process "
            "which had used the GPU: CUDA does not survive a fork. Start processes with "
            "multiprocessing.get_context('spawn'), or let them compute on the CPU"
        )


def module_device(module: nn.Module) -> torch.device:
    """The device of a module's first parameter or buffer; the CPU for a module that has neither."""
    for tensors_of in (_parameters_of, _buffers_of):
        for part in modules_seen(module):
            for tensor in tensors_of(part).values():
                if tensor is not None:
                    return tensor.device
    return torch.device("cpu")


_parameters_of: Callable[[nn.Module], dict[str, Tensor | None]] = operator.attrgetter("_parameters")
_buffers_of: Callable[[nn.Module], dict[str, Tensor | None]] = operator.attrgetter("_buffers")


def is_all_on(module: nn.Module, device: torch.device) -> bool:
    """Whether every parameter and buffer of a module is on a device."""
    return all(
        tensor is None or tensor.device == device
        for part in modules_seen(module)
        for tensor in (*part._parameters.values(), *part._buffers.values())
    )


def available_memory() -> int | None:
    """How many bytes of main memory can still be had; None where the system does not say."""
    try:
        lines = _MEMORY.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = (line.split() for line in lines)
    return next((int(size) * 1024 for name, size, *_ in sizes if name == "MemAvailable:"), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, of a GPU or of the machine."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # Kinds of devices without an error of their own, and the allocator of the CPU, say it in words.
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def give_back_memory(device: torch.device) -> None:
    """Give memory that nothing uses any more, but that is kept for later, back to the system."""
    gc.collect()
    backend: Any = getattr(torch, device.type, None)
    if hasattr(backend, "empty_cache"):
        backend.empty_cache()
    if os.name == "posix" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):  # glibc
        library.malloc_trim(0)


def available_cores() -> int:
    """How many processor cores this process may use: those of its affinity, or fewer where a control group, that of
    a container say, gives it less time than they have.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, *map(int, _core_limits()))) if cores > 1 else 1


def _core_limits() -> Iterator[float]:
    """How many cores' time each control group of this process has, as far as that is limited (cgroup v2, then
    v1).
    """
    yield float("1e9")
    try:
        lines = _CONTROL_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root = _CONTROLS if not controllers else _CONTROLS / controllers
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A group has no more than those it stands in; in a container its own path may not be seen.
        for group in (PurePosixPath(path), *PurePosixPath(path).parents):
            limit = _core_limit(root / str(group).lstrip("/"))
            if limit is not None:
                yield limit


def _core_limit(group: Path) -> float | None:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text(encoding="ascii").strip()
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
