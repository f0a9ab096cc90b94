"""Evaluators of retrieval: whether relevant documents are found."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sentence_embedder.evaluation.result_files import write_records
from sentence_embedder.evaluation.sentence_evaluator import Measured, MeasuringEvaluator
from sentence_embedder.similarity import Embeddings, SimilarityFunction, as_tensor

ScoreFunction = Callable[[Tensor, Tensor], Tensor]
"""Embeddings of queries and of documents → similarities of all pairs, shape (queries, documents)."""

Ranking = list[tuple[float, Any]]
"""The documents found for a query, each with its score, the best first."""

Chunks = Iterator[tuple[list[Any], Tensor]]
"""Ids of documents, and their embeddings (documents, dim), some at a time."""

_FILES = "Information-Retrieval_evaluation"
_QUERIES_AT_ONCE = 512


class InformationRetrievalEvaluator(MeasuringEvaluator):
    """How well the documents that are most similar to queries are those that are relevant (Manning et al. 2008,
    Introduction to Information Retrieval, chapter 8).

    Metrics, for each similarity and each k: ``cosine_accuracy@k``, the share of queries with a relevant document
    among the first k; ``precision@k`` and ``recall@k``; ``mrr@k``, the mean of 1 / rank of the first relevant one;
    ``ndcg@k``; ``map@k``. What counts is the highest k of ``ndcg@k``, of the main similarity, or the highest.

    Args:
        queries: Id → text. Those without relevant documents are left out.
        corpus: Id → text of the documents.
        relevant_docs: Id of a query → ids of its relevant documents.
        corpus_chunk_size: How many documents are embedded, and held, at a time.
        mrr_at_k: The numbers k of ``mrr@k``.
        ndcg_at_k: Those of ``ndcg@k``.
        accuracy_at_k: Those of ``accuracy@k``.
        precision_recall_at_k: Those of ``precision@k`` and ``recall@k``.
        map_at_k: Those of ``map@k``.
        show_progress_bar: Whether ``encode`` shows one.
        batch_size: Of ``encode``.
        name: What is put before the names of the metrics, and into that of the CSV file.
        write_csv: Whether figures are appended to a CSV file.
        truncate_dim: Width to which embeddings are cut; by default the model's.
        score_functions: Name → similarity of all pairs; by default the model's own.
        main_score_function: The name of the one that counts.
        query_prompt: What stands before each query.
        query_prompt_name: The name of that prompt.
        corpus_prompt: What stands before each document.
        corpus_prompt_name: The name of that prompt.
        write_predictions: Whether what was found is written to a file for each similarity, in place of what it
            held: a line a query, ``{"query_id": …, "query": text, "results": [{"corpus_id": …, "score": …}, …]}``,
            as many documents as the highest k, the best first.

    Raises:
        ValueError: No query has a relevant document, or a number is missing or not positive; when a model is
            judged, the main similarity is none of those that are measured.
    """

    def __init__(
        self,
        queries: Mapping[str, str],
        corpus: Mapping[str, str],
        relevant_docs: Mapping[str, Collection[str]],
        corpus_chunk_size: int = 50_000,
        mrr_at_k: Sequence[int] = (10,),
        ndcg_at_k: Sequence[int] = (10,),
        accuracy_at_k: Sequence[int] = (1, 3, 5, 10),
        precision_recall_at_k: Sequence[int] = (1, 3, 5, 10),
        map_at_k: Sequence[int] = (100,),
        show_progress_bar: bool | None = False,
        batch_size: int = 32,
        name: str = "",
        write_csv: bool = True,
        truncate_dim: int | None = None,
        score_functions: Mapping[str, ScoreFunction] | None = None,
        main_score_function: str | SimilarityFunction | None = None,
        *,
        query_prompt: str | None = None,
        query_prompt_name: str | None = None,
        corpus_prompt: str | None = None,
        corpus_prompt_name: str | None = None,
        write_predictions: bool = False,
    ) -> None:
        super().__init__(
            name,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            write_csv=write_csv,
            truncate_dim=truncate_dim,
        )
        # An array of ids has a length, but is neither true nor false.
        judged = {key for key, found in relevant_docs.items() if len(found) > 0}
        self.queries = {key: text for key, text in queries.items() if key in judged}
        if not self.queries:
            raise ValueError("relevant_docs: expected relevant documents for a query at least, found none")
        self.corpus = corpus
        self.relevant_docs = relevant_docs
        self.corpus_chunk_size = corpus_chunk_size
        self.mrr_at_k = mrr_at_k
        self.ndcg_at_k = ndcg_at_k
        self.accuracy_at_k = accuracy_at_k
        self.precision_recall_at_k = precision_recall_at_k
        self.map_at_k = map_at_k
        self.score_functions = score_functions
        main = main_score_function
        self.main_score_function = main.value if isinstance(main, SimilarityFunction) else main
        if corpus_chunk_size < 1:
            raise ValueError(f"corpus_chunk_size: expected 1 or more, found {corpus_chunk_size}")
        if len(ndcg_at_k) == 0:
            raise ValueError("ndcg_at_k: expected a number at least, of which the highest counts, found none")
        self.query_prompts = {"prompt": query_prompt, "prompt_name": query_prompt_name}
        self.corpus_prompts = {"prompt": corpus_prompt, "prompt_name": corpus_prompt_name}
        self.write_predictions = write_predictions

    @property
    def _default_csv_file(self) -> str:
        return self.file_name(_FILES)

    def predictions_file(self, similarity: str) -> str:
        """The name of the file of what was found by a similarity."""
        return f"{'_'.join(filter(None, [_FILES, self.name, 'predictions', similarity]))}.jsonl"

    def __call__(
        self,
        model: Any,
        output_path: str | None = None,
        epoch: int = -1,
        steps: int = -1,
        corpus_model: Any = None,
        corpus_embeddings: Embeddings | None = None,
    ) -> dict[str, float]:
        """Judge a model; see ``SentenceEvaluator``.

        Args:
            model: The model that embeds the queries.
            output_path: See there, like the two that follow.
            epoch: See above.
            steps: See above.
            corpus_model: The model that embeds the documents, if it is another one.
            corpus_embeddings: The embeddings of the documents (documents, dim), if they are there already.
        """
        found = self._found(model, self._chunks(corpus_model or model, corpus_embeddings))
        if self.write_predictions and output_path is not None:
            for name, hits in found.items():
                write_records(Path(output_path) / self.predictions_file(name), self._predictions(hits))
        return self.reported(self._judged(found), output_path, epoch, steps)

    def measured(self, model: Any) -> Measured:
        """The metrics of a model."""
        return self._judged(self._found(model, self._chunks(model, None)))

    def _judged(self, found: Mapping[str, Sequence[Ranking]]) -> Measured:
        metrics: dict[str, float] = {}
        columns: dict[str, float] = {}
        for name, hits in found.items():
            metrics.update({f"{name}_{metric}": figure for metric, figure in self._metrics(hits).items()})
        for name in sorted(found):  # the order in which others write them
            columns.update({f"{name}-{column}": metrics[f"{name}_{metric}"] for column, metric in self._columns()})
        counted = f"ndcg@{max(self.ndcg_at_k)}"
        main = self.main_score_function or max(sorted(found), key=lambda name: metrics[f"{name}_{counted}"])
        return Measured(metrics=metrics, primary=f"{main}_{counted}", columns=columns)

    def _predictions(self, found: Sequence[Ranking]) -> Iterator[dict[str, Any]]:
        """What was found for each query."""
        for (key, text), hits in zip(self.queries.items(), found, strict=True):
            results = [{"corpus_id": document, "score": score} for score, document in hits]
            yield {"query_id": key, "query": text, "results": results}

    def _found(self, model: Any, documents: Chunks) -> dict[str, list[Ranking]]:
        """Name of a similarity → for each query the documents that are most similar, the corpus taken by chunks."""
        is_stock = not self.score_functions and _has_stock_similarity(model)
        own = _rounded(model.similarity) if is_stock else model.similarity
        functions = self.score_functions or {model.similarity_fn_name: own}
        if self.main_score_function not in (None, *functions):
            raise ValueError(
                f"main_score_function: expected one of {list(functions)}, found {self.main_score_function!r}"
            )
        (queries,) = self.embedded_by(model.encode_query, list(self.queries.values()), **self.query_prompts)
        numbers = (self.mrr_at_k, self.ndcg_at_k, self.accuracy_at_k, self.precision_recall_at_k, self.map_at_k)
        deepest = max(chain.from_iterable(numbers))
        found: dict[str, list[Ranking]] = {name: [[] for _ in self.queries] for name in functions}
        queries = queries.double() if is_stock else queries
        for keys, some in documents:
            embeddings = some.double() if is_stock else some
            for name, function in functions.items():
                for place, hits in enumerate(_most_similar(queries, embeddings, keys, function, deepest)):
                    # Of equal scores the lower id comes first, however the corpus is cut into chunks.
                    best = heapq.nsmallest(deepest, (*found[name][place], *hits), key=_by_score_and_id)
                    found[name][place] = best
        return found

    def _chunks(self, model: Any, embeddings: Embeddings | None) -> Chunks:
        """The documents, some at a time: their ids, and their embeddings, which are there or made by a model."""
        keys = list(self.corpus)
        if embeddings is not None and len(embeddings) != len(keys):
            raise ValueError(f"corpus_embeddings: expected {len(keys)} rows, found {len(embeddings)}")
        for start in range(0, len(keys), self.corpus_chunk_size):
            chunk = keys[start : start + self.corpus_chunk_size]
            if embeddings is not None:
                yield chunk, as_tensor(embeddings[start : start + len(chunk)]).cpu()
            else:
                texts = [self.corpus[key] for key in chunk]
                (made,) = self.embedded_by(model.encode_document, texts, **self.corpus_prompts)
                yield chunk, made

    def _metrics(self, found: Sequence[Ranking]) -> dict[str, float]:
        """The metrics of all queries: means of those of each."""
        relevant = [set(self.relevant_docs[key]) for key in self.queries]
        ranked = [
            ([key in wanted for _, key in hits], len(wanted)) for hits, wanted in zip(found, relevant, strict=True)
        ]
        kinds: list[tuple[str, Sequence[int], Callable[[list[bool], int, int], float]]] = [
            ("accuracy", self.accuracy_at_k, lambda hits, _, k: float(any(hits[:k]))),
            ("precision", self.precision_recall_at_k, lambda hits, _, k: sum(hits[:k]) / k),
            ("recall", self.precision_recall_at_k, lambda hits, count, k: sum(hits[:k]) / count),
            ("ndcg", self.ndcg_at_k, normalized_gain),
            ("mrr", self.mrr_at_k, lambda hits, _, k: reciprocal_rank(hits, k)),
            ("map", self.map_at_k, average_precision),
        ]
        return {
            f"{kind}@{k}": sum(metric(*of_query, k) for of_query in ranked) / len(ranked)
            for kind, at_k, metric in kinds
            for k in at_k
        }

    def _columns(self) -> Iterator[tuple[str, str]]:
        """The columns of the CSV file, each with its metric."""
        yield from ((f"Accuracy@{k}", f"accuracy@{k}") for k in self.accuracy_at_k)
        for k in self.precision_recall_at_k:
            yield from ((f"Precision@{k}", f"precision@{k}"), (f"Recall@{k}", f"recall@{k}"))
        for kind, at_k in (("MRR", self.mrr_at_k), ("NDCG", self.ndcg_at_k), ("MAP", self.map_at_k)):
            yield from ((f"{kind}@{k}", f"{kind.lower()}@{k}") for k in at_k)


def reciprocal_rank(hits: Sequence[bool], k: int) -> float:
    """1 / rank of the first that is relevant among the first k; 0 if there is none.

    Args:
        hits: Whether each document found is relevant, the best first.
        k: How many are looked at.

    Example:
        >>> reciprocal_rank([False, True, True], 10)
        0.5
    """
    return next((1 / rank for rank, hit in enumerate(hits[:k], 1) if hit), 0.0)


def normalized_gain(hits: Sequence[bool], count: int, k: int) -> float:
    """Σ 1 / log₂(rank + 1) over those that are relevant among the first k, as a share of the best there can be
    (Järvelin and Kekäläinen 2002); of all documents ``count`` are relevant.
    """
    gain = sum(1 / math.log2(rank + 1) for rank, hit in enumerate(hits[:k], 1) if hit)
    return gain / sum(1 / math.log2(rank + 1) for rank in range(1, min(count, k) + 1))


def average_precision(hits: Sequence[bool], count: int, k: int) -> float:
    """The mean of the precision at each that is relevant among the first k; of all documents ``count`` are."""
    total = found = 0.0
    for rank, hit in enumerate(hits[:k], 1):
        if hit:
            found += 1
            total += found / rank
    return total / min(count, k)


def _has_stock_similarity(model: Any) -> bool:
    """Whether a model's similarity is as this package wrote it, and so takes numbers of double precision."""
    home = getattr(getattr(type(model), "similarity", None), "__module__", None)
    return "similarity" not in vars(model) and str(home).startswith("sentence_embedder.")


def _rounded(similarity: ScoreFunction) -> ScoreFunction:
    """A similarity in double precision, rounded to float32, so that equal documents are equally similar: the last
    digit of a product depends on the place of a document in its chunk, and on how large that is.
    """
    return lambda queries, documents: similarity(queries, documents).float()


def _most_similar(
    queries: Tensor, documents: Tensor, keys: Sequence[Any], function: ScoreFunction, count: int
) -> Iterator[Ranking]:
    """For each query the scores and ids of the documents that are most similar, in any order; of those that are as
    similar as the last of them, the ones with the lowest ids.
    """
    ranks: Tensor | None = None
    for some in torch.split(queries, _QUERIES_AT_ONCE):
        scores = function(some, documents)
        lowest = torch.topk(scores, min(count, len(documents)), dim=1).values[:, -1]
        for row, limit in zip(scores, lowest, strict=True):
            places = (row >= limit).nonzero().squeeze(-1)
            if len(places) > count:
                ranks = _ranks(keys).to(places.device) if ranks is None else ranks
                places = _with_lowest_ranks(row, limit, ranks, count)
            ids = (keys[place] for place in places.tolist())
            yield list(zip(row[places].tolist(), ids, strict=True))


def _ranks(keys: Sequence[Any]) -> Tensor:
    """The place of each id among all in their order, shape (documents,)."""
    order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
    return torch.empty_like(order).scatter(0, order, torch.arange(len(keys)))


def _with_lowest_ranks(row: Tensor, limit: Tensor, ranks: Tensor, count: int) -> Tensor:
    """The places of so many scores: all above a limit, and of those equal to it the ones with the lowest ranks."""
    above = (row > limit).nonzero().squeeze(-1)
    equal = (row == limit).nonzero().squeeze(-1)
    lowest = torch.topk(ranks[equal], count - len(above), largest=False).indices
    return torch.cat([above, equal[lowest]])


def _by_score_and_id(hit: tuple[float, Any]) -> tuple[float, Any]:
    return -hit[0], hit[1]
