"""A pool gives what ``encode`` gives in one process."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sentence_embedder import EncodePool, PoolError, SentenceTransformer
from sentence_embedder.devices import available_cores
from sentence_embedder.pool.encode_pool import chunks_of
from sentence_embedder.pool.shared_file import SharedFile
from tests.crowd import in_threads
from tests.pool.misbehaving import Misbehaving, misbehaving_model
from tests.tiny_chains import CHAINS, Folders

pytestmark = pytest.mark.xdist_group("encode pool")  # which share processes

COUNT = 10_000
WORDS = ("the", "cat", "sat", "on", "mat", "hello", "world", "two", "vectors", "quick", "dog", "in", "paris")

Shared = tuple[SentenceTransformer, EncodePool]


@pytest.fixture(scope="module")
def shared(tiny_folders: dict[str, Path]) -> Iterator[Shared]:
    """A tiny BERT, and two processes that have it."""
    model = SentenceTransformer(
        str(tiny_folders["bert"]), device="cpu", prompts={"query": "find the "}, truncate_dim=None
    )
    with EncodePool(model, ["cpu", "cpu"]) as pool:
        yield model, pool


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Ten thousand texts of no to twenty words, some of them equal."""
    random = np.random.default_rng(5)
    return [" ".join(random.choice(WORDS, size=random.integers(0, 21))) for _ in range(COUNT)]


FLOATS: dict[str, dict[str, Any]] = {
    "array": {},
    "tensor": {"convert_to_tensor": True},
    "list": {"convert_to_numpy": False},
    "normalised and cut": {"normalize_embeddings": True, "truncate_dim": 7},
    "cut from the end": {"truncate_dim": -5},
    "prompt": {"prompt_name": "query", "batch_size": 5},
    "tokens": {"output_value": "token_embeddings"},
}


@pytest.mark.parametrize("kind", FLOATS)
def test_floats_are_those_of_one_process(shared: Shared, texts: list[str], kind: str) -> None:
    """Ten thousand texts have the same embeddings as in one process, whatever they are returned in."""
    model, pool = shared

    found = model.encode(texts, pool=pool, **FLOATS[kind])

    expected = model.encode(texts, **FLOATS[kind])
    assert type(found) is type(expected)
    assert len(found) == len(expected) == COUNT
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        assert one.shape == other.shape
        assert one.dtype == other.dtype
    assert_close(_joined(found), _joined(expected))


def assert_close(found: Any, expected: Any) -> None:
    """Values differ by a millionth at most, of the largest of them if that is above 1."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-6 * max(1.0, float(abs(expected).max())), rtol=0)


def _joined(rows: Any) -> Any:
    """All values of a result in one array."""
    return np.concatenate([np.atleast_2d(row) for row in rows])


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings"])
def test_precisions_are_made_over_everything(
    shared: Shared, texts: list[str], precision: Any, output_value: Any
) -> None:
    """Quantised results differ from those of one process by a step at most, in one value of ten thousand."""
    model, pool = shared
    arguments = {"precision": precision, "output_value": output_value}

    found = model.encode(texts, pool=pool, **arguments)

    expected = model.encode(texts, **arguments)
    one, other = _joined(found), _joined(expected)
    assert one.dtype == other.dtype
    if "binary" in precision:
        distances = np.unpackbits(one.view(np.uint8)) != np.unpackbits(other.view(np.uint8))
    else:
        distances = abs(one.astype(int) - other.astype(int))
    assert distances.max() <= 1
    assert (distances != 0).mean() <= 1e-4


def test_all_features_are_those_of_one_process(shared: Shared, texts: list[str]) -> None:
    """So do the dicts of all features, whose values belong to each text alone."""
    model, pool = shared
    some = texts[:300]

    found = model.encode(some, pool=pool, output_value=None)

    expected = model.encode(some, output_value=None)
    assert [set(features) for features in found] == [set(features) for features in expected]
    for features, others in zip(found, expected, strict=True):
        real, other = features["attention_mask"].bool(), others["attention_mask"].bool()  # padding is a batch's own
        assert_close(features["sentence_embedding"], others["sentence_embedding"])
        assert_close(features["token_embeddings"][real], others["token_embeddings"][other])
        assert features["input_ids"][real].tolist() == others["input_ids"][other].tolist()


@pytest.mark.parametrize("chunk_size", [1, 7, 100])
def test_chunks_of_any_size_give_the_same(shared: Shared, texts: list[str], chunk_size: int) -> None:
    """However the texts are shared out, row i belongs to text i."""
    model, pool = shared
    some = texts[:100]

    found = model.encode(some, pool=pool, chunk_size=chunk_size)

    assert_close(found, model.encode(some))


def test_nothing_and_a_lone_text(shared: Shared) -> None:
    """No texts give an array of no rows; a lone one gives one embedding."""
    model, pool = shared

    assert model.encode([], pool=pool).shape == (0, 32)
    assert model.encode_multi_process([], pool).shape == (0, 32)
    assert model.encode("hello", pool=pool).shape == (32,)


def test_the_caller_gives_the_array(shared: Shared, texts: list[str]) -> None:
    """``out`` takes the embeddings that the processes make."""
    model, pool = shared
    out = np.zeros((50, 32), dtype=np.float32)

    assert model.encode(texts[:50], pool=pool, out=out) is out

    assert_close(out, model.encode(texts[:50]))


def test_the_three_older_methods(tiny_folders: dict[str, Path], texts: list[str]) -> None:
    """A pool is started, used and stopped as in sentence-transformers, and its processes can be looked at."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    pool = model.start_multi_process_pool(["cpu"])
    try:
        found = model.encode_multi_process(texts[:100], pool, None, "find the ", 16, 30, True)
        assert len(pool["processes"]) == 1
    finally:
        SentenceTransformer.stop_multi_process_pool(pool)

    expected = model.encode(texts[:100], prompt="find the ", normalize_embeddings=True)
    assert_close(found, expected)
    assert pool["processes"] == []


def test_several_devices_are_a_pool_for_one_call() -> None:
    """``encode(device=[…])`` starts processes, and ends them."""
    model = misbehaving_model()
    before = set(multiprocessing.active_children())

    assert model.encode(["a", "bb"], device=["cpu", "cpu"]).tolist() == [[1, 97], [2, 98]]

    assert set(multiprocessing.active_children()) <= before


def test_two_threads_use_one_pool(shared: Shared, texts: list[str]) -> None:
    """Threads that encode with one pool at the same time each get the results of their own texts."""
    model, pool = shared
    parts = [texts[start : start + 500] for start in range(0, 4000, 500)]
    found: dict[int, Any] = {}

    def encode(number: int) -> None:
        found[number] = model.encode(parts[number], pool=pool, chunk_size=50)

    in_threads(len(parts), encode)

    for number, part in enumerate(parts):
        assert_close(found[number], model.encode(part))


def test_the_model_stays_where_it_is(tiny_folders: dict[str, Path]) -> None:
    """Starting a pool leaves the caller's model alone: its weights lie where they lay, and share no memory."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    before = [(weights.data_ptr(), weights.untyped_storage().is_shared()) for weights in model.parameters()]

    with EncodePool(model, ["cpu"]):
        after = [(weights.data_ptr(), weights.untyped_storage().is_shared()) for weights in model.parameters()]

    assert before == after


def test_the_cores_are_shared_out() -> None:
    """Each worker on the processor computes with its share of the cores."""
    model = misbehaving_model()
    with EncodePool(model, ["cpu"] * 2) as pool:
        found = model.encode(["threads", "threads"], pool=pool, chunk_size=1)

    half = available_cores() / 2
    assert set(found[:, 0].tolist()) <= {max(1, math.floor(half)), max(1, math.ceil(half))}


def test_truncation_is_that_of_the_moment(shared: Shared) -> None:
    """What the caller's model says when ``encode`` is called holds, not what it said when the pool was started."""
    model, pool = shared

    with model.truncate_sentence_embeddings(5):
        assert model.encode(["hello"], pool=pool).shape == (1, 5)
    assert model.encode(["hello"], pool=pool).shape == (1, 32)


def test_progress_is_counted_in_texts(shared: Shared, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar counts the caller's texts, chunk by chunk."""
    model, pool = shared

    model.encode(["hello"] * 30, pool=pool, chunk_size=10, show_progress_bar=True)

    assert "30/30" in capsys.readouterr().err


def test_a_pool_of_another_model_is_refused(shared: Shared) -> None:
    """A pool computes with the model that started it: another one's ``encode`` does not take it."""
    with pytest.raises(ValueError, match="another model"):
        misbehaving_model().encode(["hello"], pool=shared[1])


@pytest.mark.parametrize("chunk_size", [0, -1, 2.5])
def test_sizes_of_chunks_are_checked(shared: Shared, chunk_size: Any) -> None:
    """A size that is no positive whole number is refused."""
    for pool in (shared[1], None):
        with pytest.raises(ValueError, match="chunk_size"):
            shared[0].encode(["hello"], pool=pool, chunk_size=chunk_size)


def test_a_pool_needs_a_device() -> None:
    """No devices are no pool; what is no pool is named."""
    with pytest.raises(ValueError, match="at least one device"):
        EncodePool(misbehaving_model(), [])
    with pytest.raises(TypeError, match="found dict"):
        misbehaving_model().encode(["hello"], pool={})


@pytest.mark.parametrize(("count", "workers"), [(0, 1), (1, 4), (1000, 2), (1_000_000, 3)])
def test_chunks_cover_everything_once(count: int, workers: int) -> None:
    """Chunks are neighbours, cover every text once, and are small enough to be shared out."""
    chunks = chunks_of(count, workers, None)

    assert [place for chunk in chunks for place in chunk] == list(range(count))
    assert max(map(len, chunks), default=0) <= 5000
    assert len(chunks) >= min(count, 10 * workers)


def test_without_files_in_memory_everything_goes_through_pipes(
    monkeypatch: pytest.MonkeyPatch, tiny_folders: dict[str, Path], texts: list[str]
) -> None:
    """On a system without files that can be handed over, model and results are sent."""
    monkeypatch.setattr(SharedFile, "create", staticmethod(lambda _: None))
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")

    with EncodePool(model, ["cpu"]) as pool:
        found = model.encode(texts[:200], pool=pool)

    assert_close(found, model.encode(texts[:200]))


class Shouting(SentenceTransformer):
    """A model whose ``encode`` does something before and after."""

    def encode(self, sentences: Any, *args: Any, **kwargs: Any) -> Any:
        """Embeds the text twice, and returns lists."""
        return super().encode([text * 2 for text in sentences], *args, **kwargs).tolist()


def test_what_a_subclass_does_is_done_once() -> None:
    """A subclass that overrides ``encode`` has its say in the caller's process, and not again in each worker."""
    model = Shouting(modules=[Misbehaving()], device="cpu")

    with EncodePool(model, ["cpu"]) as pool:
        assert model.encode(["a", "bb"], pool=pool) == [[2, 97], [4, 98]] == model.encode(["a", "bb"])


class OfOldTimes(SentenceTransformer):
    """A class whose ``encode`` takes what that of 2.7 does, and has a prompt of its own."""

    def encode(  # type: ignore[override]
        self,
        sentences: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        convert_to_numpy: bool = True,
    ) -> Any:
        """``encode``, in its own way."""
        prompt = "the " if prompt is None else prompt
        return super().encode(sentences, prompt_name, prompt, batch_size, convert_to_numpy=convert_to_numpy) + 1


def test_a_class_that_knows_nothing_of_pools(tiny_folders: dict[str, Path]) -> None:
    """Workers call the ``encode`` of a class that takes no pool, with what it takes; all else is an error."""
    model = OfOldTimes(str(tiny_folders["bert"]), device="cpu")
    texts = list(WORDS)
    with EncodePool(model, ["cpu"]) as pool:
        for given in ({}, {"prompt": "hello "}, {"batch_size": 2}):
            found = model.encode_multi_process(texts, pool, chunk_size=4, **given)
            assert_close(found, model.encode(texts, **given))
        tensor = model.encode_multi_process(texts, pool, convert_to_tensor=True)
        assert_close(tensor.numpy(), model.encode(texts))
        with pytest.raises(PoolError, match="normalize_embeddings"):
            model.encode_multi_process(texts, pool, normalize_embeddings=True)
    with pytest.raises(TypeError, match="pool: expected what start_multi_process_pool returns, found dict"):
        model.encode_multi_process(texts, {})  # type: ignore[arg-type]


def test_routes_and_tasks(tiny_checkpoints: Folders) -> None:
    """Texts that name a route, and a task for all of them, go the same ways as in one process."""
    model = SentenceTransformer(modules=CHAINS["router"].modules(tiny_checkpoints), device="cpu")
    items = [{"query": "hello world"}, {"document": "the cat"}, {"query": "a dog"}] * 5

    with EncodePool(model, ["cpu"]) as pool:
        assert_close(model.encode(items, pool=pool), model.encode(items))
        assert_close(model.encode_query(["hello"], pool=pool), model.encode_query(["hello"]))
        assert_close(model.encode(["hello"], pool=pool, task="document"), model.encode(["hello"], task="document"))


def test_half_precision_and_training_mode(tiny_folders: dict[str, Path]) -> None:
    """A model in bfloat16 gives tensors in it, and arrays in float32; one in training mode is left in it, and
    dropout does nothing in the workers.
    """
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu").bfloat16().train()

    with EncodePool(model, ["cpu"]) as pool:
        tensor = model.encode(["hello", "world"], pool=pool, convert_to_tensor=True)
        array = model.encode(["hello", "world"], pool=pool)

    assert model.training
    assert tensor.dtype == torch.bfloat16
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, model.encode(["hello", "world"]), atol=0.05)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="there are no files in memory")
def test_weights_and_results_are_shared(shared: Shared, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On Linux workers map the same file of weights, and results come back through a file."""
    model, pool = shared
    sizes: list[int] = []
    read = SharedFile.read

    def counted(file: SharedFile, shape: tuple[int, ...], dtype: Any) -> Any:
        array = read(file, shape, dtype)
        sizes.append(len(array))
        return array

    monkeypatch.setattr(SharedFile, "read", counted)
    model.encode(texts[:100], pool=pool)

    assert sum(sizes) == 100
    maps = [Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8") for process in pool.processes]
    inodes = [
        {line.split()[4] for line in each.splitlines() if "memfd:sentence-embedder-model" in line} for each in maps
    ]
    assert len(inodes[0]) == 1
    assert inodes[0] == inodes[1]


def test_results_that_do_not_fit_go_through_the_pipe(
    tiny_folders: dict[str, Path], texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file for results has no room, or there is none, they take the pipe."""
    model = SentenceTransformer(str(tiny_folders["bert"]), device="cpu")
    made = SharedFile.create
    monkeypatch.setattr(SharedFile, "create", staticmethod(lambda name: made(name) if "model" in name else None))

    with EncodePool(model, ["cpu"]) as pool:
        assert_close(model.encode(texts[:100], pool=pool), model.encode(texts[:100]))


def test_a_stream_takes_one_device(shared: Shared) -> None:
    """``encode_iter`` with several devices would start a pool for each chunk: it is refused."""
    with pytest.raises(ValueError, match="expected one for a stream"):
        shared[0].encode_iter(["a"], device=["cpu", "cpu"])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        list(shared[1])  # type: ignore[call-overload]
