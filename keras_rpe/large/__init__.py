"""Images that do not fit into memory."""

from keras_rpe.large.image import LargeImage
from keras_rpe.large.segment import LargeResult, segment_large

__all__ = ["LargeImage", "LargeResult", "segment_large"]
