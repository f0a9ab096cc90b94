"""The modules of sentence-transformers, of 2.7 to 6.2: which of this package stands for each, or why none does.

All names are dotted names below ``sentence_transformers`` and ``sentence_embedder``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

_CLASSES: Mapping[str, tuple[str, str]] = {
    "datasets.DenoisingAutoEncoderDataset": ("denoising_auto_encoder", "denoising_dataset"),
    "datasets.NoDuplicatesDataLoader": ("no_duplicates_dataloader", "no_duplicates_loader"),
    "datasets.ParallelSentencesDataset": ("parallel_sentences", "parallel_dataset"),
    "datasets.SentenceLabelDataset": ("sentence_label", "sentence_label_dataset"),
    "datasets.SentencesDataset": ("sentences", "sentences_dataset"),
    "evaluation.BinaryClassificationEvaluator": ("binary_classification", "classification_evaluators"),
    "evaluation.EmbeddingSimilarityEvaluator": ("embedding_similarity", "similarity_evaluators"),
    "evaluation.InformationRetrievalEvaluator": ("information_retrieval", "retrieval_evaluators"),
    "evaluation.LabelAccuracyEvaluator": ("label_accuracy", "label_evaluators"),
    "evaluation.MSEEvaluator": ("mse", "translation_evaluators"),
    "evaluation.MSEEvaluatorFromDataFrame": ("mse_from_dataframe", "translation_evaluators"),
    "evaluation.ParaphraseMiningEvaluator": ("paraphrase_mining", "paraphrase_evaluators"),
    "evaluation.RerankingEvaluator": ("reranking", "reranking_evaluators"),
    "evaluation.TranslationEvaluator": ("translation", "translation_evaluators"),
    "evaluation.TripletEvaluator": ("triplet", "similarity_evaluators"),
    "losses.AdaptiveLayerLoss": ("adaptive_layer", "adaptive_layer_losses"),
    "losses.AnglELoss": ("angle", "similarity_losses"),
    "losses.BatchAllTripletLoss": ("batch_all_triplet", "batch_triplet_losses"),
    "losses.BatchHardSoftMarginTripletLoss": ("batch_hard_soft_margin_triplet", "batch_triplet_losses"),
    "losses.BatchHardTripletLoss": ("batch_hard_triplet", "batch_triplet_losses"),
    "losses.BatchSemiHardTripletLoss": ("batch_semi_hard_triplet", "batch_triplet_losses"),
    "losses.CachedGISTEmbedLoss": ("cached_gist_embed", "gist_losses"),
    "losses.CachedMultipleNegativesRankingLoss": ("cached_multiple_negatives_ranking", "cached_losses"),
    "losses.CachedMultipleNegativesSymmetricRankingLoss": (
        "cached_multiple_negatives_symmetric_ranking",
        "cached_losses",
    ),
    "losses.CoSENTLoss": ("cosent", "similarity_losses"),
    "losses.ContrastiveLoss": ("contrastive", "contrastive_losses"),
    "losses.ContrastiveTensionLoss": ("contrastive_tension", "contrastive_tension_losses"),
    "losses.CosineSimilarityLoss": ("cosine_similarity", "similarity_losses"),
    "losses.DenoisingAutoEncoderLoss": ("denoising_auto_encoder", "denoising_losses"),
    "losses.DistillKLDivLoss": ("distill_kl_div", "distillation_losses"),
    "losses.EmbedDistillLoss": ("embed_distill", "distillation_losses"),
    "losses.GISTEmbedLoss": ("gist_embed", "gist_losses"),
    "losses.GlobalOrthogonalRegularizationLoss": ("global_orthogonal_regularization", "regularization_losses"),
    "losses.MSELoss": ("mse", "distillation_losses"),
    "losses.MarginMSELoss": ("margin_mse", "distillation_losses"),
    "losses.Matryoshka2dLoss": ("matryoshka_2d", "adaptive_layer_losses"),
    "losses.MatryoshkaLoss": ("matryoshka", "matryoshka_losses"),
    "losses.MegaBatchMarginLoss": ("mega_batch_margin", "mega_batch_losses"),
    "losses.MultipleNegativesRankingLoss": ("multiple_negatives_ranking", "ranking_losses"),
    "losses.MultipleNegativesSymmetricRankingLoss": ("multiple_negatives_symmetric_ranking", "ranking_losses"),
    "losses.OnlineContrastiveLoss": ("online_contrastive", "contrastive_losses"),
    "losses.SoftmaxLoss": ("softmax", "classification_losses"),
    "losses.TripletLoss": ("triplet", "triplet_losses"),
    "models.BoW": ("bow", "bow"),
    "models.CLIPModel": ("clip_model", "clip_model"),
    "models.CNN": ("cnn", "cnn"),
    "models.Dropout": ("dropout", "dropout"),
    "models.LSTM": ("lstm", "lstm"),
    "models.LayerNorm": ("layer_norm", "layer_norm"),
    "models.Normalize": ("normalize", "normalize"),
    "models.Pooling": ("pooling", "pooling"),
    "models.StaticEmbedding": ("static_embedding", "static_embedding"),
    "models.WeightedLayerPooling": ("weighted_layer_pooling", "weighted_layer_pooling"),
    "models.WordEmbeddings": ("word_embeddings", "word_embeddings"),
    "models.WordWeights": ("word_weights", "word_weights"),
    "models.tokenizer.PhraseTokenizer": ("phrase", ""),
    "models.tokenizer.WhitespaceTokenizer": ("whitespace", ""),
    "models.tokenizer.WordTokenizer": ("word", ""),
    "readers.InputExample": ("input_example", ""),
    "readers.LabelSentenceReader": ("label_sentence", "example_readers"),
    "readers.NLIDataReader": ("nli_data", "example_readers"),
    "readers.PairedFilesReader": ("paired_files", "example_readers"),
    "readers.STSDataReader": ("sts_data", "example_readers"),
    "readers.TripletReader": ("triplet", "example_readers"),
}
"""Module up to 5.3, named after a class → its name since 5.4, and the one of ours, each in the same folder; where
ours is empty, it is the folder.
"""

_HOMES: Mapping[str, tuple[str, ...]] = {
    "LoggingHandler": ("logging_handler",),
    "SentenceTransformer": ("sentence_transformers",),
    "base.evaluation": ("evaluation.sentence_evaluator",),
    "base.evaluation.evaluator": ("evaluation.sentence_evaluator",),
    "base.evaluation.sequential": ("evaluation.sentence_evaluator",),
    "base.modules.dense": ("models.dense",),
    "base.modules.normalize": ("models.normalize",),
    "base.modules.router": ("models.router",),
    "base.modules.transformer": ("models.transformer",),
    "evaluation.SentenceEvaluator": ("evaluation.sentence_evaluator",),
    "evaluation.SequentialEvaluator": ("evaluation.sentence_evaluator",),
    "evaluation.SimilarityFunction": ("similarity",),
    "models.Asym": ("models.router",),
    "models.Dense": ("models.dense",),
    "models.Router": ("models.router",),
    "models.Transformer": ("models.transformer",),
    "quantization": ("quantization",),
    "sentence_transformer.model": ("sentence_transformers",),
    "similarity_functions": ("similarity",),
    "util": ("util",),
    "util.environment": ("devices", "installed"),
    "util.file_io": ("web_file",),
    "util.logging": ("logging_handler",),
    "util.misc": ("dotted_names", "logging_handler"),
    "util.quantization": ("quantization",),
    "util.retrieval": ("retrieval",),
    "util.similarity": ("similarity",),
    "util.tensor": ("features", "similarity"),
}
"""Module → those of ours with what is in it."""

_FOLDERS = {
    "datasets": "datasets",
    "evaluation": "evaluation",
    "losses": "losses",
    "models": "modules",
    "models.tokenizer": "modules.tokenizer",
    "readers": "readers",
}
"""Folder up to 5.3, and here → its name since 5.4, below ``sentence_transformer``."""

_CARD = ("SentenceTransformerModelCardData", "SentenceTransformerModelCardCallback")
_TRAINING_ARGUMENTS = ("BatchSamplers", "MultiDatasetBatchSamplers")
_SAMPLERS = (
    *_TRAINING_ARGUMENTS,
    "DefaultBatchSampler",
    "GroupByLabelBatchSampler",
    "MultiDatasetDefaultBatchSampler",
    "NoDuplicatesBatchSampler",
    "ProportionalBatchSampler",
    "RoundRobinBatchSampler",
)

_PICKED: Mapping[str, tuple[str, ...]] = {
    "base": _SAMPLERS,
    "base.modules": ("Dense", "Normalize", "Router", "Transformer"),
    "base.sampler": _SAMPLERS,
    "base.training_args": _TRAINING_ARGUMENTS,
    "data_collator": ("SentenceTransformerDataCollator",),
    "model_card": _CARD,
    "sampler": _SAMPLERS,
    "sentence_transformer": (
        "SentenceTransformer",
        "SentenceTransformerDataCollator",
        "SentenceTransformerModelCardData",
        "SentenceTransformerTrainer",
        "SentenceTransformerTrainingArguments",
    ),
    "sentence_transformer.data_collator": ("SentenceTransformerDataCollator",),
    "sentence_transformer.model_card": _CARD,
    "sentence_transformer.trainer": ("SentenceTransformerTrainer",),
    "sentence_transformer.training_args": ("SentenceTransformerTrainingArguments", *_TRAINING_ARGUMENTS),
    "trainer": ("SentenceTransformerTrainer",),
    "training_args": ("SentenceTransformerTrainingArguments", *_TRAINING_ARGUMENTS),
    **{
        path: names
        for family, kind in (
            ("cross_encoder", "CrossEncoder"),
            ("sparse_encoder", "SparseEncoder"),
            ("multi_vector_encoder", "MultiVectorEncoder"),
        )
        for path, names in {
            family: (kind, f"{kind}ModelCardData", f"{kind}Trainer", f"{kind}TrainingArguments"),
            f"{family}.model": (kind,),
            f"{family}.model_card": (f"{kind}ModelCardData",),
            f"{family}.trainer": (f"{kind}Trainer",),
            f"{family}.training_args": (f"{kind}TrainingArguments",),
        }.items()
    },
    "cross_encoder.CrossEncoder": ("CrossEncoder",),
    "sparse_encoder.SparseEncoder": ("SparseEncoder",),
}
"""Module → names of this package, of its modules, or of ``absent_classes``."""

_NO_CONTRACT = "a module of a model needs no base class: any nn.Module will do that has forward"
_NO_MODALITIES = "texts are all that is there, and images in a CLIPModel"
_NO_TRAINER = "there is no Trainer: SentenceTransformer.fit trains"
_OTHER_KIND = "models of this kind are not part of sentence_embedder"
_SPREAD = "what it holds is inside the library"

MISSING: Mapping[str, str] = {
    "backend": "PyTorch alone computes, neither ONNX nor OpenVINO",
    "base.data_collator": _NO_TRAINER,
    "base.losses": "a gradient cache is part of each cached loss",
    "base.merging": "models are not merged",
    "base.modality": _NO_MODALITIES,
    "base.modality_types": _NO_MODALITIES,
    "base.model": "SentenceTransformer is the only kind of model, and derives from nn.Sequential",
    "base.model_card": "the only kind of card is that of a SentenceTransformer",
    "base.modules.input_module": _NO_CONTRACT,
    "base.modules.module": _NO_CONTRACT,
    "base.peft_mixin": "adapters are loaded; to make one, use peft",
    "base.trainer": _NO_TRAINER,
    "cross_encoder": _OTHER_KIND,
    "evaluation.NanoBEIREvaluator": "it downloads data sets: mteb does that",
    "model_card_templates": "the text of a card lies in a file of the package",
    "models.InputModule": _NO_CONTRACT,
    "models.Module": _NO_CONTRACT,
    "multi_vector_encoder": _OTHER_KIND,
    "peft_mixin": "adapters are loaded; to make one, use peft",
    "sentence_transformer.deprecated_model_card_templates": "the text of a card lies in a file of the package",
    "sentence_transformer.evaluation.nano_beir": "it downloads data sets: mteb does that",
    "sentence_transformer.fit_mixin": "fit is a method of SentenceTransformer",
    "sparse_encoder": _OTHER_KIND,
    "util.dataset": _NO_TRAINER,
    "util.decorators": _SPREAD,
    "util.deprecated_import": _SPREAD,
    "util.distributed": "losses gather what they need: gather_across_devices=True",
    "util.hard_negatives": "negatives are not mined",
}
"""Module, with all below it that is in no other table → why it is not there."""


def _renamed() -> Iterator[tuple[str, tuple[str, ...]]]:
    """What the classes' modules, and the folders, were and are called → ours."""
    for old, new in _FOLDERS.items():
        for path in (old, f"sentence_transformer.{new}"):
            yield path, (old,)
    for old, (new_file, our_file) in _CLASSES.items():
        folder = old.rpartition(".")[0]
        home = f"{folder}.{our_file}" if our_file else folder
        for path in (old, f"sentence_transformer.{_FOLDERS[folder]}.{new_file}"):
            yield path, (home,)


HOMES: Mapping[str, tuple[str, ...]] = {**_HOMES, **dict(_renamed())}
"""Module → those of ours with what is in it."""

PICKED = _PICKED

_PATHS = HOMES.keys() | PICKED.keys() | {""}
_PACKAGES = {path.rpartition(".")[0] for path in _PATHS}


def is_known(path: str) -> bool:
    """Whether there is such a module."""
    return path in _PATHS


def is_package(path: str) -> bool:
    """Whether there are modules below it."""
    return path in _PACKAGES


def why_missing(path: str) -> str | None:
    """Why a module of sentence-transformers is not there; None if it never was in any version."""
    parts = path.split(".")
    ends = range(len(parts), 0, -1)
    return next((MISSING[above] for end in ends if (above := ".".join(parts[:end])) in MISSING), None)
