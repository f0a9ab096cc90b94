"""The functions that people know as ``util.…``, each defined in the file that is about it."""

from sentence_embedder.devices import get_device_name
from sentence_embedder.dotted_names import fullname, import_from_string
from sentence_embedder.features import batch_to_device
from sentence_embedder.installed import (
    check_package_availability,
    is_accelerate_available,
    is_datasets_available,
)
from sentence_embedder.logging_handler import LoggingHandler, disable_logging, install_logger
from sentence_embedder.quantization.precision import quantize_embeddings
from sentence_embedder.retrieval import (
    community_detection,
    information_retrieval,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    semantic_search,
)
from sentence_embedder.similarity import (
    SimilarityFunction,
    cos_sim,
    dot_score,
    euclidean_sim,
    manhattan_sim,
    normalize_embeddings,
    pairwise_angle_sim,
    pairwise_cos_sim,
    pairwise_dot_score,
    pairwise_euclidean_sim,
    pairwise_manhattan_sim,
    pytorch_cos_sim,
    truncate_embeddings,
)
from sentence_embedder.web_file import http_get

__all__ = [
    "LoggingHandler",
    "SimilarityFunction",
    "batch_to_device",
    "check_package_availability",
    "community_detection",
    "cos_sim",
    "disable_logging",
    "dot_score",
    "euclidean_sim",
    "fullname",
    "get_device_name",
    "http_get",
    "import_from_string",
    "information_retrieval",
    "install_logger",
    "is_accelerate_available",
    "is_datasets_available",
    "manhattan_sim",
    "normalize_embeddings",
    "pairwise_angle_sim",
    "pairwise_cos_sim",
    "pairwise_dot_score",
    "pairwise_euclidean_sim",
    "pairwise_manhattan_sim",
    "paraphrase_mining",
    "paraphrase_mining_embeddings",
    "pytorch_cos_sim",
    "quantize_embeddings",
    "semantic_search",
    "truncate_embeddings",
]
