"""What the matrix products of a model alone allow on this machine."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.engines import Device, Precision

_ROWS = {"cpu": 1024, "cuda": 32_768}
"""Tokens in a product."""
_SECONDS = 0.1
"""How long one kind of product is repeated for one sample."""
_DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

Multiply = Callable[[], Tensor]


class Products:
    """Measures products of the shapes in a MiniLM layer, with every way of computing them that torch has.

    On a CPU as many threads as there may be have a product each, which no barrier holds up: nothing is faster.

    Args:
        device: Where to compute.
        threads: How many threads compute.
        width: Width of the token embeddings.
        inner_width: Width between the two products of the feed-forward part.
    """

    def __init__(self, device: Device, threads: int, *, width: int = 384, inner_width: int = 1536) -> None:
        self._device = device
        self._threads = threads if device == "cpu" else 1
        shapes = ((width, 3 * width), (width, width), (width, inner_width), (inner_width, width))
        self._flop = sum(2 * _ROWS[device] * prod(shape) for shape in shapes)
        self._ways = _ways(device, shapes)
        self._samples: dict[tuple[str, Precision], list[float]] = {way: [] for way in self._ways}

    def sample(self) -> None:
        """Measure every way once."""
        with _threads_inside_products(1), ThreadPoolExecutor(self._threads) as pool:
            for way, layer in self._ways.items():
                rates = pool.map(self._rate, [layer] * self._threads)
                self._samples[way].append(sum(rates))

    def rates(self) -> dict[tuple[str, Precision], float]:
        """Way and precision → floating-point operations per second, the median of the samples."""
        return {way: median(samples) for way, samples in self._samples.items() if samples}

    def _rate(self, layer: Sequence[Multiply]) -> float:
        self._run(layer)
        repeats = 0
        started = time.perf_counter()
        while time.perf_counter() - started < _SECONDS:
            self._run(layer)
            repeats += 1
        return repeats * self._flop / (time.perf_counter() - started)

    def _run(self, layer: Sequence[Multiply]) -> None:
        for multiply in layer:
            multiply()
        if self._device == "cuda":
            torch.cuda.synchronize()


def _ways(device: Device, shapes: Sequence[tuple[int, int]]) -> dict[tuple[str, Precision], list[Multiply]]:
    """Name and precision → one product for each shape; ways that this torch does not have are left out."""
    makers = {"F.linear": _linear} if device == "cuda" else {"F.linear": _linear, "oneDNN, prepacked": _prepacked}
    found = {}
    for name, make in makers.items():
        for precision, dtype in _DTYPES.items():
            try:
                found[name, precision] = [make(*_operands(shape, device, dtype)) for shape in shapes]
            except (AttributeError, NotImplementedError, RuntimeError):
                continue
    return found


def _operands(shape: tuple[int, int], device: Device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (rows, in), weights (out, in) and a bias (out,)."""
    width_in, width_out = shape
    generator = torch.Generator().manual_seed(0)
    sizes = ((_ROWS[device], width_in), (width_out, width_in), (width_out,))
    tokens, weight, bias = (torch.randn(size, generator=generator).to(device, dtype) for size in sizes)
    return tokens, weight, bias


def _linear(tokens: Tensor, weight: Tensor, bias: Tensor) -> Multiply:
    return lambda: torch.nn.functional.linear(tokens, weight, bias)


def _prepacked(tokens: Tensor, weight: Tensor, bias: Tensor) -> Multiply:
    """oneDNN's product with weights in the order that its kernel reads, which torch has for its own compiler."""
    operations: Any = torch.ops.mkldnn
    packed = operations._reorder_linear_weight(weight, len(tokens))

    def multiply() -> Tensor:
        product: Tensor = operations._linear_pointwise(tokens, packed, bias, "none", [], "")
        return product

    multiply()
    return multiply


@contextmanager
def _threads_inside_products(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def flop_per_token(folder: Path) -> int:
    """The floating-point operations that a model spends on a token in matrix products with its weights: two for
    each weight, embeddings and the pooler that nothing reads aside.
    """
    return sum(
        2 * prod(shape)
        for name, shape in _shapes(folder / "model.safetensors").items()
        if len(shape) == 2 and "embedding" not in name and "pooler" not in name
    )


def _shapes(path: Path) -> dict[str, list[int]]:
    """Name of a tensor → its shape, out of the head of a safetensors file."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        head = json.loads(file.read(length))
    return {name: entry["shape"] for name, entry in head.items() if name != "__metadata__"}
