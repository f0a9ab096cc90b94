"""Which number format on which device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

_FORMATS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

AUTO = "auto"
"""The fastest format of the device, if it keeps the embeddings of this model."""

_CPU_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "avx10_2", "bf16", "sve_bf16"),
    torch.float16: ("amx_fp16", "avx10_2", "fp16_arith"),  # with AVX512-FP16 oneDNN multiplies in float32
}
"""The instructions of x86 and ARM any of which computes products in a format, as torch names them."""

_LEAST_CAPABILITY = {torch.bfloat16: (8, 0), torch.float16: (5, 3)}
"""The first generation of CUDA devices with products in a format."""


def check_dtype(dtype: str | torch.dtype, device: torch.device) -> str:
    """The name of a number format that the device computes itself.

    Args:
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"auto"``, or the torch dtype.
        device: Where it is to be computed.

    Raises:
        ValueError: There is no such format, or the device only emulates it.
    """
    name = str(dtype).removeprefix("torch.")
    if name != AUTO and name not in _FORMATS:
        raise ValueError(f"dtype: expected one of {[*_FORMATS, AUTO]}, found {name!r}")
    if name != AUTO and not is_native(_FORMATS[name], device):
        raise ValueError(
            f"dtype: this {device.type} does not multiply in {name} itself, which would take longer than float32: "
            "use 'float32' or 'auto', or, to have it all the same, load the weights in it: "
            f"model_kwargs={{'dtype': {name!r}}}"
        )
    return name


def candidates(name: str, device: torch.device) -> tuple[torch.dtype, ...]:
    """The formats to try for a name, the fastest first; the last one always does."""
    if name != AUTO:
        return (_FORMATS[name],)
    # On a GPU both are as fast, and float16 has more digits; processors that have both are rare.
    halves = (torch.bfloat16,) if device.type == "cpu" else (torch.float16, torch.bfloat16)
    return (*(dtype for dtype in halves if is_native(dtype, device)), torch.float32)


def is_native(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether the device has instructions for products in a format."""
    if dtype == torch.float32:
        return True
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _LEAST_CAPABILITY[dtype]
    if device.type == "cpu":
        return has_instructions(*_CPU_INSTRUCTIONS[dtype])
    return device.type in ("mps", "xpu", "npu", "hpu")


def has_instructions(*names: str) -> bool:
    """Whether the processor has any of these instructions, as torch names them; an older torch knows of some."""
    capabilities = _capabilities()
    # An older torch has no such table, but functions for some of them.
    return any(
        capabilities.get(name, False) if capabilities else getattr(torch.cpu, f"_is_{name}_supported", bool)()
        for name in names
    )


def is_made_by(maker: str) -> bool:
    """Whether the processor's name is one of this maker's; an older torch knows no name."""
    return maker in _capabilities().get("cpu_name", "")


def _capabilities() -> Mapping[str, Any]:
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return capabilities
