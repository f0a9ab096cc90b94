"""What the front of a model card says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CardMetadata:
    """What the front of a model card says, as far as it is passed on to models made from this one.

    Args:
        language: The languages, as codes.
        license: The licence.
    """

    language: tuple[str, ...] = ()
    license: str | None = None

    @staticmethod
    def of(card: str | None) -> CardMetadata:
        """That of a card; nothing of a card that has no front, or one that cannot be read."""
        found = _front_of(card or "")
        language, license_name = found.get("language"), found.get("license")
        listed = [language] if isinstance(language, str) else language if isinstance(language, list) else []
        return CardMetadata(
            language=tuple(code for code in listed if isinstance(code, str)),
            license=license_name if isinstance(license_name, str) else None,
        )


def _front_of(card: str) -> Mapping[str, Any]:
    if not card.lstrip().startswith("---"):
        return {}
    from huggingface_hub import ModelCard

    try:
        return vars(ModelCard(card, ignore_metadata_errors=True).data)
    except Exception:  # noqa: BLE001  # whatever a stranger wrote there, it is no reason not to save a model
        return {}
