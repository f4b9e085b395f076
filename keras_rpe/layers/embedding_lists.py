"""Maps of embeddings as lists of points, one for each window or image, and back."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from keras_rpe.ops import merge_windows, partition_windows, sample_nearest

Tensor = Any


def embedding_lists(
    x: Tensor, weights: Tensor | None, window_size: int | None
) -> tuple[Tensor, Tensor | None]:
    """Lay out embeddings as lists that are grouped each for itself.

    Args:
        x: `(batch, N, D)`, taken as it is, or `(batch, H, W, D)`.
        weights: `(batch, N)`, or `(batch, H', W')` with H' and W' the same whole multiple of H
            and W, read at the centres of the cells; or `None`.
        window_size: Longest side of the windows that a map is cut into, or `None`.

    Returns:
        Points `(lists, N, D)` and weights `(lists, N, 1)`, 0 where a window is padded; `None`
        where all are 1.
    """
    if weights is not None:
        weights = ops.cast(weights, x.dtype)
    if len(x.shape) == 3:
        return x, None if weights is None else ops.expand_dims(weights, -1)
    batch, height, width = ops.shape(x)[:3]
    if weights is not None:
        weights = ops.expand_dims(sample_nearest(weights, height, width), -1)
    if window_size:
        x, real = partition_windows(x, window_size)
        if weights is not None:
            real = real * partition_windows(weights, window_size)[0]
        return x, real
    pixels = height * width
    if weights is not None:
        weights = ops.reshape(weights, (batch, pixels, 1))
    return ops.reshape(x, (batch, pixels, x.shape[-1])), weights


def embedding_map(
    lists: Tensor, like: Tensor, window_size: int | None, lead: tuple[int, ...] = ()
) -> Tensor:
    """Undo `embedding_lists`.

    Args:
        lists: Points `(*lead, lists, N, D)`.
        like: The embeddings that were laid out.
        window_size: As when they were.
        lead: Further dimensions in front.

    Returns:
        The shape of `like`, after `lead`.
    """
    shape, depth = ops.shape(like), like.shape[-1]
    if window_size and len(like.shape) == 4:
        size = ops.shape(lists)
        # The windows of all loops are put back in one go, as of one larger batch.
        copies = math.prod(lead)
        lists = ops.reshape(lists, (copies * size[-3], size[-2], depth)) if lead else lists
        lists = merge_windows(lists, (copies * shape[0], shape[1], shape[2]), window_size)
    return ops.reshape(lists, (*lead, *shape[:-1], depth))
