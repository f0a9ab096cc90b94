"""Evaluators: what judges a model, during training and after it."""

from sentence_embedder.evaluation.classification_evaluators import BinaryClassificationEvaluator
from sentence_embedder.evaluation.label_evaluators import LabelAccuracyEvaluator
from sentence_embedder.evaluation.paraphrase_evaluators import ParaphraseMiningEvaluator
from sentence_embedder.evaluation.reranking_evaluators import RerankingEvaluator
from sentence_embedder.evaluation.retrieval_evaluators import InformationRetrievalEvaluator
from sentence_embedder.evaluation.sentence_evaluator import SentenceEvaluator, SequentialEvaluator
from sentence_embedder.evaluation.similarity_evaluators import EmbeddingSimilarityEvaluator, TripletEvaluator
from sentence_embedder.evaluation.translation_evaluators import (
    MSEEvaluator,
    MSEEvaluatorFromDataFrame,
    TranslationEvaluator,
)
from sentence_embedder.similarity import SimilarityFunction

__all__ = [
    "BinaryClassificationEvaluator",
    "EmbeddingSimilarityEvaluator",
    "InformationRetrievalEvaluator",
    "LabelAccuracyEvaluator",
    "MSEEvaluator",
    "MSEEvaluatorFromDataFrame",
    "ParaphraseMiningEvaluator",
    "RerankingEvaluator",
    "SentenceEvaluator",
    "SequentialEvaluator",
    "SimilarityFunction",
    "TranslationEvaluator",
    "TripletEvaluator",
]
