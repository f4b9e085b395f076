"""Connected components of pixels inside the graph."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_rpe.ops.loops import run_while

Tensor = Any

# Half of the eight neighbours; the links of the other half are the same ones seen from there.
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def shift_map(x: Tensor, rows: int, columns: int) -> Tensor:
    """The neighbour of each pixel: `result[:, i, j] = x[:, i + rows, j + columns]`, 0 outside.

    Args:
        x: Map of shape `(batch, H, W)` or `(batch, H, W, D)`.
        rows: Offset in rows, any sign.
        columns: Offset in columns, any sign.

    Returns:
        The shape and dtype of `x`.
    """
    height, width = ops.shape(x)[1], ops.shape(x)[2]
    before, after = (max(-rows, 0), max(-columns, 0)), (max(rows, 0), max(columns, 0))
    padding = [[0, 0], [before[0], after[0]], [before[1], after[1]]]
    x = ops.pad(x, padding + [[0, 0]] * (len(x.shape) - 3))
    return x[:, after[0] : after[0] + height, after[1] : after[1] + width]


def embedding_links(x: Tensor, foreground: Tensor, similarity: float) -> list[Tensor]:
    """Which neighbouring pixels belong together: both foreground, and alike in their embedding.

    Args:
        x: Unit embeddings, shape `(batch, H, W, D)`.
        foreground: Boolean, shape `(batch, H, W)`.
        similarity: Least calibrated cosine similarity (1 + cos)/2 of a link, in [0, 1].

    Returns:
        One boolean map `(batch, H, W)` for each of `NEIGHBOURS`, whether the pixel is linked to
        the neighbour at that offset.
    """
    links = []
    for rows, columns in NEIGHBOURS:
        s = 0.5 + 0.5 * ops.sum(x * shift_map(x, rows, columns), axis=-1)
        # Booleans are shifted as integers, since mobile runtimes cannot pad booleans.
        beside = shift_map(ops.cast(foreground, "int32"), rows, columns) > 0
        links.append(ops.logical_and(ops.logical_and(foreground, beside), s >= similarity))
    return links


def connected_components(foreground: Tensor, links: list[Tensor]) -> Tensor:
    """Label the connected components of a graph of pixels.

    Each pixel takes the largest label among its linked neighbours, then the label of the pixel
    that its label names, until nothing changes: the second step doubles the distance that labels
    have travelled, so the number of rounds grows with the logarithm of an object's extent, except
    for long spirals.

    Args:
        foreground: Boolean, shape `(batch, H, W)`.
        links: For each of `NEIGHBOURS`, a boolean map `(batch, H, W)`.

    Returns:
        int32 `(batch, H, W)`: 0 outside the foreground, and inside 1 + the flat index, in the
        whole batch, of the last pixel of the component: different for all components.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import connected_components, embedding_links
        >>> mask = np.array([[[1, 1, 0, 1]]], bool)
        >>> links = embedding_links(np.ones((1, 1, 4, 1), "float32"), mask, 0.9)
        >>> np.asarray(connected_components(mask, links)).tolist()
        [[[2, 2, 0, 4]]]
    """
    foreground = ops.cast(foreground, "int32")
    shape = ops.shape(foreground)
    pixels = shape[0] * shape[1] * shape[2]
    start = ops.reshape(ops.arange(1, pixels + 1, dtype="int32"), shape) * foreground
    forward = [ops.cast(link, "int32") for link in links]
    backward = [shift_map(link, -r, -c) for link, (r, c) in zip(forward, NEIGHBOURS)]

    def body(labels: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        new = labels
        for (rows, columns), to, back in zip(NEIGHBOURS, forward, backward):
            new = ops.maximum(new, to * shift_map(new, rows, columns))
            new = ops.maximum(new, back * shift_map(new, -rows, -columns))
        # Label 0 reads entry 0, the background.
        named = ops.concatenate([ops.zeros((1,), "int32"), ops.reshape(new, (-1,))], axis=0)
        new = ops.maximum(new, ops.take(named, new, axis=0))
        return new, ops.any(new != labels)

    return run_while(lambda labels, changed: changed, body, (start, ops.any(start > 0)))[0]


def grow_labels(labels: Tensor, foreground: Tensor, steps: int) -> Tensor:
    """Give unlabelled foreground pixels the label of a neighbour, a pixel further at each step.

    Args:
        labels: int32, shape `(batch, H, W)`, 0 = unlabelled.
        foreground: Boolean, shape `(batch, H, W)`.
        steps: How many pixels the labels may grow.

    Returns:
        int32 `(batch, H, W)`.
    """
    free = ops.cast(foreground, "int32")
    for _ in range(steps):
        beside = labels
        for rows, columns in NEIGHBOURS:
            for sign in (1, -1):
                beside = ops.maximum(beside, shift_map(labels, sign * rows, sign * columns))
        labels = ops.where(labels > 0, labels, beside * free)
    return labels
