"""Number formats of devices."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sentence_embedder.acceleration.dtypes import candidates, check_dtype, has_instructions, is_native

CPU = torch.device("cpu")


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the processor is said to have."""
    has: dict[str, Any] = {"avx512_f": True, "avx512_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    return has


def test_an_emulated_format_is_refused(instructions: dict[str, Any]) -> None:
    """A format that the processor only emulates is refused, with what can be done."""
    with pytest.raises(ValueError, match=r"this cpu does not multiply in bfloat16.*'auto'.*model_kwargs"):
        check_dtype("bfloat16", CPU)
    instructions["avx512_bf16"] = True

    assert check_dtype("bfloat16", CPU) == check_dtype(torch.bfloat16, CPU) == "bfloat16"
    instructions["avx512_fp16"] = True  # which oneDNN makes no use of in products
    with pytest.raises(ValueError, match="does not multiply in float16"):
        check_dtype("float16", CPU)
    instructions["amx_fp16"] = True

    assert check_dtype("float16", CPU) == "float16"


def test_a_torch_that_knows_no_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch does not say what the processor has, it has nothing but float32, and what a function tells."""
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    assert is_native(torch.float32, CPU)
    assert not is_native(torch.bfloat16, CPU)
    assert not has_instructions("amx_bf16", "avx512_bf16")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)

    assert is_native(torch.bfloat16, CPU)
    assert not has_instructions("amx_bf16")


def test_a_format_that_does_not_exist() -> None:
    """The error names the formats."""
    with pytest.raises(ValueError, match=r"dtype: expected one of .*'auto'.*found 'int8'"):
        check_dtype("int8", CPU)


def test_what_auto_tries(instructions: dict[str, Any]) -> None:
    """``"auto"`` tries what the device has, the fastest first, and float32 in the end."""
    assert candidates("auto", CPU) == (torch.float32,)
    instructions["amx_bf16"] = True
    assert candidates("auto", CPU) == (torch.bfloat16, torch.float32)
    assert candidates("float16", CPU) == (torch.float16,)


@pytest.mark.parametrize(
    ("capability", "dtype", "expected"),
    [
        ((7, 5), torch.bfloat16, False),
        ((8, 0), torch.bfloat16, True),
        ((7, 5), torch.float16, True),
        ((7, 5), torch.float32, True),
    ],
)
def test_generations_of_gpus(
    capability: tuple[int, int], dtype: torch.dtype, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs have bfloat16 since Ampere, and float16 for longer."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)

    assert is_native(dtype, torch.device("cuda")) is expected
