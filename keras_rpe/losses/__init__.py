"""Losses on embeddings."""

from keras_rpe.losses.cosine_margin import CosineMarginLoss

__all__ = ["CosineMarginLoss"]


def __dir__() -> list[str]:
    return __all__
