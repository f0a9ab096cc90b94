"""Search, paraphrases and communities, each against all pairs."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sentence_embedder.retrieval import (
    community_detection,
    information_retrieval,
    paraphrase_mining,
    paraphrase_mining_embeddings,
    semantic_search,
)
from sentence_embedder.similarity import cos_sim, dot_score, manhattan_sim

Array = np.ndarray[Any, Any]


def _rows(count: int, seed: int, dim: int = 4) -> Array:
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def _cosines(a: Array, b: Array) -> Array:
    units = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b)]
    return np.asarray(units[0] @ units[1].T)


class TestSemanticSearch:
    """Search."""

    @settings(max_examples=40)
    @given(
        sizes=st.tuples(st.integers(1, 7), st.integers(0, 23)),
        chunks=st.tuples(st.integers(1, 8), st.integers(1, 25)),
        top_k=st.integers(1, 12),
        seed=st.integers(0, 99),
    )
    def test_the_nearest_of_all(
        self, sizes: tuple[int, int], chunks: tuple[int, int], top_k: int, seed: int
    ) -> None:
        """The hits are the nearest of all entries, best first, however the work is split."""
        queries, corpus = _rows(sizes[0], seed), _rows(sizes[1], seed + 1)

        hits = semantic_search(queries, corpus, *chunks, top_k)

        for row, cosines in zip(hits, _cosines(queries, corpus), strict=True):
            order = np.argsort(-cosines)[:top_k]
            assert [hit["corpus_id"] for hit in row] == order.tolist()
            np.testing.assert_allclose([hit["score"] for hit in row], cosines[order], atol=1e-6)

    def test_a_mapped_file_is_read_in_chunks(self, tmp_path: Path) -> None:
        """Of a file that may only be read no more than a chunk is in memory at a time."""
        corpus = _rows(20_000, 1, dim=64)
        np.save(tmp_path / "corpus.npy", corpus)
        mapped = np.load(tmp_path / "corpus.npy", mmap_mode="r")
        tracemalloc.start()

        hits = semantic_search(mapped[:3], mapped, corpus_chunk_size=1000, top_k=2)

        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most < corpus.nbytes / 4
        assert hits == semantic_search(corpus[:3], corpus, corpus_chunk_size=1000, top_k=2)

    @pytest.mark.parametrize(("one", "other"), [(np.float64, np.float32), (np.float32, np.float64)])
    def test_two_formats(self, one: Any, other: Any) -> None:
        """Scores are those of the finer one."""
        queries, corpus = _rows(3, 1).astype(one), _rows(9, 2).astype(other)

        hits = semantic_search(queries, corpus, top_k=9)

        expected = cos_sim(queries, corpus)
        assert [[hit["score"] for hit in row] for row in hits] == expected.sort(descending=True).values.tolist()

    @pytest.mark.parametrize("chunks", [(0, 5), (5, -1)])
    def test_chunks_of_nothing(self, chunks: tuple[int, int]) -> None:
        """The size of a chunk is checked."""
        rows = np.eye(2)

        with pytest.raises(ValueError, match="_chunk_size: expected 1 or more"):
            semantic_search(rows, rows, *chunks)
        with pytest.raises(ValueError, match="_chunk_size: expected 1 or more"):
            paraphrase_mining_embeddings(rows, *chunks)

    def test_one_query(self) -> None:
        """A lone query is a vector; ids are ints and scores floats."""
        ((best,),) = semantic_search(np.array([1.0, 0.0]), torch.eye(2), top_k=1)

        assert best == {"corpus_id": 0, "score": 1.0}
        assert (type(best["corpus_id"]), type(best["score"])) == (int, float)

    def test_lists_and_nothing(self) -> None:
        """Lists of vectors will do; no queries have no hits."""
        corpus = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]

        assert semantic_search([], corpus) == []
        assert [hit["corpus_id"] for hit in semantic_search([corpus[1]], corpus)[0]] == [1, 0]
        assert semantic_search([corpus[1]], []) == [[]]

    @pytest.mark.parametrize("function", [dot_score, manhattan_sim])
    def test_another_similarity(self, function: Any) -> None:
        """What is nearest is said by the similarity that is given."""
        queries, corpus = _rows(3, 0), _rows(9, 1)

        hits = information_retrieval(queries, corpus, score_function=function, top_k=2, corpus_chunk_size=4)

        expected = function(queries, corpus).numpy().argsort(1)[:, ::-1][:, :2]
        assert [[hit["corpus_id"] for hit in row] for row in hits] == expected.tolist()


class Letters:
    """A model whose embeddings are the letters of a text."""

    def encode(self, sentences: Any, **options: Any) -> Any:
        """How often each letter stands in each text."""
        assert options["convert_to_tensor"]
        prompt = options.get("prompt") or ""
        return torch.tensor([[float((prompt + text).count(letter)) for letter in "abc"] for text in sentences])


class TestParaphrases:
    """Paraphrase mining."""

    @settings(max_examples=40)
    @given(
        count=st.integers(0, 15),
        chunks=st.tuples(st.integers(1, 16), st.integers(1, 16)),
        top_k=st.integers(1, 16),
        seed=st.integers(0, 99),
    )
    def test_each_row_proposes_its_nearest(
        self, count: int, chunks: tuple[int, int], top_k: int, seed: int
    ) -> None:
        """The pairs are those that one of the two counts among its nearest, once each, best first."""
        rows = _rows(count, seed)
        cosines = _cosines(rows, rows) if count else np.empty((0, 0))
        expected = {
            (min(i, j), max(i, j))
            for i in range(count)
            for j in [other for other in np.argsort(-cosines[i]) if other != i][:top_k]
        }

        pairs = paraphrase_mining_embeddings(rows, *chunks, top_k=top_k)

        assert {(i, j) for _, i, j in pairs} == expected
        assert len(pairs) == len(expected)
        scores = [score for score, _, _ in pairs]
        assert scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, [cosines[int(i), int(j)] for _, i, j in pairs], atol=1e-6)

    @pytest.mark.parametrize("max_pairs", [1, 7, 10_000])
    def test_the_best_pairs(self, max_pairs: int) -> None:
        """Of more pairs than are wanted the best are kept."""
        rows = _rows(20, 3)
        cosines = _cosines(rows, rows)[np.triu_indices(20, 1)]

        pairs = paraphrase_mining_embeddings(rows, query_chunk_size=3, top_k=19, max_pairs=max_pairs)

        expected = np.sort(cosines)[::-1][:max_pairs]
        np.testing.assert_allclose([score for score, _, _ in pairs], expected, atol=1e-6)

    def test_equal_texts(self) -> None:
        """Texts that are equal are pairs like others; no text is its own paraphrase."""
        pairs = paraphrase_mining(Letters(), ["ab", "ab", "c", "ab"], top_k=3)

        assert {(i, j) for score, i, j in pairs if score > 0.99} == {(0, 1), (0, 3), (1, 3)}
        assert all(i < j for _, i, j in pairs)

    def test_the_model_gets_the_prompt(self) -> None:
        """Options of encode are handed on."""
        (plain,), (prompted,) = (
            paraphrase_mining(Letters(), ["a", "b"], prompt=prompt) for prompt in (None, "ccc")
        )

        assert plain[0] == 0
        assert prompted[0] == pytest.approx(0.9)


class TestCommunities:
    """Community detection."""

    def test_groups_with_their_centres(self) -> None:
        """Groups of embeddings that are near to a centre, the largest first, the centre at their head."""
        axes = np.eye(3, dtype=np.float32)
        rows = np.concatenate([np.repeat(axes[:1], 3, 0), np.repeat(axes[1:2], 5, 0), axes[2:]])

        communities = community_detection(rows, threshold=0.9, min_community_size=2)

        assert [sorted(community) for community in communities] == [[3, 4, 5, 6, 7], [0, 1, 2]]

    @settings(max_examples=40)
    @given(
        count=st.integers(0, 30),
        batch_size=st.integers(1, 31),
        threshold=st.floats(-0.5, 0.95),
        size=st.integers(1, 5),
        seed=st.integers(0, 99),
    )
    def test_what_a_community_is(self, count: int, batch_size: int, threshold: float, size: int, seed: int) -> None:
        """All members are near to the first, no embedding is in two groups, and none of the least size is left."""
        rows = _rows(count, seed, dim=3)
        cosines = _cosines(rows, rows) if count else np.empty((0, 0))

        communities = community_detection(rows, threshold, size, batch_size)

        members = [member for community in communities for member in community]
        assert len(members) == len(set(members))
        assert [len(community) for community in communities] == sorted(map(len, communities), reverse=True)
        for centre, *others in communities:
            assert 1 + len(others) >= size
            assert (cosines[centre, others] >= threshold - 1e-5).all()
            assert (np.diff(cosines[centre, others]) <= 1e-5).all()
        free = np.setdiff1d(np.arange(count), members)
        for centre in free:
            assert (cosines[centre, free] >= threshold + 1e-5).sum() < size

    def test_fewer_texts_than_a_group_needs(self) -> None:
        """Fewer embeddings than the smallest group has make no group."""
        assert community_detection(np.ones((9, 2))) == []
        assert len(community_detection(torch.ones(10, 2))) == 1

    def test_progress(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Progress is shown on request."""
        community_detection(np.ones((12, 2)), show_progress_bar=True)

        assert "12/12" in capsys.readouterr().err
