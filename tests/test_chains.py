"""Models of every module: saved and loaded, in batches of any size, and by routes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_embedder import SentenceTransformer
from sentence_embedder.models import BoW, Normalize, Pooling, Router, Transformer, WordEmbeddings
from sentence_embedder.models.tokenizer import PhraseTokenizer
from tests.reference.cases import as_item
from tests.tiny_chains import CHAINS, Folders


def _assert_near(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def _model(name: str, folders: Folders) -> SentenceTransformer:
    return SentenceTransformer(modules=CHAINS[name].modules(folders), device="cpu")


def _items(name: str) -> list[Any]:
    return [as_item(item) for item in CHAINS[name].items]


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickles"])
@pytest.mark.parametrize("name", CHAINS)
def test_saved_and_loaded(name: str, safe: bool, tiny_checkpoints: Folders, tmp_path: Path) -> None:
    """A model that was saved, loaded, saved and loaded gives the same vectors, to the last bit."""
    model = _model(name, tiny_checkpoints)
    model.save(tmp_path / "once", safe_serialization=safe)
    once = SentenceTransformer(str(tmp_path / "once"), device="cpu")
    once.save(tmp_path / "twice", safe_serialization=safe)
    twice = SentenceTransformer(str(tmp_path / "twice"), device="cpu")

    expected = model.encode(_items(name))

    np.testing.assert_array_equal(once.encode(_items(name)), expected)
    np.testing.assert_array_equal(twice.encode(_items(name)), expected)
    files = {path.relative_to(tmp_path / "once") for path in (tmp_path / "once").rglob("*")}
    assert files == {path.relative_to(tmp_path / "twice") for path in (tmp_path / "twice").rglob("*")}


@pytest.mark.parametrize("name", CHAINS)
def test_whatever_the_batches(name: str, tiny_checkpoints: Folders) -> None:
    """A text's vector does not depend on its company, and ``encode`` is its modules one after the other."""
    model = _model(name, tiny_checkpoints)
    items = _items(name)

    together = model.encode(items)

    _assert_near(model.encode(items, batch_size=2), together)
    _assert_near(np.stack([model.encode([item])[0] for item in items]), together)
    with torch.no_grad():
        alone = [model(model.tokenize([item]))["sentence_embedding"][0].numpy() for item in items]
    _assert_near(np.stack(alone), together)


@pytest.mark.parametrize("name", CHAINS)
def test_what_is_handed_in_stays(name: str, tiny_checkpoints: Folders) -> None:
    """No module changes the Features that it is given."""
    model = _model(name, tiny_checkpoints)
    model.eval()
    features = model.tokenize(_items(name)[:1])
    for module in model:
        before = {
            key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in features.items()
        }
        with torch.no_grad():
            made = module(features)
        assert features.keys() == before.keys()
        for key, value in before.items():
            same = torch.equal(features[key], value) if isinstance(value, torch.Tensor) else features[key] == value
            assert same, key
        features = made


def test_routes_of_queries_and_documents(tiny_checkpoints: Folders) -> None:
    """Texts of several routes in one call come back in their order; queries and documents have their own."""
    model = _model("router", tiny_checkpoints)
    texts = ["hello world", "the cat"]
    queries, documents = model.encode_query(texts), model.encode_document(texts)

    mixed = model.encode([{"document": texts[0]}, {"query": texts[1]}, {"query": texts[0]}, texts[1]])

    _assert_near(mixed, [documents[0], queries[1], queries[0], documents[1]])
    _assert_near(model.encode(texts, task="query"), queries)
    _assert_near(np.concatenate([*model.encode_iter(texts, chunk_size=1, task="query")]), queries)
    assert np.abs(queries - documents).max() > 0.1


def test_an_unknown_route(tiny_checkpoints: Folders) -> None:
    """A route that does not exist is an error that names those that do."""
    model = _model("router", tiny_checkpoints)

    with pytest.raises(ValueError, match=r"one of the routes \['query', 'document'\], found 'passage'"):
        model.encode(["a"], task="passage")
    with pytest.raises(ValueError, match=r"one of the routes \['query', 'document'\], found 'passage'"):
        model.encode([{"passage": "a"}])


@pytest.mark.parametrize(
    ("mappings", "task", "route"),
    [
        ({}, "query", "query"),
        ({("query", None): "document"}, "query", "document"),
        ({("query", "text"): "document", ("query", None): "query"}, "query", "document"),
        ({(None, "text"): "query"}, "search", "query"),
        ({(None, None): "query"}, None, "query"),
        ({("search", "text"): "query"}, None, "document"),
    ],
)
def test_mappings_go_before_names(mappings: Any, task: str | None, route: str) -> None:
    """A task is looked up among the mappings, those for texts first, then among the routes; last is the default."""
    router = Router({"query": [Normalize()], "document": [Normalize()]}, "document", route_mappings=mappings)

    assert router.route_of(None, task) == route
    assert router.route_of("query") == "query"  # what a text says itself needs no mapping
    assert task is None or router.knows(task) is (task != "search" or (None, "text") in mappings)


def test_a_task_with_no_route_for_texts() -> None:
    """Mappings of images lead no text anywhere: ``encode_query`` then names no route, and the default is taken."""
    router = Router({"text": [Normalize()]}, "text", route_mappings={("query", "image"): "text"})

    assert not router.knows("query")
    assert router.route_of(None) == "text"


def test_a_bag_of_words_has_the_order_of_its_vocabulary(tmp_path: Path) -> None:
    """The dimensions are the words in their order, in every process; a model without parameters embeds texts."""
    model = SentenceTransformer(modules=[BoW(["b", "a", "c"], {"a": 2.0}, 0.5)], device="cpu")
    model.save(tmp_path)

    expected = [[0.5, 4.0, 0.0]]
    assert model.encode(["a b a x"]).tolist() == expected
    assert SentenceTransformer(str(tmp_path), device="cpu").encode(["a b a x"]).tolist() == expected


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("x in New York", ["x", "in_New"]),
        ("big New York City x", ["big", "New_York_City", "x"]),
        ("in New", ["in_New"]),
    ],
)
def test_phrases_are_joined_whole(text: str, tokens: list[str]) -> None:
    """Longer phrases go first, and the end of a text is no longer phrase than it has words."""
    vocabulary = ["x", "in", "in_New", "New_York", "New_York_City", "big"]
    tokenizer = PhraseTokenizer(vocabulary, stop_words=[])

    assert [vocabulary[idx] for idx in tokenizer.tokenize(text)] == tokens


def test_words_of_a_text_file(tmp_path: Path) -> None:
    """The format of GloVe: a word and its numbers a line; words that are not known are passed over."""
    (tmp_path / "words.txt").write_text("dog 1 0\ncat 0 1\n")
    words = WordEmbeddings.from_text_file(str(tmp_path / "words.txt"))

    model = SentenceTransformer(modules=[words, Pooling(2)], device="cpu")

    assert model.encode(["dog cat unknown"]).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (9, 3), (0, 3), (-1, 3), (None, 3)])
def test_so_many_words_of_a_text_file(tmp_path: Path, limit: int | None, count: int) -> None:
    """A limit counts the words beside the one for padding; 0, less, and None stand for all."""
    (tmp_path / "words.txt").write_text("dog 1 0\ncat 0 1\nsun 1 1\n")

    words = WordEmbeddings.from_text_file(str(tmp_path / "words.txt"), max_vocab_size=limit)

    assert list(words.tokenizer.get_vocab())[1:] == ["dog", "cat", "sun"][:count]
    assert len(words.emb_layer.weight) == 1 + count


def test_layers_without_hidden_states(tiny_checkpoints: Folders) -> None:
    """A WeightedLayerPooling needs all layers, and says so where the Transformer does not give them."""
    from sentence_embedder.models import WeightedLayerPooling

    modules = [Transformer(str(tiny_checkpoints["bert"])), WeightedLayerPooling(32, 2, 1), Pooling(32)]
    model = SentenceTransformer(modules=modules, device="cpu")

    with pytest.raises((ValueError, KeyError), match="all_layer_embeddings"):
        model.encode(["the cat"])
