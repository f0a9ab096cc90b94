"""A class of somebody's own whose ``encode`` knows nothing of pools: workers call it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from sentence_embedder.encoding.collector import Collector
from sentence_embedder.encoding.cut_texts import CutTexts
from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.pool.encode_pool import Pool
from sentence_embedder.pool.request import Request
from sentence_embedder.progress import Progress
from sentence_embedder.similarity import as_tensor

_NEED_NOT_BE_TAKEN = frozenset(
    {"batch_size", "show_progress_bar", "convert_to_tensor", "truncate_dim", "truncation", "on_nonfinite"}
)
"""Arguments of a worker's without which ``encode`` gives the same numbers; it has set the model's width itself."""


def takes_pool(encode: Callable[..., Any]) -> bool:
    """Whether an ``encode`` has an argument ``pool``, or hands on whatever it is given."""
    parameters = inspect.signature(encode).parameters
    return "pool" in parameters or any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


@dataclass(frozen=True)
class OwnEncode:
    """The ``encode`` of a model's own class, with the arguments that it takes.

    Args:
        prompts: ``prompt`` and ``prompt_name``, if they were given: the class may have others in their place.
    """

    prompts: Mapping[str, str]

    def __call__(self, model: Any, texts: Sequence[Any], *, prompt: str, **arguments: Any) -> Any:
        """What the model makes of texts.

        Args:
            model: A SentenceTransformer.
            texts: The texts.
            prompt: The prompt that the model would put before them if the class had no ``encode`` of its own.
            arguments: Others of ``encode``.

        Raises:
            TypeError: It does not take one of them, and that is not as usual.
        """
        del prompt
        taken, usual = inspect.signature(model.encode).parameters, EncodeOptions()
        given = {
            name: value
            for name, value in arguments.items()
            if name in taken or not (name in _NEED_NOT_BE_TAKEN or value == getattr(usual, name, None))
        }
        made = model.encode(texts, **self.prompts, **given)
        return as_tensor(made) if arguments["output_value"] == "sentence_embedding" else made


@dataclass(frozen=True)
class PoolOfOwnEncode:
    """A pool whose workers call the ``encode`` of the model's own class; see ``Pool``.

    Args:
        pool: The pool.
        encode: How they call it.
    """

    pool: Pool
    encode: OwnEncode

    @property
    def model(self) -> nn.Module | None:
        """The model of the pool."""
        return self.pool.model

    def run(
        self,
        request: Request,
        texts: Sequence[Any],
        collector: Collector,
        progress: Progress,
        *,
        cut: CutTexts,
        chunk_size: int | None = None,
    ) -> None:
        """Have texts encoded; arguments as for ``Pool``."""
        own = replace(request, encode=self.encode)
        self.pool.run(own, texts, collector, progress, cut=cut, chunk_size=chunk_size)

    def stop(self) -> None:
        """End the workers."""
        self.pool.stop()
