"""Layers of which the graphs are made."""

from keras_rpe.layers.batch_statistics_normalization import BatchStatisticsNormalization
from keras_rpe.layers.bilinear_upsampling import BilinearUpsampling
from keras_rpe.layers.crop_like import CropLike
from keras_rpe.layers.feature_fusion import FeatureFusion
from keras_rpe.layers.gamma_correction import GammaCorrection
from keras_rpe.layers.image_normalization import ImageNormalization
from keras_rpe.layers.instance_decoder import InstanceDecoder
from keras_rpe.layers.mean_shift_rnn import MeanShiftRNN
from keras_rpe.layers.pad_to_multiple import PadToMultiple
from keras_rpe.layers.proposal_ranking import ProposalRanking
from keras_rpe.layers.seeded_mean_shift import SeededMeanShift
from keras_rpe.layers.spherical_embedding import SphericalEmbedding

__all__ = [
    "BatchStatisticsNormalization",
    "BilinearUpsampling",
    "CropLike",
    "FeatureFusion",
    "GammaCorrection",
    "ImageNormalization",
    "InstanceDecoder",
    "MeanShiftRNN",
    "PadToMultiple",
    "ProposalRanking",
    "SeededMeanShift",
    "SphericalEmbedding",
]
