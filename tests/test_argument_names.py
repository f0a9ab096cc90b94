"""Arguments under the names that versions of sentence-transformers have for them."""

from __future__ import annotations

import inspect
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sentence_embedder import SentenceTransformer, models
from sentence_embedder.argument_names import also_named, other_names


@also_named(o="obj", thing="obj")
def described(obj: object, *, end: str = "") -> str:
    """What is printed of an object."""
    return f"{obj}{end}"


def test_every_name_is_taken() -> None:
    """An argument comes by its own name, by another one, or by place; others are left alone."""
    named: list[dict[str, Any]] = [{"obj": 1}, {"o": 1}, {"thing": 1}]

    assert [described(**arguments, end=".") for arguments in named] == [described(1, end=".")] * 3


@pytest.mark.parametrize("names", [("o", "obj"), ("o", "thing")], ids=str)
def test_two_names_are_an_error(names: tuple[str, str]) -> None:
    """Nobody knows which of two values is meant."""
    with pytest.raises(TypeError, match=r"described: expected obj or \w+, found both"):
        described(**dict.fromkeys(names, 1))  # type: ignore[arg-type]


def test_the_function_stays_what_it_was() -> None:
    """Name, signature and docstring are its own, and it can be pickled; its other names can be asked for."""
    assert inspect.signature(described).parameters.keys() == {"obj", "end"}
    assert described.__doc__ == "What is printed of an object."
    assert pickle.loads(pickle.dumps(described)) is described  # noqa: S301
    assert other_names(described) == {"o": "obj", "thing": "obj"}
    assert other_names(models.Pooling) == {"embedding_dimension": "word_embedding_dimension"}
    assert other_names(print) == {}


def test_programs_for_the_newest_version(tiny_folders: dict[str, Path]) -> None:
    """A model is built and called by the names of 6.2 as by those of 2.7."""
    folder = str(tiny_folders["bert"])
    old = SentenceTransformer(
        modules=[models.Transformer(folder, model_args={}), models.Pooling(word_embedding_dimension=32)],
        device="cpu",
    )
    new = SentenceTransformer(
        modules=[models.Transformer(folder, model_kwargs={}), models.Pooling(embedding_dimension=32)],  # type: ignore[call-arg]
        device="cpu",
    )

    expected = old.encode(sentences=["the cat"])

    for encode in (new.encode, new.encode_query, new.encode_document):
        np.testing.assert_array_equal(encode(inputs=["the cat"]), expected)  # type: ignore[call-overload]
