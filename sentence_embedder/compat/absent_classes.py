"""Classes of sentence-transformers that are not part of this package, but which others import.

There are no such objects, so ``isinstance`` is false, and to make one is an error that says what there is instead.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn

_THE_OTHER = "sentence-transformers itself has it, where sentence_embedder.compat is not installed"


class AbsentClassError(NotImplementedError):
    """A class was called that is not part of this package."""


class _Absent:
    instead: ClassVar[str]
    """What there is instead."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        named = next(base for base in cls.__mro__ if base.__module__ == __name__)
        raise AbsentClassError(f"{named.__name__} is not part of sentence_embedder: {cls.instead}")


class _OtherModel(_Absent):
    instead = _THE_OTHER


class _Training(_Absent):
    instead = "train with SentenceTransformer.fit, which takes losses, loaders and evaluators as they are"


class CrossEncoder(_Absent):
    """A model that scores pairs of texts."""

    instead = f"score pairs with AutoModelForSequenceClassification of transformers; {_THE_OTHER}"


class CrossEncoderModelCardData(_OtherModel):
    """What is written on its card."""


class CrossEncoderTrainer(_OtherModel):
    """What trains it."""


class CrossEncoderTrainingArguments(_OtherModel):
    """How it is trained."""


class SparseEncoder(_OtherModel):
    """A model that makes sparse vectors, of a value for each word of a vocabulary."""


class SparseEncoderModelCardData(_OtherModel):
    """What is written on its card."""


class SparseEncoderTrainer(_OtherModel):
    """What trains it."""


class SparseEncoderTrainingArguments(_OtherModel):
    """How it is trained."""


class MultiVectorEncoder(_OtherModel):
    """A model that makes a vector of each token, to be compared by their maxima."""


class MultiVectorEncoderModelCardData(_OtherModel):
    """What is written on its card."""


class MultiVectorEncoderTrainer(_OtherModel):
    """What trains it."""


class MultiVectorEncoderTrainingArguments(_OtherModel):
    """How it is trained."""


class SentenceTransformerTrainer(_Training):
    """The Trainer of transformers for a SentenceTransformer."""


class SentenceTransformerTrainingArguments(_Training):
    """Its arguments."""


class SentenceTransformerDataCollator(_Training):
    """What makes its batches."""

    instead = "give a loader a collate_fn, or leave it to SentenceTransformer.fit"


class SentenceTransformerModelCardCallback(_Training):
    """What notes down for the card how a model is trained."""


class _WithoutMembers(type):
    """The class of what is asked for its members, and never called. The others have none of their own, so that they
    can be a parent beside one that has.
    """

    instead: str

    def __getattr__(cls, name: str) -> NoReturn:
        message = f"type object {cls.__name__!r} has no attribute {name!r}"
        if name.startswith("__"):
            raise AttributeError(message)
        raise AttributeError(f"{message}: {cls.__name__} is not part of sentence_embedder: {cls.instead}")


class BatchSamplers(_Training, metaclass=_WithoutMembers):
    """How a Trainer draws batches."""

    instead = "the loader decides: a DataLoader, or datasets.NoDuplicatesDataLoader"


class MultiDatasetBatchSamplers(_Training, metaclass=_WithoutMembers):
    """How a Trainer takes turns with data sets."""

    instead = "SentenceTransformer.fit takes a batch of each objective in turn"


class DefaultBatchSampler(_Training):
    """What draws batches for a Trainer."""

    instead = "a DataLoader draws batches"


class NoDuplicatesBatchSampler(_Training):
    """What draws batches without equal texts for a Trainer."""

    instead = "datasets.NoDuplicatesDataLoader makes such batches"


class ProportionalBatchSampler(_Training):
    """What draws from data sets of a Trainer by their sizes."""

    instead = "SentenceTransformer.fit takes a batch of each objective in turn"


class RoundRobinBatchSampler(_Training):
    """What takes turns with data sets of a Trainer."""

    instead = "SentenceTransformer.fit takes a batch of each objective in turn"


class GroupByLabelBatchSampler(_Training):
    """What draws batches with several texts of each label for a Trainer."""

    instead = "datasets.SentenceLabelDataset yields texts in such an order"


class MultiDatasetDefaultBatchSampler(_Training):
    """What takes turns with data sets for a Trainer."""

    instead = "SentenceTransformer.fit takes a batch of each objective in turn"
