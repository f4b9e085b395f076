"""How much the instances of several label maps of one image overlap, and which are duplicates."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_rpe.ops.loops import run_while

Tensor = Any


def label_overlaps(labels: Tensor, max_instances: int) -> Tensor:
    """Intersection over union of all instances of all maps of an image.

    The instances of each map are counted against those of the maps from it on in one pass over the
    pixels, so no mask is ever formed: memory is O(pixels · maps + (maps · max_instances)²).

    Args:
        labels: int32 label maps `(batch, H, W, S)` in [0, max_instances], 0 = background; S static.
        max_instances: Rows of each map in the result.

    Returns:
        float32 `(batch, S · max_instances, S · max_instances)` in [0, 1]; row
        s · max_instances + k - 1 is instance k of map s. 0 where there is no such instance.

    Source:
        The IoU of masks as in Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import label_overlaps
        >>> maps = np.array([[[[1, 1], [1, 1], [0, 1]]]], "int32")  # two maps of 1 x 3 pixels
        >>> (np.asarray(label_overlaps(maps, 1))[0] * 3).round(4).tolist()
        [[3.0, 2.0], [2.0, 3.0]]
    """
    scales = labels.shape[-1]
    rows = []
    for s in range(scales):
        later = _intersections(labels[..., s], labels[..., s:], max_instances)
        rows.append(ops.pad(later, [[0, 0], [0, 0], [s * max_instances, 0]]))
    upper = ops.concatenate(rows, axis=1)
    # Instances of one map share no pixel, so what is on the diagonal is the areas alone.
    areas = ops.sum(upper * ops.eye(scales * max_instances, dtype="float32"), axis=-1)
    intersections = ops.maximum(upper, ops.transpose(upper, (0, 2, 1)))
    unions = ops.expand_dims(areas, 1) + ops.expand_dims(areas, 2) - intersections
    return intersections / ops.maximum(unions, 1.0)


def greedy_suppression(overlaps: Tensor, scores: Tensor, valid: Tensor, most: float) -> Tensor:
    """Which candidates stay if each that overlaps too much with a better one that stays is dropped.

    That is non-maximum suppression, greedy from the best on. Here all candidates are decided at
    once, again until nothing changes, which comes to the same (Zheng et al., "Enhancing Geometric
    Factors in Model Learning and Inference for Object Detection and Instance Segmentation", 2020,
    section III-C).

    Args:
        overlaps: Symmetric float `(batch, P, P)` in [0, 1].
        scores: Float `(batch, P)`; of equal ones, the first is the better.
        valid: Boolean `(batch, P)`: candidates that are there.
        most: Largest overlap of two that stay.

    Returns:
        Boolean `(batch, P)`.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops import greedy_suppression
        >>> overlaps = np.array([[[1, 0.9, 0], [0.9, 1, 0.9], [0, 0.9, 1]]], "float32")
        >>> scores, valid = np.array([[0.9, 0.8, 0.7]], "float32"), np.ones((1, 3), bool)
        >>> np.asarray(greedy_suppression(overlaps, scores, valid, 0.5)).tolist()
        [[True, False, True]]
    """
    index = ops.arange(ops.shape(scores)[1], dtype="int32")
    first = ops.expand_dims(index, 0) < ops.expand_dims(index, 1)
    row, column = ops.expand_dims(scores, 2), ops.expand_dims(scores, 1)
    better = ops.logical_or(column > row, ops.logical_and(ops.equal(column, row), first))
    drops = ops.cast(ops.logical_and(better, overlaps > most), "float32")
    there = ops.cast(valid, "float32")

    def decide(kept: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        rivals = ops.matmul(drops, ops.expand_dims(kept, -1))[..., 0]
        new = there * ops.cast(rivals < 0.5, "float32")
        return new, ops.any(ops.not_equal(new, kept))

    start = (there, ops.any(valid))
    return run_while(lambda _, changed: changed, decide, start)[0] > 0.5


def _intersections(first: Tensor, labels: Tensor, max_instances: int) -> Tensor:
    """Pixels that the instances of one map share with those of others, `(batch, n, S · n)`."""
    batch, scales, side = ops.shape(labels)[0], labels.shape[-1], max_instances + 1
    table = ops.arange(batch * scales, dtype="int32") * (side * side)
    table = ops.reshape(table, (batch, 1, 1, scales))
    pairs = ops.reshape(ops.expand_dims(first * side, -1) + labels + table, (-1,))
    counts = ops.segment_sum(ops.ones_like(pairs), pairs, batch * scales * side * side)
    counts = ops.reshape(counts, (batch * scales, side, side))[:, 1:, 1:]
    counts = ops.reshape(counts, (batch, scales, max_instances, max_instances))
    counts = ops.transpose(counts, (0, 2, 1, 3))
    counts = ops.reshape(counts, (batch, max_instances, scales * max_instances))
    return ops.cast(counts, "float32")
