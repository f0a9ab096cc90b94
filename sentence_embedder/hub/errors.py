"""HubError: what went wrong with the Hub, and what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from sentence_embedder.hub.model_source import ModelSource

_CLOSED = "client has been closed"
"""So says a client that is closed when it is asked for something."""

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class HubError(OSError):
    """A model could not be had from the Hugging Face Hub, or not be put there; the message says what to do."""


class ModelNotFoundError(HubError):
    """There is no such model, or whoever asks may not know of it."""


class RevisionNotFoundError(HubError):
    """The model has no such branch, tag or commit."""


class AccessError(HubError):
    """The Hub knows the model, and does not give it to whoever asks."""


class HubUnavailableError(HubError):
    """The Hub cannot be reached, or does not answer as it should: later it may."""


class CacheError(HubError):
    """What the Hub gave could not be kept on the disk."""


@contextmanager
def as_hub_errors(source: ModelSource) -> Iterator[None]:
    """Every error of the client as a HubError that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except HubError:
        raise
    except errors.HFValidationError as error:
        raise HubError(f"{source.name}: neither a folder nor a name that the Hub allows") from error
    except (OSError, errors.HTTPError) as error:  # type: ignore[attr-defined]  # of its HTTP client
        kind, reason = _explained(error, source)
        raise kind(f"{source.name}: {reason}") from error


def status_of(error: BaseException) -> int | None:
    """The status that the Hub answered, if it did."""
    response = getattr(error, "response", None)
    status: int | None = getattr(response, "status_code", None)
    return status


def was_closed_here(error: BaseException) -> bool:
    """Whether a connection, or the client, was closed by another thread of this process: all share the client of
    huggingface_hub, and one that cannot connect closes it.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno == errno.EBADF:
            return True
        if isinstance(cause, RuntimeError) and _CLOSED in str(cause):
            return True
        cause = cause.__cause__
    return False


def _explained(error: BaseException, source: ModelSource) -> tuple[type[HubError], str]:
    """The kind of error, and what to do."""
    from huggingface_hub import errors

    # The client says "not in the cache" of whatever it could not fetch; its cause says why.
    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, errors.GatedRepoError):
        return AccessError, "its owner must grant access: ask for it on the model's page, then pass token="
    if isinstance(error, errors.RevisionNotFoundError):
        return RevisionNotFoundError, f"the Hub has the model, but no revision {source.revision!r}"
    if isinstance(error, errors.RepositoryNotFoundError):
        remedy = "check the spelling, or pass token=; nor is there a folder of that name"
        return ModelNotFoundError, f"the Hub has no such model, or it is private: {remedy}"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return AccessError, "token=True, but none is stored on this machine: log in by `hf auth login`"
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        remedy = "make room, or name another folder by cache_folder= or the environment variable HF_HOME"
        return CacheError, f"what the Hub gave could not be written ({error.strerror}: {error.filename}): {remedy}"
    return _explained_status(error)


def _explained_status(error: BaseException) -> tuple[type[HubError], str]:
    status = status_of(error)
    if status == 401:
        return AccessError, "the Hub does not accept the token: make a new one, or pass token=False for none"
    if status == 403:
        return AccessError, "the Hub does not give it to the owner of this token: ask for access, or pass another"
    if status == 429:
        return HubUnavailableError, "the Hub asks to come back later, as there were too many requests: wait a while"
    if status is not None:
        return HubUnavailableError, f"the Hub failed with status {status}: try again later"
    reason = "the Hub did not give it; is there a network? local_files_only=True uses what is in the cache"
    return HubUnavailableError, f"{reason} ({type(error).__name__}: {error!s:.200})"
