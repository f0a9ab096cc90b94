"""HubError: what went wrong with the Hub, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sentence_embedder.hub.model_source import ModelSource


class HubError(OSError):
    """A model could not be had from the Hugging Face Hub; the message says why, and what to do."""


@contextmanager
def as_hub_errors(source: ModelSource) -> Iterator[None]:
    """Every error of the client as a HubError that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except errors.GatedRepoError as error:
        reason = "its owner must grant access: ask for it on the model's page, then pass token="
        raise HubError(f"{source.name}: {reason}") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{source.name}: the Hub has the model, but no revision {source.revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        reason = "the Hub has no such model, or it is private: check the spelling, or pass token="
        raise HubError(f"{source.name}: {reason}; nor is there a folder of that name") from error
    except errors.HFValidationError as error:
        raise HubError(f"{source.name}: neither a folder nor a name that the Hub allows") from error
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # of its HTTP client
        reason = "the Hub did not give it; is there a network? local_files_only=True uses what is in the cache"
        raise HubError(f"{source.name}: {reason} ({type(error).__name__})") from error
