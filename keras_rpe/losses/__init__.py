"""Losses on embeddings."""

from keras_rpe.losses.boundary import BoundaryCrossEntropy, BoundaryPairLoss
from keras_rpe.losses.cosine_margin import CosineMarginLoss

__all__ = ["BoundaryCrossEntropy", "BoundaryPairLoss", "CosineMarginLoss"]


def __dir__() -> list[str]:
    return __all__
