"""Losses on embeddings, boundaries and sizes."""

from keras_rpe.losses.boundary import BoundaryCrossEntropy, BoundaryPairLoss
from keras_rpe.losses.cosine_margin import CosineMarginLoss
from keras_rpe.losses.object_size import ObjectSizeLoss

__all__ = ["BoundaryCrossEntropy", "BoundaryPairLoss", "CosineMarginLoss", "ObjectSizeLoss"]


def __dir__() -> list[str]:
    return __all__
