"""Way: how the batches of a model go, and why not faster, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sentence_embedder.acceleration.acceleration import Acceleration, pads_matter
from sentence_embedder.acceleration.architectures import read_encoder
from sentence_embedder.acceleration.forward import PackedForward, ShadowForward
from sentence_embedder.acceleration.linear import Products, can_pack
from sentence_embedder.devices import module_device
from sentence_embedder.models import Router, Transformer


@dataclass(frozen=True)
class Way:
    """The way of a model's batches through ``encode``.

    Args:
        name: ``"packed"``, ``"shadow"``, ``"plain"``, or ``"unknown"``.
        description: What that means here.
        why_not: Why it is not packed, as far as it can be known; None if it is.
    """

    name: str
    description: str
    why_not: str | None = None


def way_of(model: nn.Sequential, dtype: str = "float32") -> Way:
    """The way of a model in evaluation mode on its device, found by reading it as ``encode`` would.

    Args:
        model: The modules.
        dtype: The format of the products.
    """
    if any(isinstance(module, Router) for module in model):
        return Way("unknown", "each route of the Router has a way of its own, found when texts take it")
    device = module_device(model)
    forward = Acceleration(dtype=dtype).forward(model, output_value="sentence_embedding", device=device, extra={})
    if isinstance(forward, PackedForward):
        linear, products = _linear(forward.encoder.dtype, device), _name(forward.encoder.dtype)
        return Way("packed", f"a lean forward pass over texts without padding, {linear}, products in {products}")
    why_not = _why_not(model, device)
    if isinstance(forward, ShadowForward):
        linear, products = _linear(forward.shadow.dtype, device), _name(forward.shadow.dtype)
        return Way("shadow", f"the model's own forward pass on {linear}, products in {products}", why_not)
    return Way("plain", "the modules as they are", why_not)


def _linear(dtype: torch.dtype, device: torch.device) -> str:
    is_packed = device.type == "cpu" and can_pack(dtype)
    return "oneDNN's linear layers" if is_packed else "torch's linear layers"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _format(model: nn.Module) -> torch.dtype:
    return next((parameter.dtype for parameter in model.parameters()), torch.float32)


def _why_not(model: nn.Sequential, device: torch.device) -> str:
    first: Any = next(iter(model), None)
    if type(first) is not Transformer:
        return f"the first module is no Transformer but {type(first).__name__}"
    try:
        encoder = read_encoder(first.model_seen, Products(_format(first.model_seen), packed=False))
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the reason
        return str(error) or repr(error)
    if pads_matter(first, encoder):
        return "the tokenizer pads on the left, which changes what this architecture computes"
    rest = ", ".join(type(module).__name__ for module in list(model)[1:]) or "nothing"
    return (
        f"the architecture can be read, but is not on {device.type}: what follows the Transformer ({rest}) needs "
        "more; a class, hook or setting of this model stands against it; or it differed from its own forward pass"
    )
