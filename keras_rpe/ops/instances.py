"""Areas, scores and boxes of labelled instances inside the graph, in tables of a fixed length."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any


def label_areas(labels: Tensor) -> Tensor:
    """Area of the component that each pixel belongs to.

    Args:
        labels: int32 labels in [0, number of pixels of the batch], shape `(batch, H, W)`, as
            `connected_components` gives them.

    Returns:
        int32 `(batch, H, W)`: pixels that share the label; 0 at label 0.
    """
    flat = ops.reshape(labels, (-1,))
    count = ops.segment_sum(ops.cast(flat > 0, "int32"), flat, ops.size(flat) + 1)
    return ops.reshape(ops.take(count, flat, axis=0), ops.shape(labels))


def number_labels(labels: Tensor, max_instances: int) -> tuple[Tensor, Tensor]:
    """Renumber components 1, 2, … in the order of their last pixels, image by image.

    Args:
        labels: As `connected_components` gives them: int32 `(batch, H, W)`, each component named
            by 1 + the flat index, in the whole batch, of a pixel of its image.
        max_instances: Components beyond that many in an image become background.

    Returns:
        Labels int32 `(batch, H, W)` in [0, max_instances], and how many components each image
        has, int32 `(batch,)`, at most `max_instances`.
    """
    shape = ops.shape(labels)
    flat = ops.reshape(labels, (-1,))
    # The pixel that names a component need not be part of it, so pixels are counted by name.
    present = ops.segment_sum(ops.cast(flat > 0, "int32"), flat, ops.size(flat) + 1)
    present = ops.reshape(ops.cast(present[1:] > 0, "int32"), (shape[0], shape[1] * shape[2]))
    number = ops.cumsum(present, axis=1) * present
    number = ops.where(number > max_instances, ops.zeros_like(number), number)
    table = ops.concatenate([ops.zeros((1,), "int32"), ops.reshape(number, (-1,))], axis=0)
    return ops.reshape(ops.take(table, flat, axis=0), shape), ops.max(number, axis=1)


def instance_means(values: Tensor, labels: Tensor, max_instances: int) -> Tensor:
    """Mean of a map inside each instance.

    Args:
        values: Map of floats, shape `(batch, H, W)` or `(batch, H, W, C)`.
        labels: int32 `(batch, H, W)` in [0, max_instances], 0 = background.
        max_instances: Rows of the result.

    Returns:
        Shape `(batch, max_instances)` or `(batch, max_instances, C)`; row k - 1 is instance k,
        rows without an instance are 0.
    """
    rank = len(values.shape)
    values = values if rank == 4 else ops.expand_dims(values, -1)
    depth = values.shape[-1]
    segments, count = _segments(labels, max_instances)
    ones = ops.ones_like(values[..., :1])
    values = ops.reshape(ops.concatenate([values, ones], axis=-1), (-1, depth + 1))
    sums = ops.segment_sum(values, segments, count)
    sums = ops.reshape(sums, (-1, max_instances + 1, depth + 1))[:, 1:]
    means = sums[..., :-1] / ops.maximum(sums[..., -1:], 1.0)
    return means if rank == 4 else means[..., 0]


def instance_boxes(labels: Tensor, max_instances: int) -> Tensor:
    """Bounding box of each instance.

    Args:
        labels: int32 `(batch, H, W)` in [0, max_instances], 0 = background.
        max_instances: Rows of the result.

    Returns:
        int32 `(batch, max_instances, 4)`: first row, first column, last row + 1, last column + 1,
        in pixels; zeros for rows without an instance.
    """
    height, width = ops.shape(labels)[1], ops.shape(labels)[2]
    zero = ops.zeros_like(labels)
    row = ops.reshape(ops.arange(height, dtype="int32"), (1, height, 1)) + zero
    column = ops.reshape(ops.arange(width, dtype="int32"), (1, 1, width)) + zero
    ends = ops.stack([height - row, width - column, row + 1, column + 1], axis=-1)
    segments, count = _segments(labels, max_instances)
    # The minimum of a coordinate is the maximum of its distance from the far side.
    ends = ops.segment_max(ops.reshape(ends, (-1, 4)), segments, count)
    ends = ops.reshape(ends, (-1, max_instances + 1, 4))[:, 1:]
    ends = ops.maximum(ends, 0)
    there = ops.cast(ends[..., 2:3] > 0, "int32")
    first = ops.concatenate([height - ends[..., 0:1], width - ends[..., 1:2]], axis=-1)
    return ops.concatenate([first * there, ends[..., 2:]], axis=-1)


def _segments(labels: Tensor, max_instances: int) -> tuple[Tensor, Tensor]:
    batch = ops.shape(labels)[0]
    offset = ops.reshape(ops.arange(batch, dtype="int32") * (max_instances + 1), (batch, 1, 1))
    return ops.reshape(labels + offset, (-1,)), batch * (max_instances + 1)
