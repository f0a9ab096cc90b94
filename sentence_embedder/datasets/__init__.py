"""Data sets and loaders that make training examples of texts, or batches of examples."""

from sentence_embedder.datasets.denoising_dataset import DenoisingAutoEncoderDataset
from sentence_embedder.datasets.no_duplicates_loader import NoDuplicatesDataLoader
from sentence_embedder.datasets.parallel_dataset import ParallelSentencesDataset
from sentence_embedder.datasets.sentence_label_dataset import SentenceLabelDataset
from sentence_embedder.datasets.sentences_dataset import SentencesDataset

__all__ = [
    "DenoisingAutoEncoderDataset",
    "NoDuplicatesDataLoader",
    "ParallelSentencesDataset",
    "SentenceLabelDataset",
    "SentencesDataset",
]
