"""Bilinear upsampling by a whole factor, out of sums and products alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

Tensor = Any


def upsample_bilinear(x: Tensor, factor: int) -> Tensor:
    """Enlarge maps by linear interpolation between the centres of their cells.

    The values are those of the usual bilinear resizing with half-pixel centres; beyond the outer
    centres the outer cells are repeated. Unlike a resizing operator it has a gradient under XLA.

    Args:
        x: `(batch, H, W, C)` of any sizes, C static.
        factor: By how much, at least 1.

    Returns:
        `(batch, factor · H, factor · W, C)`, of the data type of `x`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import upsample_bilinear
        >>> x = np.array([0.0, 4.0], "float32").reshape(1, 1, 2, 1)
        >>> np.asarray(upsample_bilinear(x, 2))[0, 0, :, 0].tolist()
        [0.0, 1.0, 3.0, 4.0]
    """
    x = ops.convert_to_tensor(x)
    if factor == 1:
        return x
    # Where the centres of the fine cells lie, in coarse cells from the centre of their own.
    place = (np.arange(factor) + 0.5) / factor - 0.5
    own, before, after = 1.0 - np.abs(place), np.maximum(-place, 0.0), np.maximum(place, 0.0)

    def interleaved(cells: Tensor, previous: Tensor, following: Tensor, shape: Any) -> Tensor:
        parts = [
            ops.reshape(part, shape) * ops.cast(weight.reshape(1, factor, 1), x.dtype)
            for part, weight in ((cells, own), (previous, before), (following, after))
        ]
        return parts[0] + parts[1] + parts[2]

    batch, height, width = ops.shape(x)[:3]
    channels = x.shape[-1]
    previous = ops.concatenate([x[:, :1], x[:, :-1]], axis=1)
    following = ops.concatenate([x[:, 1:], x[:, -1:]], axis=1)
    x = interleaved(x, previous, following, (batch * height, 1, width * channels))
    x = ops.reshape(x, (batch, height * factor, width, channels))
    previous = ops.concatenate([x[:, :, :1], x[:, :, :-1]], axis=2)
    following = ops.concatenate([x[:, :, 1:], x[:, :, -1:]], axis=2)
    x = interleaved(x, previous, following, (batch * height * factor * width, 1, channels))
    return ops.reshape(x, (batch, height * factor, width * factor, channels))
