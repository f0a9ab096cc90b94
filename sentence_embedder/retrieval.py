"""Finding what is near: search, paraphrases and communities among embeddings, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sentence_embedder.progress import progress_bar
from sentence_embedder.similarity import (
    Embeddings,
    Similarity,
    as_matrix,
    cos_sim,
    dot_score,
    normalize_embeddings,
    pytorch_cos_sim,
)

_MAX_SCORES = 2**27
"""How many similarities community detection holds at once at the most: half a GiB in float32."""

_Rows: TypeAlias = "Tensor | NDArray[Any]"


class Encodes(Protocol):
    """A model as paraphrase mining uses it."""

    @property
    def encode(self) -> Callable[..., Any]:
        """Texts, and those options that are given → embeddings."""


def semantic_search(
    query_embeddings: Embeddings,
    corpus_embeddings: Embeddings,
    query_chunk_size: int = 100,
    corpus_chunk_size: int = 500000,
    top_k: int = 10,
    score_function: Similarity = cos_sim,
) -> list[list[dict[str, int | float]]]:
    """The nearest entries of a corpus for each query, by comparing with all of them.

    Args:
        query_embeddings: Shape (queries, dim), or (dim,) for one; moved to the corpus' device.
        corpus_embeddings: Shape (texts, dim).
        query_chunk_size: How many queries are compared at once.
        corpus_chunk_size: With how many texts they are compared at once; memory is the product of the two.
        top_k: How many hits a query gets, fewer where the corpus is smaller.
        score_function: (n, dim), (m, dim) → (n, m); more is nearer.

    Returns:
        A list per query of ``{"corpus_id": int, "score": float}``, best first.

    Raises:
        ValueError: The size of a chunk is below 1.
    """
    _check_chunks(query_chunk_size, corpus_chunk_size)
    corpus = _as_rows(corpus_embeddings)
    queries = as_matrix(query_embeddings).to(_device_of(corpus))
    scores, ids = _nearest(queries, corpus, top_k, query_chunk_size, corpus_chunk_size, score_function)
    return [
        [{"corpus_id": i, "score": score} for i, score in zip(query_ids, query_scores, strict=True)]
        for query_ids, query_scores in zip(ids.tolist(), scores.tolist(), strict=True)
    ]


def information_retrieval(*args: Any, **kwargs: Any) -> list[list[dict[str, int | float]]]:
    """The older name of ``semantic_search``."""
    return semantic_search(*args, **kwargs)


def _check_chunks(query_chunk_size: int, corpus_chunk_size: int) -> None:
    sizes = {"query_chunk_size": query_chunk_size, "corpus_chunk_size": corpus_chunk_size}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected 1 or more, found {size}")


def _as_rows(embeddings: Embeddings) -> _Rows:
    """Embeddings (texts, dim) as they lie there. Chunks are made ready for use when it is their turn: a file that
    is mapped to memory is never read as a whole, nor is another format converted as a whole.
    """
    is_matrix = isinstance(embeddings, (Tensor, np.ndarray)) and embeddings.ndim == 2
    return embeddings if is_matrix else as_matrix(embeddings)  # type: ignore[return-value]


def _device_of(rows: _Rows) -> torch.device:
    return rows.device if isinstance(rows, Tensor) else torch.device("cpu")


def _nearest(
    queries: Tensor, corpus: _Rows, top_k: int, query_chunk_size: int, corpus_chunk_size: int, score: Similarity
) -> tuple[Tensor, Tensor]:
    """Scores and places of the best entries for each query, best first: (queries, k) twice, k ≤ top_k."""
    if not len(queries):
        return _nothing(queries)
    is_cosine = score in (cos_sim, pytorch_cos_sim)
    if is_cosine:
        finer = torch.promote_types(queries.dtype, as_matrix(corpus[:0]).dtype)
        queries, score = normalize_embeddings(queries.to(finer)), dot_score
    chunks = torch.split(queries, query_chunk_size)
    found = [_nothing(chunk) for chunk in chunks]
    for start in range(0, len(corpus), corpus_chunk_size):
        rows = as_matrix(corpus[start : start + corpus_chunk_size])
        if is_cosine:  # once, and not for each chunk of queries
            rows = normalize_embeddings(rows.to(queries.dtype))
        found = [
            _nearer(so_far, score(chunk, rows).detach(), start, top_k)
            for chunk, so_far in zip(chunks, found, strict=True)
        ]
    best, places = zip(*found, strict=True)
    return torch.cat(best), torch.cat(places)


def _nothing(queries: Tensor) -> tuple[Tensor, Tensor]:
    best = queries.new_empty(len(queries), 0)
    return best, torch.empty_like(best, dtype=torch.int64)


def _nearer(so_far: tuple[Tensor, Tensor], scores: Tensor, start: int, top_k: int) -> tuple[Tensor, Tensor]:
    """The best of what was found so far and of a chunk of the corpus.

    Args:
        so_far: Scores and places, (queries, k) twice.
        scores: Those of the chunk, (queries, rows).
        start: The place of its first row.
        top_k: How many are kept.
    """
    chunk_best, chunk_places = scores.topk(min(top_k, scores.shape[1]), dim=1)
    best, places = torch.cat([so_far[0], chunk_best], 1), torch.cat([so_far[1], chunk_places + start], 1)
    best, order = best.topk(min(top_k, best.shape[1]), dim=1)
    return best, places.gather(1, order)


def paraphrase_mining(
    model: Encodes,
    sentences: list[str],
    show_progress_bar: bool | None = False,
    batch_size: int = 32,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Similarity = cos_sim,
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> list[list[float | int]]:
    """The pairs of sentences that are nearest to each other, among all pairs.

    Args:
        model: The model that encodes the sentences.
        sentences: The sentences.
        show_progress_bar: Whether encoding shows its progress.
        batch_size: As for ``encode``.
        query_chunk_size: As for ``paraphrase_mining_embeddings``, like the four that follow.
        corpus_chunk_size: See there.
        max_pairs: See there.
        top_k: See there.
        score_function: See there.
        truncate_dim: As for ``encode``, like the two that follow.
        prompt_name: See there.
        prompt: See there.

    Returns:
        ``[score, i, j]`` for each pair, i < j the places of its sentences, best first.
    """
    # Only those that are given: a model of somebody's own may not know them.
    newer = {"truncate_dim": truncate_dim, "prompt_name": prompt_name, "prompt": prompt}
    embeddings = model.encode(
        sentences,
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        convert_to_tensor=True,
        **{name: value for name, value in newer.items() if value is not None},
    )
    return paraphrase_mining_embeddings(
        embeddings,
        query_chunk_size=query_chunk_size,
        corpus_chunk_size=corpus_chunk_size,
        max_pairs=max_pairs,
        top_k=top_k,
        score_function=score_function,
    )


def paraphrase_mining_embeddings(
    embeddings: Embeddings,
    query_chunk_size: int = 5000,
    corpus_chunk_size: int = 100000,
    max_pairs: int = 500000,
    top_k: int = 100,
    score_function: Similarity = cos_sim,
) -> list[list[float | int]]:
    """The pairs of embeddings that are nearest to each other, among all pairs.

    Args:
        embeddings: Shape (texts, dim).
        query_chunk_size: How many rows are compared at once.
        corpus_chunk_size: With how many rows they are compared at once; memory is the product of the two,
            and a constant times ``max_pairs`` and ``query_chunk_size × top_k``.
        max_pairs: How many pairs are returned at the most.
        top_k: How many of its nearest a row proposes as pairs.
        score_function: (n, dim), (m, dim) → (n, m), symmetric; more is nearer.

    Returns:
        ``[score, i, j]`` for each pair, i < j, best first.

    Raises:
        ValueError: The size of a chunk is below 1.
    """
    _check_chunks(query_chunk_size, corpus_chunk_size)
    rows = _as_rows(embeddings)
    pairs, pair_scores = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float64)
    for start in range(0, len(rows), query_chunk_size):
        chunk = as_matrix(rows[start : start + query_chunk_size])
        best, places = _nearest(chunk, rows, top_k + 1, query_chunk_size, corpus_chunk_size, score_function)
        found, found_scores = _as_pairs(start, best.cpu().numpy(), places.cpu().numpy(), top_k, len(rows))
        pairs, pair_scores = np.append(pairs, found), np.append(pair_scores, found_scores)
        pairs, first = np.unique(pairs, return_index=True)
        pair_scores = pair_scores[first]
        if len(pairs) > max_pairs:
            kept = np.sort(np.argpartition(-pair_scores, max_pairs)[:max_pairs])
            pairs, pair_scores = pairs[kept], pair_scores[kept]
    order = np.argsort(-pair_scores, kind="stable")
    firsts, seconds = np.divmod(pairs[order], max(1, len(rows)))
    return [
        [score, i, j]
        for score, i, j in zip(pair_scores[order].tolist(), firsts.tolist(), seconds.tolist(), strict=True)
    ]


def _as_pairs(
    start: int, scores: NDArray[Any], places: NDArray[np.int64], top_k: int, count: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The neighbours of rows start, start + 1, … as pairs, each one number: i × count + j, i < j."""
    rows = np.arange(start, start + len(places))[:, None]
    others = places != rows
    others &= np.cumsum(others, axis=1) <= top_k
    pairs = np.minimum(rows, places) * count + np.maximum(rows, places)
    return pairs[others], scores[others].astype(np.float64)


def community_detection(
    embeddings: Embeddings,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool = False,
) -> list[list[int]]:
    """Groups of embeddings that are all near to one of them, its centre; no embedding is in two groups.

    Args:
        embeddings: Shape (texts, dim).
        threshold: Least cosine similarity to the centre.
        min_community_size: Size of the smallest group, centre included.
        batch_size: How many embeddings are compared at once with all others.
        show_progress_bar: Whether progress is shown.

    Returns:
        Lists of places, the largest first; each begins with its centre, the nearest to it follow.
    """
    unit = normalize_embeddings(as_matrix(embeddings))
    count = len(unit)
    if count < max(1, min_community_size):
        return []
    at_once = max(1, min(batch_size, _MAX_SCORES // count))
    sizes = np.empty(count, dtype=np.int64)
    with progress_bar(
        count, unit="sentence", shown=show_progress_bar, description="Finding communities"
    ) as progress:
        for start in range(0, count, at_once):
            near = unit[start : start + at_once] @ unit.T >= threshold
            sizes[start : start + at_once] = near.sum(dim=1).cpu().numpy()
            progress.update(len(near))

    taken = np.zeros(count, dtype=bool)
    communities = []
    for centre, members in _near_centres(unit, sizes, threshold, min_community_size, at_once, taken):
        free = members[~taken[members]]
        if len(free) >= min_community_size:
            taken[free] = True
            communities.append([centre, *free[free != centre].tolist()])
    return sorted(communities, key=len, reverse=True)


def _near_centres(
    unit: Tensor,
    sizes: NDArray[np.int64],
    threshold: float,
    min_size: int,
    at_once: int,
    taken: NDArray[np.bool_],
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each possible centre that is not taken yet, the one with most neighbours first, and its neighbours.

    The neighbours are computed a second time: to keep them from the first would take memory of the square
    of the number of embeddings where many are alike.
    """
    centres = np.argsort(-sizes, kind="stable")
    centres = centres[sizes[centres] >= min_size]
    for start in range(0, len(centres), at_once):
        chunk = centres[start : start + at_once]
        chunk = chunk[~taken[chunk]]
        scores = unit[torch.from_numpy(chunk).to(unit.device)] @ unit.T
        for centre, row in zip(chunk.tolist(), scores, strict=True):
            if not taken[centre]:
                near = (row >= threshold).nonzero().squeeze(1)
                nearest_first = near[row[near].argsort(descending=True, stable=True)]
                yield centre, nearest_first.cpu().numpy()
