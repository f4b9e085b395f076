"""Cutting a map into windows of at most a given side, and putting it together again."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def partition_windows(x: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cut a map into windows of equal size, as few and as equal as cover it.

    Args:
        x: Map of shape `(batch, H, W, D)`, D static.
        size: Longest side of a window.

    Returns:
        The windows as lists of points, `(batch · windows, points, D)`, and which points are real
        (1) or padding (0), `(batch · windows, points, 1)`, of the dtype of `x`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import merge_windows, partition_windows
        >>> x = np.random.rand(2, 70, 30, 4).astype("float32")
        >>> windows, real = partition_windows(x, 32)
        >>> tuple(windows.shape), bool(np.all(merge_windows(windows, x.shape, 32) == x))
        ((6, 720, 4), True)
    """
    x = ops.convert_to_tensor(x)
    return _cut(x, size), _cut(ops.ones_like(x[..., :1]), size)


def merge_windows(windows: Tensor, shape: tuple[Any, ...], size: int) -> Tensor:
    """Undo `partition_windows`.

    Args:
        windows: Lists of points, `(batch · windows, points, D)`, D static.
        shape: Shape of the map that was cut, `(batch, H, W, ...)`, of integers or scalar tensors.
        size: Longest side of a window, as when it was cut.

    Returns:
        Map of shape `(batch, H, W, D)`.
    """
    batch, height, width = shape[:3]
    (rows, h), (columns, w) = _grid(height, size), _grid(width, size)
    x = ops.reshape(windows, (batch, rows, columns, h, w, windows.shape[-1]))
    x = ops.reshape(
        ops.transpose(x, (0, 1, 3, 2, 4, 5)), (batch, rows * h, columns * w, windows.shape[-1])
    )
    return x[:, :height, :width]


def _grid(length: Tensor | int, size: int) -> tuple[Tensor | int, Tensor | int]:
    """Number of windows along an axis and the side of each."""
    # Of no negative number, whose quotient some runtimes round to the other side.
    count = (length + size - 1) // size
    return count, (length + count - 1) // count


def _cut(x: Tensor, size: int) -> Tensor:
    batch, height, width = ops.shape(x)[:3]
    (rows, h), (columns, w) = _grid(height, size), _grid(width, size)
    x = ops.pad(x, [[0, 0], [0, rows * h - height], [0, columns * w - width], [0, 0]])
    x = ops.reshape(x, (batch, rows, h, columns, w, x.shape[-1]))
    return ops.reshape(
        ops.transpose(x, (0, 1, 3, 2, 4, 5)), (batch * rows * columns, h * w, x.shape[-1])
    )
