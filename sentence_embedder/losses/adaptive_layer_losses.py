"""Losses of models that are cut to fewer layers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sentence_embedder.features import Features
from sentence_embedder.losses.embedding_loss import EmbeddingLoss
from sentence_embedder.losses.gathering import agreed, gathered
from sentence_embedder.losses.gradient_cache import Loss, RowWiseLoss, mini_batched_loss
from sentence_embedder.losses.matryoshka_losses import MatryoshkaLoss, of_batch
from sentence_embedder.losses.similarity_losses import name_of
from sentence_embedder.models.hidden_states import recording_layers

LayerWeighting = Literal["uniform", "log", "linear"] | Callable[[int], float]

_WEIGHTINGS: dict[str, Callable[[int], float]] = {
    "uniform": lambda _: 1.0,
    "log": lambda layer: 1 / (1 + math.log(1 + layer)),
    "linear": lambda layer: 1 / (1 + layer),
}


class LayeredModel:
    """A model that is cut to fewer layers, beside itself: its ``sentence_embedding`` is (rows, 1 + layers, dim).

    First comes the embedding of the whole model, then for each of some layers what the modules behind the
    transformer make of its token embeddings. The transformer computes once.

    Args:
        model: A chain of modules, the first a Transformer.
        draw: How many layers there are before the last → which of them count. It is asked once.

    Raises:
        ValueError: The first module is not a Transformer.
    """

    def __init__(self, model: nn.Module, draw: Callable[[int], Sequence[int]]) -> None:
        self.model = model
        self._chain = _chain_of(model)
        self._draw = draw
        self.layers: Sequence[int] | None = None

    def __call__(self, features: Features) -> Features:
        """The Features of some texts, with the embeddings of all layers that count."""
        transformer, *others = self._chain
        auto_model: Any = transformer.auto_model
        with recording_layers(auto_model) as recorded, _listening(transformer) as heard:
            final = self.model(features)["sentence_embedding"]
        (states,), (made,) = recorded, heard
        if self.layers is None:
            self.layers = self._draw(len(states) - 1)
        embeddings = [final]
        for layer in self.layers:
            of_layer = {**made, "token_embeddings": states[layer]}
            for module in others:
                of_layer = module(of_layer)
            embeddings.append(of_layer["sentence_embedding"])
        return {**features, "sentence_embedding": torch.stack(embeddings, dim=1)}

    def no_sync(self) -> AbstractContextManager[Any]:
        """As long as this is open, ranks of a distributed model exchange no gradients."""
        waiting: Callable[[], AbstractContextManager[Any]] = getattr(self.model, "no_sync", nullcontext)
        return waiting()


def _chain_of(model: nn.Module) -> list[nn.Module]:
    """The modules of a model, out of what may be around it.

    Raises:
        ValueError: The first is not a Transformer.
    """
    inner: Any = model
    while not isinstance(inner, nn.Sequential) and (hasattr(inner, "module") or hasattr(inner, "_orig_mod")):
        inner = inner.module if hasattr(inner, "module") else inner._orig_mod
    chain = list(inner.children())
    if not chain or not isinstance(getattr(chain[0], "auto_model", None), nn.Module):
        found = [type(module).__name__ for module in chain]
        raise ValueError(f"layers: expected a model whose first module is a Transformer, found {found}")
    return chain


@contextmanager
def _listening(module: nn.Module) -> Iterator[list[Features]]:
    """Hear what Features a module makes as long as this is open."""
    made: list[Features] = []
    hook = module.register_forward_hook(lambda _, __, features: made.append(features))
    try:
        yield made
    finally:
        hook.remove()


class AdaptiveLayerLoss(EmbeddingLoss):
    """Another loss, of the embeddings and of those that the model gives when it is cut to fewer layers, which
    should also be near to those of the whole (Li et al. 2024, https://arxiv.org/abs/2402.14776).

    w loss(u) + Σ (p vᵢ loss(uᵢ) / n + k T KL(softmax(u / T) ‖ softmax(uᵢ / T))) over n layers i, drawn anew for
    each batch; u in the divergence is without a gradient, and layer 0 is the token embeddings. Labels are those of
    the other loss.

    Args:
        model: The model that is trained; its first module is a Transformer.
        loss: A loss of this package over its embeddings, or one like them: an ``EmbeddingLoss`` that has
            ``of_embeddings``.
        n_layers_per_step: n; -1 for all layers before the last.
        last_layer_weight: w.
        prior_layers_weight: p.
        kl_div_weight: k.
        kl_temperature: T; 0 for no divergence.
        layer_weighting: vᵢ: ``"uniform"``, 1; ``"log"``, 1 / (1 + ln(1 + i)); ``"linear"``, 1 / (1 + i); or a
            function of i.

    Raises:
        ValueError: The first module is no Transformer, the other loss is not such a one, or there is no such
            weighting.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        n_layers_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        *,
        layer_weighting: LayerWeighting = "uniform",
    ) -> None:
        super().__init__(model)
        _chain_of(model)
        _inner_of(loss)
        if not callable(layer_weighting) and layer_weighting not in _WEIGHTINGS:
            raise ValueError(
                f"layer_weighting: expected one of {sorted(_WEIGHTINGS)} or a function, found {layer_weighting!r}"
            )
        self.loss: Any = loss
        self.n_layers_per_step = n_layers_per_step
        self.last_layer_weight = last_layer_weight
        self.prior_layers_weight = prior_layers_weight
        self.kl_div_weight = kl_div_weight
        self.kl_temperature = kl_temperature
        self.layer_weighting = layer_weighting

    @property
    def is_stock(self) -> bool:
        """No: another one over it would see the embeddings of the last layer alone."""
        return False

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """The loss of a batch, as the other loss takes it."""
        features = list(sentence_features)
        loss, inner = self.loss, _inner_of(self.loss)
        targets = loss.joint_targets(features, labels)
        layered = LayeredModel(self.model, self._drawn)
        losses = [of_batch(loss, targets)]

        def of_rows(stacked: list[Tensor], rows: slice) -> Tensor:
            layers = layered.layers or ()
            while len(losses) < 1 + len(layers):
                losses.append(of_batch(loss, targets))
            return self._of_layers(stacked, layers, losses, rows)

        if isinstance(inner, RowWiseLoss) and inner.is_cached:
            return mini_batched_loss(inner, layered, features, of_rows)
        stacked = [layered(column)["sentence_embedding"] for column in features]
        return of_rows(gathered(stacked) if inner.gather_across_devices else stacked, slice(None))

    @property
    def is_cached(self) -> bool:
        """Whether the other loss is."""
        return _inner_of(self.loss).is_cached

    def _drawn(self, count: int) -> Sequence[int]:
        """Which of so many layers before the last count this time."""
        layers = range(count)
        if not 0 < self.n_layers_per_step < count:
            return layers
        drawn = random.sample(layers, self.n_layers_per_step)
        return agreed(drawn) if _inner_of(self.loss).gather_across_devices else drawn

    def _of_layers(
        self,
        stacked: list[Tensor],
        layers: Sequence[int],
        losses: Sequence[Loss],
        rows: slice,
    ) -> Tensor:
        """What some rows add to the loss of the embeddings of all layers, each (rows, 1 + layers, dim)."""
        final, *prior = zip(*(column.unbind(dim=1) for column in stacked), strict=True)
        of_last, *of_prior = losses
        total = of_last(list(final), rows) * self.last_layer_weight
        for layer, embeddings, loss in zip(layers, prior, of_prior, strict=True):
            share = self._weight_of(layer) * self.prior_layers_weight / len(layers)
            total = total + loss(list(embeddings), rows) * share
            if self.kl_temperature > 0:
                divergence = _divergence(final, embeddings, self.kl_temperature, rows)
                total = total + divergence * self.kl_temperature * self.kl_div_weight
        return total

    def _weight_of(self, layer: int) -> float:
        weighting = self.layer_weighting
        return _WEIGHTINGS[weighting](layer) if isinstance(weighting, str) else weighting(layer)

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        weighting = self.layer_weighting
        return {
            "loss": type(self.loss).__name__,
            "n_layers_per_step": self.n_layers_per_step,
            "last_layer_weight": self.last_layer_weight,
            "prior_layers_weight": self.prior_layers_weight,
            "kl_div_weight": self.kl_div_weight,
            "kl_temperature": self.kl_temperature,
            "layer_weighting": weighting if isinstance(weighting, str) else name_of(weighting),
        }


def _inner_of(loss: nn.Module) -> EmbeddingLoss:
    """The loss over embeddings that a loss is, or that is inside a MatryoshkaLoss.

    Raises:
        ValueError: It is not one whose embeddings can be given to it.
    """
    inner = loss
    if isinstance(loss, MatryoshkaLoss) and type(loss).forward is MatryoshkaLoss.forward:
        inner = loss.loss
    if not isinstance(inner, EmbeddingLoss) or not inner.can_be_joined:
        raise ValueError(
            f"loss: expected a loss of the embeddings of one model, found {type(inner).__name__}; a loss of your "
            "own can be a subclass of EmbeddingLoss that has of_embeddings"
        )
    return inner


def _divergence(final: Sequence[Tensor], embeddings: Sequence[Tensor], temperature: float, rows: slice) -> Tensor:
    """What some rows add to KL(softmax(u / T) ‖ softmax(v / T)), the mean over the rows of all columns, without a
    gradient by u.

    Args:
        final: u, a matrix (rows, dim) for each column.
        embeddings: v, likewise.
        temperature: T.
        rows: Which rows.
    """
    expected = torch.cat([column[rows] for column in final]).detach() / temperature
    found = torch.cat([column[rows] for column in embeddings]) / temperature
    divergence = functional.kl_div(
        functional.log_softmax(found, dim=-1), functional.softmax(expected, dim=-1), reduction="sum"
    )
    return divergence / sum(map(len, final))


class Matryoshka2dLoss(AdaptiveLayerLoss):
    """Another loss, of embeddings cut to several widths and made by fewer layers: ``AdaptiveLayerLoss`` over
    ``MatryoshkaLoss`` (Li et al. 2024, https://arxiv.org/abs/2402.14776).

    Args:
        model: The model that is trained; its first module is a Transformer.
        loss: As for ``AdaptiveLayerLoss``.
        matryoshka_dims: As for ``MatryoshkaLoss``.
        matryoshka_weights: Likewise.
        n_layers_per_step: As for ``AdaptiveLayerLoss``.
        n_dims_per_step: As for ``MatryoshkaLoss``; widths are drawn for each layer.
        last_layer_weight: As for ``AdaptiveLayerLoss``, like all that follow.
        prior_layers_weight: See above.
        kl_div_weight: See above.
        kl_temperature: See above.
        layer_weighting: See above.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | None = None,
        n_layers_per_step: int = 1,
        n_dims_per_step: int = 1,
        last_layer_weight: float = 1.0,
        prior_layers_weight: float = 1.0,
        kl_div_weight: float = 1.0,
        kl_temperature: float = 0.3,
        *,
        layer_weighting: LayerWeighting = "uniform",
    ) -> None:
        super().__init__(
            model,
            MatryoshkaLoss(model, loss, matryoshka_dims, matryoshka_weights, n_dims_per_step),
            n_layers_per_step,
            last_layer_weight,
            prior_layers_weight,
            kl_div_weight,
            kl_temperature,
            layer_weighting=layer_weighting,
        )

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        return {**super().get_config_dict(), **self.loss.get_config_dict()}
