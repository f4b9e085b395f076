"""Positions of pixels as channels, and as rotations of the sphere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

Tensor = Any


def coordinate_channels(x: Tensor) -> Tensor:
    """Row and column of each pixel of a map, from -1 to 1 across it.

    Args:
        x: Map of floats, `(batch, H, W, C)`.

    Returns:
        `(batch, H, W, 2)`, the dtype of `x`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import coordinate_channels
        >>> np.asarray(coordinate_channels(np.zeros((1, 1, 4, 3), "float32")))[0, 0, :, 1].tolist()
        [-0.75, -0.25, 0.25, 0.75]
    """
    rows, columns = _indices(x)
    height, width = ops.cast(ops.shape(x)[1], x.dtype), ops.cast(ops.shape(x)[2], x.dtype)
    zero = ops.zeros_like(x[..., :1])
    return ops.concatenate(
        [zero + (2 * rows + 1) / height - 1, zero + (2 * columns + 1) / width - 1], axis=-1
    )


def rotate_by_position(x: Tensor, periods: Sequence[float]) -> Tensor:
    """Rotate the embedding of each pixel by angles that grow with its row and column.

    Channels k and k + D/2 are one complex number, which is turned by 2π/P for every step of the
    pixel in a direction of its own; the directions are spread over half a circle, the periods P
    taken in turn. Rotary position embedding (Su et al., 2021) in two dimensions. Lengths, and
    similarities of pixels at one place, are kept; pixels with like features at different places
    come apart.

    Args:
        x: Embeddings `(batch, H, W, D)`, D static and even.
        periods: Periods P, in pixels of the map.

    Returns:
        The shape and dtype of `x`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import rotate_by_position
        >>> x = np.ones((1, 1, 3, 2), "float32")
        >>> np.asarray(rotate_by_position(x, [4.0])).round(4)[0, 0].tolist()
        [[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0]]
    """
    half = x.shape[-1] // 2
    turns = math.ceil(half / len(periods))
    index = np.arange(half)
    speed = 2 * math.pi / np.asarray(periods, "float64")[index % len(periods)]
    direction = math.pi * (index // len(periods)) / turns
    rows, columns = _indices(x)
    angle = rows * ops.convert_to_tensor(speed * np.sin(direction), dtype=x.dtype)
    angle += columns * ops.convert_to_tensor(speed * np.cos(direction), dtype=x.dtype)
    cos, sin, real, imaginary = ops.cos(angle), ops.sin(angle), x[..., :half], x[..., half:]
    return ops.concatenate([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)


def _indices(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row `(1, H, 1, 1)` and column `(1, 1, W, 1)` indices of a map, in its dtype."""
    height, width = ops.shape(x)[1], ops.shape(x)[2]
    rows = ops.reshape(ops.cast(ops.arange(height), x.dtype), (1, height, 1, 1))
    return rows, ops.reshape(ops.cast(ops.arange(width), x.dtype), (1, 1, width, 1))
