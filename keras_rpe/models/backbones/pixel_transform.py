"""From the pixels that a convolution was trained with to those that it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True)
class PixelTransform:
    """An affine map of colours, x ↦ matrix · x + offset.

    Attributes:
        matrix: `(3, 3)`.
        offset: `(3,)`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.models.backbones.pixel_transform import PixelTransform
        >>> swap = PixelTransform(np.eye(3)[::-1], np.zeros(3))
        >>> kernel, bias = swap.applied(np.arange(3.0).reshape(1, 1, 3, 1), np.zeros(1))
        >>> kernel.ravel().tolist()
        [2.0, 1.0, 0.0]
    """

    matrix: np.ndarray
    offset: np.ndarray

    def applied(self, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The convolution that gives for x what the given one gives for the mapped x.

        Args:
            kernel: `(H, W, 3, out)`.
            bias: `(out,)`.

        Returns:
            Its kernel and bias, float32.
        """
        moved = np.einsum("hwio,ij->hwjo", kernel.astype("float64"), self.matrix)
        shift = np.einsum("hwio,i->o", kernel.astype("float64"), self.offset)
        return moved.astype("float32"), (bias + shift).astype("float32")


def pixel_transform(
    backbone: keras.Model, conv: Any, average_image: np.ndarray | None
) -> PixelTransform:
    """What leads from the input of the first convolution to that of its MatConvNet twin.

    The twin takes RGB less the average image, in [0, 1] if all of that image is, and else in
    [0, 255]. Without an average image the scale and the mean of the backbone are kept.

    Args:
        backbone: A model of images in [0, 1] that treats all pixels alike up to `conv`.
        conv: Its first convolution.
        average_image: `(3,)`, `(H, W, 3)`, of which the mean is taken, or `None`.

    Returns:
        The map.

    Raises:
        ValueError: If the backbone mixes or drops colours before `conv`.
    """
    # One pixel each of black, red, green and blue; padding before the convolution surrounds them.
    probes = np.concatenate([np.zeros((1, 3)), np.eye(3)]).reshape(4, 1, 1, 3).astype("float32")
    seen = keras.ops.convert_to_numpy(keras.Model(backbone.inputs[0], conv.input)(probes))
    seen = seen[:, seen.shape[1] // 2, seen.shape[2] // 2].astype("float64")
    matrix, offset = (seen[1:] - seen[0]).T, seen[0]
    if matrix.shape != (3, 3) or np.linalg.matrix_rank(matrix) < 3:
        raise ValueError(
            "`backbone` must give all three colours to its first convolution. "
            f"Received: {backbone.name!r}"
        )
    inverse = np.linalg.inv(matrix)
    if average_image is None:
        # The colours in their order, with the deviation and the mean that the backbone gave them.
        order = np.abs(matrix).argmax(axis=0)
        return PixelTransform(np.eye(3)[order], np.zeros(3))
    average = average_image.reshape(-1, 3).mean(axis=0)
    scale = 1.0 if np.abs(average_image).max() <= 1.0 else 255.0
    return PixelTransform(scale * inverse, -scale * inverse @ offset - average)
