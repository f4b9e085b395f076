"""Reading a map at another resolution, with sizes that are known only when the graph runs."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def sample_nearest(x: Tensor, height: Tensor | int, width: Tensor | int) -> Tensor:
    """Read a map on a grid of another size, each cell at the pixel that holds its centre.

    Args:
        x: Map of any dtype, shape `(batch, H, W, ...)`.
        height: Rows of the result, a Python integer or a scalar tensor.
        width: Columns of the result.

    Returns:
        Shape `(batch, height, width, ...)`, the dtype of `x`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import sample_nearest
        >>> np.asarray(sample_nearest(np.array([[[1, 2], [3, 4]]]), 2, 4)).tolist()
        [[[1, 1, 2, 2], [3, 3, 4, 4]]]
    """
    x = ops.convert_to_tensor(x)
    for axis, size in ((1, height), (2, width)):
        old = ops.shape(x)[axis]
        x = ops.take(x, (2 * ops.arange(size) + 1) * old // (2 * size), axis=axis)
    return x
