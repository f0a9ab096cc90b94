"""Dense: a fully connected layer over the embedding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from sentence_embedder.features import Features
from sentence_embedder.formats import DenseConfig
from sentence_embedder.models.module import Module
from sentence_embedder.record import FormatError

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    f"{activation.__module__}.{activation.__qualname__}": activation
    for activation in (
        *(nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
        *(nn.LeakyReLU, nn.LogSigmoid, nn.LogSoftmax, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.RReLU),
        *(nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softmax, nn.Softplus, nn.Softshrink, nn.Softsign),
        *(nn.Tanh, nn.Tanhshrink, nn.Identity),
    )
}
"""Name on disk → class. A closed table: a name in a file never imports anything."""


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
                activation_function=f"{type(activation_function).__module__}.{type(activation_function).__qualname__}",
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
    def from_config(cls, config: DenseConfig) -> Dense:
        """The module with these settings."""
        activation = _ACTIVATIONS.get(config.activation_function)
        if activation is None:
            expected = f"one of the {len(_ACTIVATIONS)} activation functions of torch.nn.modules"
            raise FormatError("activation_function of a Dense", expected, config.activation_function)
        module = cls(
            config.in_features,
            config.out_features,
            config.bias,
            activation(),
            module_input_name=config.module_input_name,
            module_output_name=config.module_output_name,
            use_residual=config.use_residual,
        )
        module.config = replace(config, activation_function=module.config.activation_function)
        return module

    def save(self, output_path: str | Path, *, safe_serialization: bool = True) -> None:
        """Write the settings and weights into a folder; arguments as for ``Module.save``.

        Raises:
            ValueError: The activation function has arguments, for which the file has no place.
        """
        activation = _ACTIVATIONS.get(self.config.activation_function)
        if activation is not None and repr(activation()) != repr(self.activation_function):
            raise ValueError(
                f"activation_function of a Dense: expected {activation()!r}, found {self.activation_function!r}: "
                "its arguments would be lost, as the file names only its class"
            )
        super().save(output_path, safe_serialization=safe_serialization)

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
