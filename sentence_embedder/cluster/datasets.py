"""encode_dataset: texts to embeddings as a step of a Ray dataset."""

from __future__ import annotations

from typing import Any

from torch import nn

from sentence_embedder.cluster.embedding_column import with_embeddings
from sentence_embedder.cluster.shipped_model import Resources, ShippedModel, connected_ray
from sentence_embedder.encoding.options import EncodeOptions
from sentence_embedder.quantization import CALIBRATED_PRECISIONS


class _TableEncoder:
    """An actor that adds embeddings to tables.

    Args:
        shipped: Its model.
        column: Where the texts are.
        output_column: Where the embeddings go.
        arguments: What ``encode`` is given.
    """

    def __init__(self, shipped: ShippedModel, column: str, output_column: str, arguments: dict[str, Any]) -> None:
        self._model = shipped.loaded()
        self._columns = column, output_column
        self._arguments = arguments

    def __call__(self, table: Any) -> Any:
        """The table, with one column more."""
        return with_embeddings(table, self._model, *self._columns, self._arguments)


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
        output_column: The column of the embeddings.
        concurrency: How many actors; by default as many as the cluster has room for beside what reads the dataset.
        num_cpus: Cores, and threads, of each.
        num_gpus: GPUs of each.
        rows_at_once: How many rows an actor is given at a time.
        arguments: Of ``encode``: prompts, ``batch_size``, ``normalize_embeddings``, ``truncate_dim``, ``precision``
            except those that look at all embeddings, and what modules ask for.

    Returns:
        The dataset, as ``ray.data.Dataset``.

    Raises:
        ImportError: Ray is not installed.
        ValueError: An argument of ``encode`` that there is not, or not here.

    Example:
        >>> dataset = encode_dataset(ray.data.read_parquet("in/"), model)  # doctest: +SKIP
        >>> dataset.write_parquet("out/")  # doctest: +SKIP
    """
    check_arguments(arguments)
    ray = connected_ray()
    resources = Resources(num_cpus, num_gpus)
    # Tasks that read the dataset need cores, too: actors that took all of them would wait for each other.
    actors = {"size": concurrency} if concurrency else {"min_size": 1, "max_size": resources.room()}
    cores = ray.cluster_resources().get("CPU", 0)
    return dataset.map_batches(
        _TableEncoder,
        batch_size=rows_at_once,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(**actors),
        fn_constructor_args=(ShippedModel.of(model, resources), column, output_column, arguments),
        num_cpus=num_cpus if num_cpus < cores else num_cpus / 2,
        num_gpus=num_gpus or None,
    )


_SET_HERE = ("output_value", "convert_to_numpy", "convert_to_tensor", "device", "pool", "chunk_size", "out")


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise a ValueError for arguments of ``encode`` that have no meaning for columns of tables."""
    unfit = [name for name in _SET_HERE if name in arguments]
    if unfit:
        raise ValueError(f"{', '.join(unfit)}: expected arguments that have a meaning for a column of embeddings")
    precision = arguments.get("precision", "float32")
    EncodeOptions(batch_size=arguments.get("batch_size", 32), precision=precision or "float32")
    if precision in CALIBRATED_PRECISIONS:
        raise ValueError(
            f"precision={precision!r}: expected one that needs no look at all embeddings first; write float32, and "
            "quantise with quantize_embeddings and ranges"
        )
