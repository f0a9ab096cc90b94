"""ModelSource: where a model comes from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

_LANGUAGE_MODELS = frozenset(
    [
        *(f"albert-{size}-v{version}" for size in ("base", "large", "xlarge", "xxlarge") for version in (1, 2)),
        *(f"bert-base-{kind}" for kind in ("cased", "uncased", "chinese", "cased-finetuned-mrpc")),
        *(f"bert-base-german-{kind}" for kind in ("cased", "dbmdz-cased", "dbmdz-uncased")),
        *(f"bert-base-multilingual-{kind}" for kind in ("cased", "uncased")),
        *(
            f"bert-large-{case}{kind}"
            for case in ("cased", "uncased")
            for kind in ("", "-whole-word-masking", "-whole-word-masking-finetuned-squad")
        ),
        *("camembert-base", "ctrl", "openai-gpt", "transfo-xl-wt103", "distilgpt2", "distilroberta-base"),
        *(f"distilbert-base-{case}{kind}" for case in ("cased", "uncased") for kind in ("", "-distilled-squad")),
        *("distilbert-base-german-cased", "distilbert-base-multilingual-cased"),
        "distilbert-base-uncased-finetuned-sst-2-english",
        *(f"gpt2{size}" for size in ("", "-medium", "-large", "-xl")),
        *("roberta-base", "roberta-large", "roberta-large-mnli"),
        *("roberta-base-openai-detector", "roberta-large-openai-detector"),
        *(f"t5-{size}" for size in ("small", "base", "large", "3b", "11b")),
        *(f"xlm-clm-{kind}-1024" for kind in ("ende", "enfr")),
        *(f"xlm-mlm-{kind}" for kind in ("100-1280", "17-1280", "en-2048", "ende-1024", "enfr-1024")),
        *(f"xlm-mlm-{kind}" for kind in ("enro-1024", "tlm-xnli15-1024", "xnli15-1024")),
        *("xlm-roberta-base", "xlm-roberta-large"),
        *(f"xlm-roberta-large-finetuned-conll02-{language}" for language in ("dutch", "spanish")),
        *(f"xlm-roberta-large-finetuned-conll03-{language}" for language in ("english", "german")),
        *("xlnet-base-cased", "xlnet-large-cased"),
    ]
)
"""The names without an owner that mean a plain language model; every other belongs to sentence-transformers."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model comes from.

    Args:
        name: A folder, or a name on the Hub.
        revision: A branch, tag or commit; by default the main branch.
        token: A token for private models; True for the one that is stored on this machine, False for none.
        cache_folder: Where downloads are kept; by default where ``SENTENCE_TRANSFORMERS_HOME`` says, or else
            in the Hub's own cache.
        local_files_only: Whether only what is in the cache may be used.
        refresh: Whether the Hub is asked for a newer commit though the model is in the cache.

    Raises:
        ValueError: It shall be refreshed from what is in the cache.
    """

    name: str
    revision: str | None = None
    token: bool | str | None = field(default=None, repr=False)
    cache_folder: str | None = None
    local_files_only: bool = False
    refresh: bool = False

    def __post_init__(self) -> None:
        if self.refresh and self.local_files_only:
            raise ValueError("refresh and local_files_only: a newer model is not in the cache: give one of the two")

    @property
    def is_path(self) -> bool:
        """Whether the name can only be that of a folder, not of a model on the Hub."""
        name = self.name
        return name.count("/") > 1 or "\\" in name or name.startswith((".", "/", "~")) or name.endswith("/")

    def origin(self, folder: Path) -> tuple[str, str | None] | None:
        """The full name on the Hub and the commit of what a folder holds, if it is a snapshot in the cache."""
        is_snapshot = folder.parent.name == "snapshots" and not Path(self.name).expanduser().is_dir()
        return (self.qualified().name, folder.name) if is_snapshot else None

    def qualified(self) -> ModelSource:
        """The same by its full name on the Hub: one without an owner belongs to sentence-transformers."""
        if "/" in self.name or self.name.lower() in _LANGUAGE_MODELS:
            return self
        return replace(self, name=f"sentence-transformers/{self.name}")
