"""Undoing the padding of a network."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

Tensor = Any


@keras.saving.register_keras_serializable(package="keras_rpe")
class CropLike(keras.layers.Layer):
    """Keep the upper left part of a map that is as large as another map.

    Call arguments:
        inputs: Map to crop, `(batch, H, W, C)`.
        like: Map for its size, `(batch, h, w, ...)`, h ≤ H and w ≤ W.

    Returns of a call:
        `(batch, h, w, C)`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import CropLike
        >>> tuple(CropLike()(np.zeros((1, 32, 48, 2)), np.zeros((1, 30, 33, 3))).shape)
        (1, 30, 33, 2)
    """

    def call(self, inputs: Tensor, like: Tensor) -> Tensor:
        """Return the cropped map."""
        return inputs[:, : ops.shape(like)[1], : ops.shape(like)[2]]

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], like_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Shape of the cropped map."""
        return (inputs_shape[0], like_shape[1], like_shape[2], *inputs_shape[3:])
