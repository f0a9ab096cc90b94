"""What each client does: a small piece of its real work with the real MiniLM.

Run in the environment of the clients (``make test-clients``), where ``sentence_transformers`` is what the caller
has made it: the real one, or this package. Every program says what came of it as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

TOPICS = {
    "bread": ["dough", "oven", "flour", "yeast", "crust", "loaf", "bakery", "sourdough"],
    "space": ["planet", "rocket", "orbit", "moon", "telescope", "galaxy", "astronaut", "comet"],
    "football": ["goal", "referee", "striker", "league", "stadium", "penalty", "coach", "match"],
    "medicine": ["doctor", "vaccine", "patient", "surgery", "hospital", "therapy", "diagnosis", "nurse"],
}
PATTERNS = ["In {topic} people talk about the {word}.", "A story of {topic} and the {word}.", "{topic}: {word}?"]
TEXTS = [
    pattern.format(topic=topic, word=word)
    for topic, words in TOPICS.items()
    for word in words
    for pattern in PATTERNS
]
LABELS = [label for label, words in enumerate(TOPICS.values()) for _ in words for _ in PATTERNS]
QUERIES = ["How do I bake a cake?", "Which stars can be seen tonight?", "Who has won the cup?"]
HITS = 3
EXACT = {"solver": "newton-cholesky", "tol": 1e-7}
"""The usual solver stops at a digit of its own: the results differ by a thousand times what the vectors do."""


def langchain(model: str) -> Any:
    """LangChain: a vector store over HuggingFaceEmbeddings."""
    from langchain_core.vectorstores import InMemoryVectorStore
    from langchain_huggingface import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(
        model_name=model, model_kwargs={"device": "cpu"}, encode_kwargs={"normalize_embeddings": True}
    )
    store = InMemoryVectorStore.from_texts(TEXTS, embeddings)
    found = [store.similarity_search_with_score(query, k=HITS) for query in QUERIES]
    return {
        "query": embeddings.embed_query(QUERIES[0]),
        "hits": [[(document.page_content, score) for document, score in hits] for hits in found],
    }


def langchain_processes(model: str) -> Any:
    """LangChain with ``multi_process=True``."""
    from langchain_huggingface import HuggingFaceEmbeddings

    return HuggingFaceEmbeddings(
        model_name=model, model_kwargs={"device": "cpu"}, multi_process=True
    ).embed_documents(TEXTS[:20])


def llama_index(model: str) -> Any:
    """LlamaIndex: a vector index over HuggingFaceEmbedding."""
    from llama_index.core import VectorStoreIndex
    from llama_index.core.schema import TextNode
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding

    embedding = HuggingFaceEmbedding(model_name=model, device="cpu", query_instruction="query: ")
    index = VectorStoreIndex([TextNode(text=text) for text in TEXTS], embed_model=embedding)
    retriever = index.as_retriever(similarity_top_k=HITS)
    return {
        "query": embedding.get_query_embedding(QUERIES[0]),
        "hits": [[(node.text, node.score) for node in retriever.retrieve(query)] for query in QUERIES],
    }


def haystack(model: str) -> Any:
    """Haystack: documents embedded into a store, and a pipeline from query to documents."""
    from haystack import Document, Pipeline
    from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore
    from haystack.utils import ComponentDevice
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersDocumentEmbedder,
        SentenceTransformersTextEmbedder,
    )

    settings = {"model": model, "device": ComponentDevice.from_str("cpu"), "progress_bar": False}
    documents = SentenceTransformersDocumentEmbedder(**settings)
    documents.warm_up()
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    store.write_documents(documents.run(documents=[Document(content=text) for text in TEXTS])["documents"])
    pipeline = Pipeline()
    pipeline.add_component("embedder", SentenceTransformersTextEmbedder(**settings, normalize_embeddings=True))
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=HITS))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    found = [pipeline.run({"embedder": {"text": query}})["retriever"]["documents"] for query in QUERIES]
    return [[(document.content, document.score) for document in hits] for hits in found]


def haystack_precision(model: str) -> Any:
    """Haystack's embedder with ``precision`` and ``truncate_dim``."""
    from haystack.utils import ComponentDevice
    from haystack_integrations.components.embedders.sentence_transformers import SentenceTransformersTextEmbedder

    embedder = SentenceTransformersTextEmbedder(
        model=model,
        device=ComponentDevice.from_str("cpu"),
        progress_bar=False,
        precision="ubinary",
        truncate_dim=64,
    )
    embedder.warm_up()
    return embedder.run(QUERIES[0])["embedding"]


def chroma(model: str) -> Any:
    """Chroma: a collection with a SentenceTransformerEmbeddingFunction."""
    import chromadb
    from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

    function = SentenceTransformerEmbeddingFunction(model_name=model, device="cpu")
    collection = chromadb.EphemeralClient().create_collection("texts", embedding_function=function)
    collection.add(ids=[str(number) for number in range(len(TEXTS))], documents=TEXTS)
    found = collection.query(query_texts=QUERIES, n_results=HITS)
    return {"documents": found["documents"], "distances": found["distances"]}


def bertopic(model: str) -> Any:
    """BERTopic: topics, their words, and the topics near a query; of a model, and of its name."""
    from bertopic import BERTopic
    from sentence_transformers import SentenceTransformer
    from sklearn.decomposition import PCA

    made = {}
    for kind, embedder in {"model": SentenceTransformer(model, device="cpu"), "name": model}.items():
        # UMAP, its usual choice, magnifies the last digit.
        topics = BERTopic(embedding_model=embedder, umap_model=PCA(5, random_state=0), min_topic_size=5)
        found, _ = topics.fit_transform(TEXTS)
        words = [[word for word, _ in topics.get_topic(topic)[:3]] for topic in sorted({*found})]
        made[kind] = {"topics": list(map(int, found)), "words": words, "near": topics.find_topics(QUERIES[0])}
    return made


def keybert(model: str) -> Any:
    """KeyBERT: the key words of texts."""
    from keybert import KeyBERT
    from sentence_transformers import SentenceTransformer

    return KeyBERT(SentenceTransformer(model, device="cpu")).extract_keywords(
        [" ".join(TEXTS[start : start + 24]) for start in range(0, len(TEXTS), 24)], use_mmr=True
    )


def txtai(model: str) -> Any:
    """txtai: an index, and a search in it."""
    from txtai import Embeddings

    embeddings = Embeddings({"path": model, "method": "sentence-transformers", "gpu": False, "content": True})
    embeddings.index(TEXTS)
    return [[(hit["text"], hit["score"]) for hit in embeddings.search(query, HITS)] for query in QUERIES]


def mteb(model: str) -> Any:
    """mteb: the figures of a small task of our own, as its own need the network."""
    import datasets
    import mteb as library
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata
    from sentence_transformers import SentenceTransformer

    unknown = ("reference", "date", "domains", "task_subtypes", "license", "annotations_creators", "dialect")

    class Topics(AbsTaskSTS):
        """Pairs of texts, alike if they share a topic."""

        metadata = TaskMetadata(
            name="Topics",
            description="Pairs of texts, alike if they share a topic.",
            dataset={"path": "none/none", "revision": "1"},
            type="STS",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="cosine_spearman",
            **dict.fromkeys([*unknown, "sample_creation", "bibtex_citation"]),
        )
        min_score, max_score = 0, 1

        def load_data(self, **_kwargs: Any) -> None:
            """Make the pairs."""
            pairs = [(first, second) for first in range(0, len(TEXTS), 5) for second in range(0, len(TEXTS), 7)]
            columns = {
                "sentence1": [TEXTS[first] for first, _ in pairs],
                "sentence2": [TEXTS[second] for _, second in pairs],
                "score": [float(LABELS[first] == LABELS[second]) for first, second in pairs],
            }
            self.dataset = datasets.DatasetDict(test=datasets.Dataset.from_dict(columns))
            self.data_loaded = True

    embedder = SentenceTransformer(model, device="cpu")
    found = library.evaluate(embedder, [Topics()], cache=None, overwrite_strategy="always").task_results[0]
    return {name: value for name, value in found.scores["test"][0].items() if isinstance(value, float)}


def setfit(model: str) -> Any:
    """SetFit: its head trained on the embeddings, and what it predicts."""
    from sentence_transformers import SentenceTransformer
    from setfit import SetFitModel
    from sklearn.linear_model import LogisticRegression

    head = LogisticRegression(**EXACT)
    classifier = SetFitModel(model_body=SentenceTransformer(model, device="cpu"), model_head=head)
    classifier.fit(TEXTS[::2], LABELS[::2], num_epochs=1)
    return classifier.predict_proba(TEXTS[1::2], as_numpy=True).tolist()


def setfit_folder(model: str) -> Any:
    """SetFit: saved, loaded again from the folder, and asked."""
    import tempfile

    from setfit import SetFitModel

    classifier = SetFitModel.from_pretrained(model, device="cpu", head_params=EXACT)
    classifier.fit(TEXTS[::2], LABELS[::2], num_epochs=1)
    with tempfile.TemporaryDirectory() as folder:
        classifier.save_pretrained(folder)
        again = SetFitModel.from_pretrained(folder, device="cpu")
        return again.predict_proba(TEXTS[1::2], as_numpy=True).tolist()


PROGRAMS: dict[str, Callable[[str], Any]] = {
    program.__name__: program
    for program in (
        *(langchain, langchain_processes, llama_index, haystack, haystack_precision, chroma, bertopic, keybert),
        *(txtai, mteb, setfit, setfit_folder),
    )
}
"""Name → program."""
