"""Losses on embeddings."""

from keras_rpe.losses.cosine_margin_loss import CosineMarginLoss

__all__ = ["CosineMarginLoss"]
