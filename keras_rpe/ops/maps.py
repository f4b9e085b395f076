"""Operations on maps: precision, resizing, sampling, windows and positions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rpe.ops.backend import take

Tensor = Any


def at_least_float32(x: Tensor) -> Tensor:
    """Cast float16 and bfloat16 to float32, and leave float32 and float64 as they are."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return ops.cast(x, "float32") if dtype in ("float16", "bfloat16") else x


def missing_to_multiple(length: Tensor | int, multiple: int) -> Tensor | int:
    """What must be added to a length, at least 0, to make it a multiple: in [0, multiple).

    No number on the way is negative: some runtimes round those to the other side, or give them
    remainders below zero.
    """
    return (length + multiple - 1) // multiple * multiple - length


def upsample_bilinear(x: Tensor, factor: int) -> Tensor:
    """Enlarge maps by linear interpolation between the centers of their cells.

    Maps are `(batch, H, W, C)` of any sizes, C static. The values are those of the usual bilinear
    resizing with half-pixel centers; beyond the outer centers the outer cells are repeated. Unlike
    a resizing operator it has a gradient under XLA.
    """
    x = ops.convert_to_tensor(x)
    if factor == 1:
        return x
    # Where the centers of the fine cells lie, in coarse cells from the center of their own.
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


def sample_nearest(x: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """Read a map `(batch, H, W, …)` on another grid, each cell at the pixel that holds its center.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops.maps import sample_nearest
        >>> np.asarray(sample_nearest(np.array([[[1, 2], [3, 4]]]), 2, 4)).tolist()
        [[[1, 1, 2, 2], [3, 3, 4, 4]]]
    """
    x = ops.convert_to_tensor(x)
    for axis, size in ((1, height), (2, width)):
        old = ops.shape(x)[axis]
        x = take(x, (2 * ops.arange(size) + 1) * old // (2 * size), axis=axis)
    return x


_EXACT = 4096.0
_PLACES = 1024.0  # Of a cell, which are told apart.
_BLOCK = 8  # Rows that are added one by one, since `cumsum` over long rows is slow.


def resample(
    x: Tensor,
    step: Tensor,
    height: Tensor | int,
    width: Tensor | int,
    start: Tensor | None = None,
    enlarges: bool = False,
) -> Tensor:
    """Read maps at another scale: the mean of a map over each new pixel.

    That is over one pixel at least, which is linear interpolation where a map is enlarged. Values
    are rounded to 12 binary places, so that sums over 4096 pixels are exact, and a part of a map
    gives what the whole does.

    Args:
        x: Maps `(batch, H, W, C)`, in [0, 1].
        step: Side of a new pixel in pixels of each map, `(batch,)`.
        height: Rows of the result.
        width: Columns of the result.
        start: Row and column where the result begins, in pixels, `(batch, 2)`; default: 0.
        enlarges: Whether the result has more pixels than the maps as a rule. Only the time depends
            on it, and how sums are rounded.

    Returns:
        `(batch, height, width, C)`; 0 beyond the map.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops.maps import resample
        >>> x = np.array([[0, 4], [8, 12]], "float32")[None, ..., None]
        >>> np.asarray(resample(x, np.array([2.0], "float32"), 1, 1)).ravel().tolist()
        [6.0]
        >>> np.asarray(resample(x, np.array([0.5], "float32"), 1, 4)).ravel().tolist()
        [0.0, 1.0, 3.0, 4.0]
    """
    begin = (0.0, 0.0) if start is None else (start[:, :1], start[:, 1:])

    def turned(x: Tensor) -> Tensor:
        return ops.transpose(x, (0, 2, 1, 3))

    def rows(x: Tensor) -> Tensor:
        return _means_of_rows(x, step, height, begin[0])

    def columns(x: Tensor) -> Tensor:
        return turned(_means_of_rows(turned(x), step, width, begin[1]))

    # Whole rows are copied faster, so they come where the map is largest.
    return rows(columns(x)) if enlarges else columns(rows(x))


def _means_of_rows(x: Tensor, step: Tensor, count: Tensor | int, start: Tensor | float) -> Tensor:
    x = ops.round(x * _EXACT) / _EXACT
    length = ops.cast(ops.shape(x)[1], x.dtype)
    step = ops.expand_dims(step, 1)
    center = start + (ops.cast(ops.arange(count), x.dtype) + 0.5) * step
    half = 0.5 * ops.maximum(step, 1.0)
    low, high = (ops.clip(one, 0.0, length) for one in (center - half, center + half))
    first, last = (ops.cast(ops.floor(one), "int32") for one in (low, high))
    sums = _sums_before(x)
    # Whole pixels by differences of their sums, then the shares of those that are cut.
    total = _rows(sums, last) - _rows(sums, first)
    x = ops.pad(x, [[0, 0], [0, 1], [0, 0], [0, 0]])
    total += _of_rows(high - ops.cast(last, x.dtype)) * _rows(x, last)
    total -= _of_rows(low - ops.cast(first, x.dtype)) * _rows(x, first)
    wide = _of_rows(high - low)
    return total / ops.where(wide > 0, wide, 1.0)


def _sums_before(x: Tensor) -> Tensor:
    """The sum of the rows before each row, and of all, in a tenth of the time of `cumsum`."""
    batch, length, width = ops.shape(x)[:3]
    more = missing_to_multiple(length + 1, _BLOCK)
    x = ops.pad(x, [[0, 0], [1, more], [0, 0], [0, 0]])
    rows = ops.reshape(x, (batch, (length + 1 + more) // _BLOCK, _BLOCK, width * x.shape[-1]))
    sums = list(itertools.accumulate(rows[:, :, k] for k in range(_BLOCK)))
    before = ops.expand_dims(ops.cumsum(sums[-1], axis=1) - sums[-1], 2)
    return ops.reshape(ops.stack(sums, axis=2) + before, ops.shape(x))


def _of_rows(x: Tensor) -> Tensor:
    """Numbers of rows `(batch, n)` as `(batch, n, 1, 1)`."""
    return ops.expand_dims(ops.expand_dims(x, -1), -1)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows `index[b]` of each map `x[b]`."""
    batch, length = ops.shape(x)[0], ops.shape(x)[1]
    first = ops.reshape(ops.arange(batch, dtype="int32") * length, (batch, 1))
    return take(ops.reshape(x, (batch * length, *ops.shape(x)[2:])), index + first, axis=0)


def enlarge_labels(
    labels: Tensor,
    step: Tensor,
    height: Tensor | int,
    width: Tensor | int,
    start: Tensor | None = None,
) -> Tensor:
    """Read label maps at a finer scale with smooth edges.

    A pixel takes the label of which the four cells around it have most, each weighing as in linear
    interpolation; 0 only where all four are 0.

    Args:
        labels: int32 `(batch, h, w)`, 0 = no label.
        step: Side of a pixel in cells of each map, `(batch,)`.
        height: Rows of the result.
        width: Columns of the result.
        start: Row and column where the result begins, in cells, `(batch, 2)`; default: 0.
    """
    dtype, found = step.dtype, []
    for axis, size in enumerate((height, width)):
        length = ops.shape(labels)[axis + 1]
        begin = 0.0 if start is None else start[:, axis : axis + 1]
        place = (ops.cast(ops.arange(size), dtype) + 0.5) * ops.expand_dims(step, 1) - 0.5 + begin
        # In the middle between two cells exactly, wherever a part of a map begins.
        place = ops.round(place * _PLACES) / _PLACES
        place = ops.clip(place, 0.0, ops.cast(length - 1, dtype))
        low = ops.minimum(ops.cast(ops.floor(place), "int32"), length - 1)
        found.append((low, place - ops.cast(low, dtype), length))
    (top, down, _), (left, across, last) = found
    down, across = ops.expand_dims(down, 2), ops.expand_dims(across, 1)
    # What is known of the four cells before rows are copied costs little: (batch, h, width).
    sides = ops.transpose(labels, (0, 2, 1))
    sides = [
        ops.transpose(_rows(sides, index), (0, 2, 1))
        for index in (left, ops.minimum(left + 1, last - 1))
    ]
    cells = [*sides, *(ops.concatenate([side[:, 1:], side[:, -1:]], axis=1) for side in sides)]
    shares = [(1.0 - across, across)[k % 2] * ops.cast(cells[k] > 0, dtype) for k in range(4)]
    best: Any = None
    for cell in cells:
        same = [ops.cast(ops.equal(cell, other), dtype) * w for other, w in zip(cells, shares)]
        above, below = same[0] + same[1], same[2] + same[3]
        votes = _rows(above, top) + down * _rows(below - above, top)
        label = _rows(cell, top)
        if best is None:
            best, most = label, votes
        else:
            best, most = ops.where(votes > most, label, best), ops.maximum(votes, most)
    return best


def partition_windows(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cut a map `(batch, H, W, D)` into windows of equal size, as few and as equal as cover it.

    No side is longer than `size`. Gives the windows as lists of points,
    `(batch · windows, points, D)`, and which points are real (1) or padding (0), of the dtype of
    `x`, `(batch · windows, points, 1)`.
    """
    x = ops.convert_to_tensor(x)
    return _cut(x, size), _cut(ops.ones_like(x[..., :1]), size)


def merge_windows(windows: Tensor, shape: tuple[Any, ...], size: int) -> Tensor:
    """Undo `partition_windows` for lists of points, given the `(batch, H, W, …)` that was cut."""
    batch, height, width = shape[:3]
    (rows, h), (columns, w) = window_grid(height, size), window_grid(width, size)
    x = ops.reshape(windows, (batch, rows, columns, h, w, windows.shape[-1]))
    x = ops.reshape(
        ops.transpose(x, (0, 1, 3, 2, 4, 5)), (batch, rows * h, columns * w, windows.shape[-1])
    )
    return x[:, :height, :width]


WindowGrid = tuple[tuple[int, ...], tuple[int, ...]]
"""Side of windows, and how many cells of the first are missing, of rows and of columns.

A third number says how many windows there are. Then a negative number may be missing: cells before
the windows, and those behind them, count as the ends of the first and the last, as far as they see.
"""


def overlapping_windows(
    x: Tensor,
    size: int,
    overlap: int,
    grid: WindowGrid | None = None,
    only: Tensor | None = None,
) -> Tensor:
    """Cut a map `(batch, H, W, …)` into windows that show `overlap` cells of their neighbors.

    The windows themselves are those of `partition_windows`, or those of a larger map of which this
    one is a part, by their `grid`; all are widened alike, as far as the map goes.
    `(batch · windows, points, …)`; nothing is padded. With `only`, the index of one of the windows
    of each image, `(batch, points, …)`.
    """
    batch, height, width = ops.shape(x)[:3]
    (rows, high, down, _), (columns, wide, across, _) = _overlaps(x, size, overlap, grid)
    if only is not None:
        down = take(down, ops.expand_dims(only // columns, 0), axis=0)
        across = take(across, ops.expand_dims(only % columns, 0), axis=0)
        rows = columns = 1
    down, across = ops.reshape(down, (rows, 1, high, 1)), ops.reshape(across, (columns, 1, wide))
    index = ops.reshape(down * width + across, (1, rows * columns, high * wide))
    index += ops.reshape(ops.arange(batch, dtype="int32") * (height * width), (batch, 1, 1))
    index = ops.reshape(index, (batch * rows * columns, high * wide))
    return take(ops.reshape(x, (batch * height * width, *x.shape[3:])), index, axis=0)


def overlapping_window_count(
    x: Tensor, size: int, overlap: int, grid: WindowGrid | None = None
) -> Tensor | int:
    """How many windows `overlapping_windows` cuts an image of a map into."""
    (rows, *_), (columns, *_) = _overlaps(x, size, overlap, grid)
    return rows * columns


def join_windows(
    windows: Tensor, like: Tensor, size: int, overlap: int, grid: WindowGrid | None = None
) -> Tensor:
    """Undo `overlapping_windows` of a map `like`: each cell is taken from its own window."""
    batch = ops.shape(like)[0]
    (rows, high, _, down), (columns, wide, _, across) = _overlaps(like, size, overlap, grid)
    # Of the window and the place in it along both axes.
    first = ops.expand_dims(down // high * columns * (high * wide) + down % high * wide, 1)
    index = first + ops.expand_dims(across // wide * (high * wide) + across % wide, 0)
    start = ops.arange(batch, dtype="int32") * (rows * columns * high * wide)
    index = ops.reshape(start, (batch, 1, 1)) + index
    points = batch * rows * columns * high * wide
    return take(ops.reshape(windows, (points, *windows.shape[2:])), index, axis=0)


def _overlaps(x: Tensor, size: int, overlap: int, grid: WindowGrid | None) -> list[tuple[Any, ...]]:
    """Of rows and columns: windows, the side of each, where its cells are, and whence they return.

    Where they are is `(windows, side)`; the last index is among the cells of all windows.
    """
    found = []
    for axis, length in enumerate(ops.shape(x)[1:3]):
        counts: Any = ()
        if grid is None:
            (count, own), missing = window_grid(length, size), 0
        else:
            own, missing, *counts = grid[axis]
            count = counts[0] if counts else (length + missing + own - 1) // own
        known = isinstance(length, int)
        side = min(own + 2 * overlap, length) if known else ops.minimum(own + 2 * overlap, length)
        start = ops.clip(ops.arange(count) * own - missing - overlap, 0, length - side)
        cells = ops.expand_dims(start, 1) + ops.expand_dims(ops.arange(side), 0)
        window = (ops.arange(length) + missing) // own
        if counts:
            window = ops.clip(window, 0, count - 1)
        place = ops.arange(length) - take(start, window)
        back = window * side + (ops.clip(place, 0, side - 1) if counts else place)
        found.append((count, side, cells, back))
    return found


def window_grid(length: Tensor | int, size: int) -> tuple[Tensor | int, Tensor | int]:
    """Number of windows along an axis and the side of each."""
    # Of no negative number, whose quotient some runtimes round to the other side.
    count = (length + size - 1) // size
    return count, (length + count - 1) // count


def _cut(x: Tensor, size: int) -> Tensor:
    batch, height, width = ops.shape(x)[:3]
    (rows, h), (columns, w) = window_grid(height, size), window_grid(width, size)
    x = ops.pad(x, [[0, 0], [0, rows * h - height], [0, columns * w - width], [0, 0]])
    x = ops.reshape(x, (batch, rows, h, columns, w, x.shape[-1]))
    return ops.reshape(
        ops.transpose(x, (0, 1, 3, 2, 4, 5)), (batch * rows * columns, h * w, x.shape[-1])
    )


def coordinate_channels(x: Tensor) -> Tensor:
    """Row and column of each pixel of a map, from -1 to 1 across it: `(batch, H, W, 2)`."""
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
    down, across = rotation_speeds(half, periods)
    rows, columns = _indices(x)
    angle = rows * _exact(down, x) + columns * _exact(across, x)
    cos, sin, real, imaginary = ops.cos(angle), ops.sin(angle), x[..., :half], x[..., half:]
    return ops.concatenate([real * cos - imaginary * sin, real * sin + imaginary * cos], axis=-1)


def rotation_speeds(half: int, periods: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The angle by which `rotate_by_position` turns each channel for a step down and across."""
    turns = math.ceil(half / len(periods))
    index = np.arange(half)
    speed = 2 * math.pi / np.asarray(periods, "float64")[index % len(periods)]
    direction = math.pi * (index // len(periods)) / turns
    return speed * np.sin(direction), speed * np.cos(direction)


def _exact(values: np.ndarray, like: Tensor) -> Tensor:
    """Numbers, to 24 binary places, that files in float16 do not round as they do constants.

    They are integers, which are not rounded, plus a 0 that no converter knows beforehand.
    """
    whole = ops.convert_to_tensor(np.round(values * 2**24).astype("int32"))
    unknown = ops.minimum(ops.cast(ops.shape(like)[1], "int32"), 0)
    return ops.cast(whole + unknown, like.dtype) / 4096.0 / 4096.0


def _indices(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row `(1, H, 1, 1)` and column `(1, 1, W, 1)` indices of a map, in its dtype."""
    height, width = ops.shape(x)[1], ops.shape(x)[2]
    rows = ops.reshape(ops.cast(ops.arange(height), x.dtype), (1, height, 1, 1))
    return rows, ops.reshape(ops.cast(ops.arange(width), x.dtype), (1, 1, width, 1))
