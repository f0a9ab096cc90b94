"""The Hugging Face Hub: the only importer of huggingface_hub, which it imports where it is used."""

from sentence_embedder.hub.download import Gaps, locate
from sentence_embedder.hub.errors import (
    AccessError,
    CacheError,
    HubError,
    HubUnavailableError,
    ModelNotFoundError,
    RevisionNotFoundError,
)
from sentence_embedder.hub.model_source import ModelSource
from sentence_embedder.hub.upload import ModelTarget, upload

__all__ = [
    "AccessError",
    "CacheError",
    "Gaps",
    "HubError",
    "HubUnavailableError",
    "ModelNotFoundError",
    "ModelSource",
    "ModelTarget",
    "RevisionNotFoundError",
    "locate",
    "upload",
]
