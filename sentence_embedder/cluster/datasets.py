"""encode_dataset: texts to embeddings as a step of a Ray dataset."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

from sentence_embedder.cluster.embedding_column import EmbeddingColumn
from sentence_embedder.cluster.shipped_model import Resources, ShippedModel, connected_ray

logger = logging.getLogger(__name__)


class _TableEncoder:
    """An actor that adds embeddings to tables.

    Args:
        shipped: Its model.
        column: The column to add.
    """

    def __init__(self, shipped: ShippedModel, column: EmbeddingColumn) -> None:
        self._model = shipped.loaded()
        self._column = column
        self._has_told_of_cuts = False

    def __call__(self, table: Any) -> Any:
        """The table, with one column more."""
        cut = self._column.cut_texts(self._model)
        made = self._column.added_to(table, self._model, cut)
        if cut.truncation == "warn" and len(cut.places) and not self._has_told_of_cuts:
            logger.warning("%s; of later tables it is not said again", cut.told(table.num_rows))
            self._has_told_of_cuts = True
        return made


def encode_dataset(
    dataset: Any,
    model: nn.Module,
    *,
    column: str = "text",
    output_column: str = "embedding",
    concurrency: int | None = None,
    num_cpus: float = 1,
    num_gpus: float = 0,
    rows_at_once: int = 2048,
    **arguments: Any,
) -> Any:
    """A Ray dataset with the embeddings of its texts in a column more, of lists of fixed size.

    Nothing is computed before the dataset that is returned is used; then it streams, and what was on a machine that
    is lost is computed again.

    Args:
        dataset: A ``ray.data.Dataset``, of ``ray.data.read_parquet`` say.
        model: The SentenceTransformer. It goes through the object store, and is loaded once by each actor.
        column: The column of the texts.
        output_column: The column of the embeddings; one of this name is replaced.
        concurrency: How many actors; by default as many as there is room for beside what reads the dataset.
        num_cpus: Cores, and threads, of each.
        num_gpus: GPUs of each.
        rows_at_once: How many rows an actor is given at a time.
        arguments: Of ``encode``: prompts, ``batch_size``, ``normalize_embeddings``, ``truncate_dim``, ``precision``
            except those that look at all embeddings, ``truncation`` (an actor logs once what it has cut), and what
            modules ask for.

    Returns:
        The dataset, as ``ray.data.Dataset``.

    Raises:
        ImportError: Ray is not installed.
        TypeError: The model's modules do not take an argument.
        ValueError: An argument has no meaning for a column, or a value that does not exist; or the actors would
            leave no core for reading.

    Example:
        >>> dataset = encode_dataset(ray.data.read_parquet("in/"), model)  # doctest: +SKIP
        >>> dataset.write_parquet("out/")  # doctest: +SKIP
    """
    embeddings = EmbeddingColumn.of(model, column, output_column, arguments)
    ray = connected_ray()
    resources = Resources(num_cpus, num_gpus)
    cores = ray.cluster_resources().get("CPU", 0)
    if concurrency is not None and not (concurrency >= 1 and concurrency * num_cpus < cores):
        raise ValueError(
            f"concurrency={concurrency}: expected at least 1, and of {cores:g} cores one left for reading the "
            "dataset, without which the actors would wait for ever"
        )
    # Their number follows what there is to do, so that tasks that read get cores first.
    actors = {"size": concurrency} if concurrency else {"min_size": 1, "max_size": resources.room()}
    return dataset.map_batches(
        _TableEncoder,
        batch_size=rows_at_once,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(**actors),
        fn_constructor_args=(ShippedModel.of(model, resources), embeddings),
        # One actor must not take all there is either; it is still alone at work while it computes.
        num_cpus=num_cpus if num_cpus < cores else cores / 2,
        num_gpus=num_gpus or None,
    )
