"""SentenceTransformerModelCardData: what the owner of a model says of it in its card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

_TAGS = ("sentence-transformers", "sentence-similarity", "feature-extraction")

_TASKS = "semantic search, semantic textual similarity, paraphrase mining, classification and clustering"


@dataclass
class SentenceTransformerModelCardData:
    """What the owner of a model says of it in its card; what is not said, is left out or found out.

    Args:
        language: The languages of its texts, as codes: ``"en"``, or several.
        license: Its licence, as the Hub names it: ``"apache-2.0"``.
        model_name: What it is called in the heading of the card.
        model_id: Its name on the Hub, under which the usage code of the card loads it.
        train_datasets: The data sets that it was trained on, each with a ``name``, an ``id`` on the Hub, or both.
        eval_datasets: Those that it was judged by.
        task_name: What it is for, in words.
        tags: Tags for the Hub.
        local_files_only: Accepted; nothing is ever looked up for a card.
        generate_widget_examples: Accepted; cards have no widgets.

    Attributes:
        base_model: The model on the Hub that it was made from.
        base_model_revision: The commit of that model.

    Raises:
        ValueError: ``model_id`` is no name on the Hub.

    Example:
        >>> data = SentenceTransformerModelCardData(language="en", license="mit")
        >>> data.language
        ['en']
    """

    language: str | Sequence[str] | None = None
    license: str | None = None
    model_name: str | None = None
    model_id: str | None = None
    train_datasets: Sequence[Mapping[str, str]] = ()
    eval_datasets: Sequence[Mapping[str, str]] = ()
    task_name: str | None = _TASKS
    tags: Sequence[str] | None = _TAGS
    local_files_only: bool = False
    generate_widget_examples: bool = True
    base_model: str | None = field(default=None, init=False)
    base_model_revision: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.language = _listed(self.language)
        self.tags = _listed(self.tags)
        if self.model_id is not None:
            self.set_model_id(self.model_id)

    def set_model_id(self, model_id: str) -> None:
        """Say what it is called on the Hub.

        Raises:
            ValueError: The name has no owner, or more than one slash.
        """
        if model_id.count("/") != 1:
            raise ValueError(f"model_id: expected owner/name, found {model_id!r}")
        self.model_id = model_id

    def set_base_model(self, model_id: str, revision: str | None = None) -> None:
        """Say which model on the Hub it was made from, and which commit of that."""
        self.base_model, self.base_model_revision = model_id, revision

    def set_language(self, language: str | Sequence[str]) -> None:
        """Say which languages its texts have."""
        self.language = _listed(language)

    def set_license(self, license: str) -> None:  # noqa: A002  # the name that is known
        """Say under which licence it is."""
        self.license = license

    def add_tags(self, tags: str | Iterable[str]) -> None:
        """Add tags for the Hub."""
        added = [tags] if isinstance(tags, str) else tags
        self.tags = [*dict.fromkeys([*(self.tags or ()), *added])]


def _listed(value: str | Iterable[str] | None) -> list[str]:
    return [value] if isinstance(value, str) else [*(value or ())]
