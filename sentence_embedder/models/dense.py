"""Dense: a fully connected layer over the embedding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sentence_embedder.dotted_names import qualified_name
from sentence_embedder.features import Features
from sentence_embedder.files import read_weights
from sentence_embedder.formats import DenseConfig
from sentence_embedder.models.module import Module, OwnClass, check_importable, refuse_own_class
from sentence_embedder.record import FormatError

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    qualified_name(activation): activation
    for activation in (
        *(nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
        *(nn.LeakyReLU, nn.LogSigmoid, nn.LogSoftmax, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.RReLU),
        *(nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softmax, nn.Softplus, nn.Softshrink, nn.Softsign),
        *(nn.Tanh, nn.Tanhshrink, nn.Identity),
    )
}
"""Name on disk → class. A name that is not here imports nothing, unless the caller trusts the model."""

_WHERE = "activation_function of a Dense"
_EXPECTED = f"one of the {len(_ACTIVATIONS)} activation functions of torch.nn.modules"
_SAME_FUNCTION = frozenset(["training", "inplace", "init"])
"""Attributes of an activation that change nothing of what it computes, or only weights, which are saved."""

_PLAIN = (int, float, complex, str, tuple, list, Tensor, type(None))


class Dense(Module):
    """A linear layer and an activation function.

    Args:
        in_features: Width of the input.
        out_features: Width of the output.
        bias: Whether a bias is added.
        activation_function: Applied to the output of the linear layer; by default tanh.
        init_weight: Weights to start with, shape (out_features, in_features).
        init_bias: Bias to start with, shape (out_features,).
        module_input_name: The feature that is read, shape (…, in_features).
        module_output_name: The feature that is written; by default the same.
        use_residual: Whether the input is added to the output, through a linear layer of its own where the
            widths differ.
    """

    config_class = DenseConfig
    config: DenseConfig

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        activation_function: nn.Module | None = None,
        init_weight: Tensor | None = None,
        init_bias: Tensor | None = None,
        *,
        module_input_name: str = "sentence_embedding",
        module_output_name: str | None = None,
        use_residual: bool = False,
    ) -> None:
        activation_function = nn.Tanh() if activation_function is None else activation_function
        super().__init__(
            DenseConfig(
                in_features=in_features,
                out_features=out_features,
                bias=bias,
                activation_function=qualified_name(type(activation_function)),
                module_input_name=module_input_name,
                module_output_name=module_output_name or module_input_name,
                use_residual=use_residual,
            )
        )
        self.activation_function = activation_function
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.residual: nn.Module | None = None
        if use_residual:
            same_width = in_features == out_features
            self.residual = nn.Identity() if same_width else nn.Linear(in_features, out_features, bias=False)
        if init_weight is not None:
            self.linear.weight = nn.Parameter(init_weight)
        if init_bias is not None:
            self.linear.bias = nn.Parameter(init_bias)

    @classmethod
    def from_config(cls, config: DenseConfig, activation_function: nn.Module | None = None) -> Dense:
        """The module with these settings.

        Args:
            config: The settings.
            activation_function: The activation that they name, if it has been made; by default one of the table's.

        Raises:
            FormatError: They name another one.
        """
        if activation_function is None:
            activation_function = _activation_named(config.activation_function, refuse_own_class)
        module = cls(
            config.in_features,
            config.out_features,
            config.bias,
            activation_function,
            module_input_name=config.module_input_name,
            module_output_name=config.module_output_name,
            use_residual=config.use_residual,
        )
        module.config = config
        return module

    @classmethod
    def load(cls, input_path: str | Path, *, own_class: OwnClass = refuse_own_class) -> Dense:
        """The module that a folder holds; errors as for ``Module.load``.

        Args:
            input_path: The folder.
            own_class: Finds the class of an activation that is not one of the table's.
        """
        folder = Path(input_path)
        config = cls._read_config(folder)
        if config.activation_function in _ACTIVATIONS:
            return super().load(folder)
        try:
            # Not on meta, like the rest: what a class of somebody's own holds need not be among the weights.
            activation_function = _activation_named(config.activation_function, own_class)
        except FormatError as error:
            raise error.within(str(folder / cls.config_file_name)) from error
        with torch.device("meta"):
            module = cls.from_config(config, activation_function)
        read_weights(folder, module)
        return module

    def get_config_dict(self) -> dict[str, Any]:
        """The settings as they are written to disk, with the activation function of now."""
        return replace(self.config, activation_function=qualified_name(type(self.activation_function))).to_dict()

    def check_can_be_saved(self) -> None:
        """See ``Module.check_can_be_saved``.

        Raises:
            ValueError: The activation function has arguments, or cannot be imported: the file has a place for the
                name of its class alone.
        """
        activation = self.activation_function
        check_importable(activation, nn.Module, _WHERE)
        remedy = "Write a class of your own, derived from nn.Module, that needs none"
        try:
            with torch.random.fork_rng(devices=[]):
                plain = type(activation)()
        except TypeError as error:
            raise ValueError(
                f"{_WHERE}: expected a class without arguments, found {activation!r} ({error}). {remedy}"
            ) from error
        usual, found = _settings_of(plain), _settings_of(activation)
        if found != usual:
            other = [setting for setting in found if setting not in usual]
            raise ValueError(
                f"{_WHERE}: expected {plain!r}, found {activation!r} with {other}: its arguments would be "
                f"lost, as the file names only its class. {remedy}"
            )

    def forward(self, features: Features) -> Features:
        """Maps ``sentence_embedding``, or the feature that the settings name."""
        embedding = features[self.config.module_input_name]
        output = self.activation_function(self.linear(embedding))
        if self.residual is not None:
            output = output + self.residual(embedding)
        return {**features, self.config.module_output_name: output}

    def get_sentence_embedding_dimension(self) -> int:
        """Width of the output."""
        return self.config.out_features

    def get_embedding_dimension(self) -> int:
        """The same, under its newer name."""
        return self.get_sentence_embedding_dimension()


def _activation_named(name: str, own_class: OwnClass) -> nn.Module:
    kind = _ACTIVATIONS.get(name) or own_class(name, _WHERE, _EXPECTED)
    # A Sequential without its parts would be another function, in silence.
    if not issubclass(kind, nn.Module) or kind is nn.Sequential:
        raise FormatError(_WHERE, f"{_EXPECTED}, or a class of your own derived from nn.Module", name)
    try:
        activation: nn.Module = kind()
    except TypeError as error:
        raise FormatError(_WHERE, f"a class that is made without arguments ({error})", name) from error
    return activation


def _settings_of(activation: nn.Module) -> list[object]:
    """What tells an activation from others: classes and arguments of its parts, and the shapes of weights."""
    return [
        *((name, type(part).__name__) for name, part in activation.named_modules()),
        *(argument for name, part in activation.named_modules() for argument in _arguments_of(name, part)),
        *((name, tuple(tensor.shape)) for name, tensor in activation.state_dict().items()),
    ]


def _arguments_of(place: str, part: nn.Module) -> Iterator[tuple[str, str]]:
    for name, value in vars(part).items():
        if isinstance(value, _PLAIN) and not name.startswith("_") and name not in _SAME_FUNCTION:
            yield f"{place}.{name}".lstrip("."), repr(value)
