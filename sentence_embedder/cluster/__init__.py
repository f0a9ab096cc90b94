"""Clusters: ``encode`` on many machines, by Ray (https://docs.ray.io; extra ``ray``).

- ``RayPool``: a pool for ``encode(pool=…)`` whose workers are anywhere in a cluster.
- ``encode_dataset``: a step of a Ray dataset, from texts to embeddings.
- ``encode_files``: files of texts to files with embeddings, which can be interrupted and goes on where it was.
"""

from sentence_embedder.cluster.datasets import encode_dataset
from sentence_embedder.cluster.files import EncodedFiles, encode_files
from sentence_embedder.cluster.ray_pool import RayPool

__all__ = ["EncodedFiles", "RayPool", "encode_dataset", "encode_files"]
