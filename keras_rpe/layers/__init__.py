"""Layers of which the graphs are made."""

from keras_rpe.layers.decoder import InstanceDecoder
from keras_rpe.layers.embedding import SphericalEmbedding
from keras_rpe.layers.fusion import (
    BilinearUpsampling,
    CropLike,
    FeatureFusion,
    SubpixelConv2DTranspose,
)
from keras_rpe.layers.images import (
    BatchStatisticsNormalization,
    GammaCorrection,
    ImageNormalization,
    PadToMultiple,
)
from keras_rpe.layers.mean_shift import MeanShiftRNN, SeededMeanShift
from keras_rpe.layers.object_size import ObjectSize
from keras_rpe.layers.ranking import ProposalRanking

__all__ = [
    "BatchStatisticsNormalization",
    "BilinearUpsampling",
    "CropLike",
    "FeatureFusion",
    "GammaCorrection",
    "ImageNormalization",
    "InstanceDecoder",
    "MeanShiftRNN",
    "ObjectSize",
    "PadToMultiple",
    "ProposalRanking",
    "SeededMeanShift",
    "SphericalEmbedding",
    "SubpixelConv2DTranspose",
]


def __dir__() -> list[str]:
    return __all__
