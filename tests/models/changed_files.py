"""What becomes of a checkpoint whose files are changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_embedder.models import Transformer
from sentence_embedder.models.stand_ins.model import StandInModel
from sentence_embedder.models.stand_ins.stand_in import read_stand_in
from sentence_embedder.models.stand_ins.tokenizer import StandInTokenizer

NULL = "null"
TEXTS = [
    "the cat sat",
    "The red dog runs, in London!",
    "",
    "a [SEP] b <mask> </s>c",
    "naïve 東京 <unk> <UNK>",
]


def is_deferred(transformer: Transformer) -> bool:
    return isinstance(transformer.model_seen, StandInModel) and type(transformer.tokenizer_seen) is StandInTokenizer


def change(path: Path, changes: Mapping[str, Any]) -> None:
    """Give keys of a JSON file other values: None for none at all, NULL for null."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for dotted, value in changes.items():
        *parents, last = dotted.split("/")
        place = content
        for parent in parents:
            place = place[_key(place, parent)]
        key = _key(place, last)
        if value is None:
            if isinstance(place, list) or key in place:
                del place[key]
        else:
            place[key] = None if value == NULL else value
    path.write_text(json.dumps(content), encoding="utf-8")


def _key(place: Any, name: str) -> Any:
    return int(name) if isinstance(place, list) else name


def assert_unknown(folder: Path, name: str, changes: Mapping[str, Any]) -> None:
    assert read_stand_in(folder) is not None

    change(folder / name, changes)

    assert read_stand_in(folder) is None


def assert_alike(folder: Path, name: str, changes: Mapping[str, Any]) -> None:
    change(folder / name, changes)
    transformer = Transformer(str(folder))
    assert is_deferred(transformer)
    stand_in = transformer.tokenizer_seen
    before = _told(transformer)

    transformer.tokenizer  # noqa: B018  # it is loaded
    after = _told(transformer)

    assert not is_deferred(transformer)
    assert after == before
    assert transformer.tokenizer_seen.model_max_length == stand_in.model_max_length
    assert transformer.tokenizer_seen.backend_tokenizer.to_str() == stand_in.backend_tokenizer.to_str()


def _told(transformer: Transformer) -> str:
    """All that a tokenizer decides."""
    tokens = transformer.tokenize([*TEXTS, (TEXTS[0], TEXTS[1])])
    counts = transformer.count_tokens(TEXTS), transformer.prompt_length("the cat "), transformer.max_seq_length
    return str((tokens, counts, transformer.token_offsets(TEXTS[3])))
