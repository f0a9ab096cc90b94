"""Losses to train with: thin modules over functions of embedding matrices.

Each is called with the Features of the columns of a batch, and the labels of its rows.
"""

from sentence_embedder.losses.adaptive_layer_losses import AdaptiveLayerLoss, Matryoshka2dLoss
from sentence_embedder.losses.batch_triplet_losses import (
    BatchAllTripletLoss,
    BatchHardSoftMarginTripletLoss,
    BatchHardTripletLoss,
    BatchHardTripletLossDistanceFunction,
    BatchSemiHardTripletLoss,
)
from sentence_embedder.losses.cached_losses import (
    CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
)
from sentence_embedder.losses.classification_losses import SoftmaxLoss
from sentence_embedder.losses.contrastive_losses import (
    ContrastiveLoss,
    OnlineContrastiveLoss,
    SiameseDistanceMetric,
)
from sentence_embedder.losses.contrastive_tension_losses import (
    ContrastiveTensionDataLoader,
    ContrastiveTensionLoss,
    ContrastiveTensionLossInBatchNegatives,
)
from sentence_embedder.losses.denoising_losses import DenoisingAutoEncoderLoss
from sentence_embedder.losses.distillation_losses import (
    DistillKLDivLoss,
    EmbedDistillLoss,
    MarginMSELoss,
    MSELoss,
)
from sentence_embedder.losses.gist_losses import CachedGISTEmbedLoss, GISTEmbedLoss
from sentence_embedder.losses.matryoshka_losses import MatryoshkaLoss
from sentence_embedder.losses.mega_batch_losses import MegaBatchMarginLoss
from sentence_embedder.losses.ranking_losses import (
    MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
)
from sentence_embedder.losses.regularization_losses import GlobalOrthogonalRegularizationLoss
from sentence_embedder.losses.similarity_losses import AnglELoss, CoSENTLoss, CosineSimilarityLoss
from sentence_embedder.losses.triplet_losses import TripletDistanceMetric, TripletLoss

__all__ = [
    "AdaptiveLayerLoss",
    "AnglELoss",
    "BatchAllTripletLoss",
    "BatchHardSoftMarginTripletLoss",
    "BatchHardTripletLoss",
    "BatchHardTripletLossDistanceFunction",
    "BatchSemiHardTripletLoss",
    "CachedGISTEmbedLoss",
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "CoSENTLoss",
    "ContrastiveLoss",
    "ContrastiveTensionDataLoader",
    "ContrastiveTensionLoss",
    "ContrastiveTensionLossInBatchNegatives",
    "CosineSimilarityLoss",
    "DenoisingAutoEncoderLoss",
    "DistillKLDivLoss",
    "EmbedDistillLoss",
    "GISTEmbedLoss",
    "GlobalOrthogonalRegularizationLoss",
    "MSELoss",
    "MarginMSELoss",
    "Matryoshka2dLoss",
    "MatryoshkaLoss",
    "MegaBatchMarginLoss",
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
    "OnlineContrastiveLoss",
    "SiameseDistanceMetric",
    "SoftmaxLoss",
    "TripletDistanceMetric",
    "TripletLoss",
]
