"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benchmarks.engines import Device

_CPU_INFO = Path("/proc/cpuinfo")
_TELLING_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
    "i8mm",
    "sve",
)
"""Sets of instructions that decide how fast matrix products are, on x86 and on Arm."""
_QUANTIZATION_FOR = {"avx512_vnni": "avx512_vnni", "avx512f": "avx512", "avx2": "avx2", "asimd": "arm64"}
"""Set of instructions → what sentence-transformers calls quantisation for it, the best first."""


def describe_machine(device: Device) -> dict[str, Any]:
    """Processor, memory, system and date, for the JSON."""
    machine = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processor": cpu_model(),
        "flags": cpu_flags(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
    }
    return {**machine, "gpu": torch.cuda.get_device_name()} if device == "cuda" else machine


def cpu_model() -> str:
    """The name of the processor."""
    return _cpu_info("model name") or platform.processor() or platform.machine()


def cpu_flags() -> list[str]:
    """Those sets of instructions that the processor has and that matter here; empty where it is not known."""
    flags = (_cpu_info("flags") or _cpu_info("Features")).split()
    return [flag for flag in _TELLING_FLAGS if flag in flags]


def quantization() -> str:
    """The instruction set to quantise models for."""
    flags = cpu_flags()
    return next((name for flag, name in _QUANTIZATION_FOR.items() if flag in flags), "avx2")


def _cpu_info(name: str) -> str:
    """What the system says of the first processor; empty if it says nothing."""
    if not _CPU_INFO.exists():
        return ""
    for line in _CPU_INFO.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
