"""Searches a small corpus by meaning: ``python examples/semantic_search.py [--model NAME_OR_FOLDER]``."""

from __future__ import annotations

import argparse

from sentence_embedder import SentenceTransformer
from sentence_embedder.util import semantic_search

CORPUS = [
    "A recipe for sourdough bread needs flour, water, salt and a starter.",
    "Knead the dough for ten minutes, then let it rise overnight in the fridge.",
    "The bicycle chain should be oiled every few hundred kilometres.",
    "To mend a flat tyre, find the hole in the tube and glue a patch over it.",
    "The observatory photographed a supernova in a galaxy 40 million light years away.",
    "Jupiter's four largest moons can be seen with ordinary binoculars.",
    "The central bank raised its interest rate to slow inflation.",
    "Share prices fell after the company reported lower profits.",
    "A violin has four strings, tuned in fifths.",
    "The orchestra rehearsed the symphony for three days before the concert.",
    "Regular exercise lowers blood pressure and helps one sleep.",
    "Vaccines train the immune system to recognise a virus.",
]

QUERIES = [
    "How do I bake a loaf at home?",
    "something is wrong with my bike's wheel",
    "looking at planets in the night sky",
    "Why did my savings lose value?",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a name on the Hugging Face Hub, or a folder")
    model = SentenceTransformer(parser.parse_args().model)

    corpus_embeddings = model.encode_document(CORPUS)
    query_embeddings = model.encode_query(QUERIES)

    for query, hits in zip(QUERIES, semantic_search(query_embeddings, corpus_embeddings, top_k=3), strict=True):
        print(f"\n{query}")
        for hit in hits:
            print(f"  {hit['score']:6.3f}  {CORPUS[int(hit['corpus_id'])]}")


if __name__ == "__main__":
    main()
