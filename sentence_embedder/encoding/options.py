"""EncodeOptions: what a call of ``encode`` asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

from sentence_embedder.quantization.precision import Precision, check_precision
from sentence_embedder.whole_number import is_whole, whole_or_none

OutputValue = Literal["sentence_embedding", "token_embeddings"]
_OUTPUT_VALUES: tuple[OutputValue | None, ...] = (*get_args(OutputValue), None)
Container = Literal["numpy", "tensor", "list"]


class EncodeArguments(TypedDict, total=False):
    """Arguments of ``encode`` upon which the type of its result does not depend."""

    show_progress_bar: bool | None
    device: Any
    normalize_embeddings: bool
    truncate_dim: int | None
    pool: Any
    chunk_size: int | None
    out: Any
    truncation: Any
    on_nonfinite: Any
    deterministic: bool
    task: str | None


@dataclass(frozen=True, kw_only=True)
class EncodeOptions:
    """What a call of ``encode`` asks for, checked before any work is done.

    Args:
        batch_size: Bounds memory: no more tokens are in work than so many texts of ``max_seq_length`` have.
        output_value: ``"sentence_embedding"``, ``"token_embeddings"``, or None for all features.
        precision: The number format of the result.
        container: What sentence embeddings are returned in.
        normalize_embeddings: Whether sentence embeddings are scaled to length 1, after they are cut.
        truncate_dim: Width to which sentence embeddings are cut; None leaves them.
        prompt: What stands before each text, if anything.
        deterministic: Whether an embedding is bit for bit the same whatever else is in the call.

    Raises:
        ValueError: A value that does not exist, or a combination without a meaning.
    """

    batch_size: int = 32
    output_value: OutputValue | None = "sentence_embedding"
    precision: Precision = "float32"
    container: Container = "numpy"
    normalize_embeddings: bool = False
    truncate_dim: int | None = None
    prompt: str | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        if not is_whole(self.batch_size) or self.batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, found {self.batch_size!r}")
        whole_or_none(self.truncate_dim, "truncate_dim")
        if self.output_value not in _OUTPUT_VALUES:
            raise ValueError(f"output_value: expected one of {list(_OUTPUT_VALUES)}, found {self.output_value!r}")
        check_precision(self.precision)
        if self.output_value is None and self.precision != "float32":
            raise ValueError(
                f"precision={self.precision!r}: expected output_value='sentence_embedding' or "
                "'token_embeddings' with it, found None: all features are returned as they are"
            )


def container_for(*, convert_to_numpy: bool, convert_to_tensor: bool) -> Container:
    """The container that the two flags ask for: a tensor before an array before a list of tensors."""
    if convert_to_tensor:
        return "tensor"
    return "numpy" if convert_to_numpy else "list"
