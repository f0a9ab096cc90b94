"""EncodeOptions: checked when they are made."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from sentence_embedder.encoding.options import Container, EncodeOptions, container_for


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size: expected 1 or more, found 0"),
        ({"batch_size": -3}, "found -3"),
        ({"output_value": "input_ids"}, r"expected one of \['sentence_embedding', 'token_embeddings', None\]"),
        ({"precision": "float16"}, "precision: expected one of"),
        ({"output_value": None, "precision": "binary"}, "precision='binary': expected output_value="),
    ],
)
def test_what_does_not_exist(arguments: dict[str, Any], message: str) -> None:
    """A value that does not exist is refused, with those that do."""
    with pytest.raises(ValueError, match=message):
        EncodeOptions(**arguments)


def test_options_do_not_change() -> None:
    """Options are frozen: the same object can go to several workers."""
    with pytest.raises(FrozenInstanceError):
        EncodeOptions().batch_size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("to_numpy", "to_tensor", "container"),
    [(True, False, "numpy"), (True, True, "tensor"), (False, True, "tensor"), (False, False, "list")],
)
def test_containers(to_numpy: bool, to_tensor: bool, container: Container) -> None:
    """A tensor goes before an array, and neither means a list."""
    assert container_for(convert_to_numpy=to_numpy, convert_to_tensor=to_tensor) == container
