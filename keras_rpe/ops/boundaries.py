"""Thinning of boundary maps by non-maximum suppression."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.ops.backend import take

Tensor = Any


def thin_boundaries(
    boundaries: Tensor, radius: int = 4, tolerance: float = 0.01, border: int = 0
) -> Tensor:
    """Keep the crest of each boundary and set the rest to 0.

    The map is smoothed with a triangle filter; the direction in which its second derivative is of
    the largest amount is that across the boundary. A pixel stays if the map, read one pixel to
    either side in that direction, is nowhere higher. Lines are one to two pixels wide then.

    Args:
        boundaries: How likely each pixel is a boundary, `(batch, H, W)`, floats.
        radius: Radius of the triangle filter, in pixels, at least 0.
        tolerance: Share by which a neighbor may be higher, so that level crests stay.
        border: Over that many pixels from the sides of the image the result rises linearly from 0,
            as networks see the sides as boundaries; 0: not at all.

    Returns:
        `(batch, H, W)`: the value of the map, or 0.

    Raises:
        ValueError: If an argument is out of its range, or the map has another rank.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import thin_boundaries
        >>> ridge = np.tile(np.array([0, 0.2, 0.6, 0.9, 0.5, 0.1, 0], "float32"), (1, 5, 1))
        >>> np.asarray(thin_boundaries(ridge))[0, 2].astype(float).round(1).tolist()
        [0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.0]
    """
    check_integer("radius", radius, 0)
    check_integer("border", border, 0)
    check_number("tolerance", tolerance, "[0, 1)")
    maps = ops.convert_to_tensor(boundaries)
    if len(maps.shape) != 3:
        raise ValueError(
            f"`boundaries` must be of shape (batch, H, W). Received: shape={tuple(maps.shape)}"
        )
    column, row = _across(_smoothed(maps, radius))
    higher = ops.maximum(
        _read(maps, column, row, forward=True), _read(maps, column, row, forward=False)
    )
    thin = ops.where((1.0 + tolerance) * maps >= higher, maps, ops.zeros_like(maps))
    return thin * _rise(thin, border) if border else thin


def _across(smooth: Tensor) -> tuple[Tensor, Tensor]:
    """The unit vector across the crest: its columns, not negative, and its rows."""
    at = _shifts(smooth)
    down_up = at(1, 0) + at(-1, 0) - 2.0 * smooth
    right_left = at(0, 1) + at(0, -1) - 2.0 * smooth
    twist = 0.25 * (at(1, 1) + at(-1, -1) - at(1, -1) - at(-1, 1))
    # The eigenvector of the eigenvalue of the larger amount, by the cosine of its doubled angle. On
    # the flanks of a crest that one is positive, and the other would point along the crest.
    sign = ops.where(down_up + right_left > 0, -1.0, 1.0)
    spread, twist = sign * (down_up - right_left), sign * twist
    cosine = spread / ops.sqrt(ops.maximum(spread**2 + 4.0 * twist**2, 1e-24))
    column = ops.sqrt(ops.maximum(0.5 + 0.5 * cosine, 0.0))
    row = ops.sqrt(ops.maximum(0.5 - 0.5 * cosine, 0.0))
    return column, ops.where(twist > 0, -row, row)


def _read(maps: Tensor, column: Tensor, row: Tensor, forward: bool) -> Tensor:
    """The map one pixel away along a unit vector, between pixels by linear interpolation."""
    at, step = _shifts(maps), 1 if forward else -1
    down, right = ops.abs(row), column
    beside, diagonal = (
        ops.where(row >= 0, at(step, columns), at(-step, columns)) for columns in (0, step)
    )
    near = (1.0 - right) * maps + right * at(0, step)
    return (1.0 - down) * near + down * ((1.0 - right) * beside + right * diagonal)


def _shifts(maps: Tensor) -> Any:
    """A function that gives the map read some rows below and columns to the right, -1, 0 or 1."""
    height, width = ops.shape(maps)[1], ops.shape(maps)[2]
    padded = _extended(maps, 1)

    def at(rows: int, columns: int) -> Tensor:
        return padded[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]

    return at


def _extended(maps: Tensor, margin: int) -> Tensor:
    """The map with its outer pixels repeated."""
    for axis in (1, 2):
        size = ops.shape(maps)[axis]
        index = ops.clip(ops.arange(-margin, size + margin), 0, size - 1)
        maps = take(maps, index, axis=axis)
    return maps


def _smoothed(maps: Tensor, radius: int) -> Tensor:
    if radius == 0:
        return maps
    weights = np.minimum(np.arange(1, 2 * radius + 2), np.arange(2 * radius + 1, 0, -1))
    kernel = ops.cast((weights / weights.sum()).reshape(-1, 1, 1, 1), maps.dtype)
    x = ops.expand_dims(_extended(maps, radius), -1)
    x = ops.conv(x, kernel, padding="valid")
    return ops.conv(x, ops.transpose(kernel, (1, 0, 2, 3)), padding="valid")[..., 0]


def _rise(maps: Tensor, border: int) -> Tensor:
    """From 0 at the sides to 1 that many pixels inside."""

    def along(size: Tensor) -> Tensor:
        place = ops.arange(size)
        return ops.cast(ops.minimum(place, size - 1 - place), maps.dtype) / border

    rows, columns = along(ops.shape(maps)[1]), along(ops.shape(maps)[2])
    return ops.minimum(ops.minimum(ops.expand_dims(rows, -1), columns), 1.0)
