"""Operations on integer label maps: connected components, tables of instances, overlaps."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from keras_rpe.ops.backend import places, run_while, take

Tensor = Any

_BISECTIONS = 24  # As many as float32 has digits.
# Half of the eight neighbors; the links of the other half are the same ones seen from there.
NEIGHBORS = ((0, 1), (1, 0), (1, 1), (1, -1))


def shift_map(x: Tensor, rows: int, columns: int) -> Tensor:
    """The neighbor of each pixel: `result[:, i, j] = x[:, i + rows, j + columns]`, 0 outside.

    `x` is `(batch, H, W)` or `(batch, H, W, D)`; the offsets have any sign.
    """
    height, width = ops.shape(x)[1], ops.shape(x)[2]
    before, after = (max(-rows, 0), max(-columns, 0)), (max(rows, 0), max(columns, 0))
    padding = [[0, 0], [before[0], after[0]], [before[1], after[1]]]
    x = ops.pad(x, padding + [[0, 0]] * (len(x.shape) - 3))
    return x[:, after[0] : after[0] + height, after[1] : after[1] + width]


def embedding_links(x: Tensor, foreground: Tensor, similarity: float) -> list[Tensor]:
    """Which neighboring pixels belong together: both foreground, and alike in their embedding.

    Of unit embeddings `(batch, H, W, D)` and a boolean foreground `(batch, H, W)`: for each of
    `NEIGHBORS` whether a pixel is linked to the one at that offset, boolean `(batch, H, W)`.
    `similarity` is the least calibrated cosine similarity (1 + cos)/2 of a link, in [0, 1].
    """
    links = []
    for rows, columns in NEIGHBORS:
        s = 0.5 + 0.5 * ops.sum(x * shift_map(x, rows, columns), axis=-1)
        # Booleans are shifted as integers, since mobile runtimes cannot pad booleans.
        beside = shift_map(ops.cast(foreground, "int32"), rows, columns) > 0
        links.append(ops.logical_and(ops.logical_and(foreground, beside), s >= similarity))
    return links


def connected_components(foreground: Tensor, links: list[Tensor]) -> Tensor:
    """Label the connected components of a graph of pixels.

    Each pixel takes the largest label among its linked neighbors, then the label of the pixel that
    its label names, until nothing changes: the second step doubles the distance that labels have
    travelled, so the number of rounds grows with the logarithm of an object's extent, except for
    long spirals.

    Args:
        foreground: Boolean, shape `(batch, H, W)`.
        links: For each of `NEIGHBORS`, a boolean map `(batch, H, W)`.

    Returns:
        int32 `(batch, H, W)`: 0 outside the foreground, and inside 1 + the flat index, in the whole
        batch, of the last pixel of the component: different for all components.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops.labels import connected_components, embedding_links
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
    backward = [shift_map(link, -r, -c) for link, (r, c) in zip(forward, NEIGHBORS)]

    def body(labels: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        new = labels
        for (rows, columns), to, back in zip(NEIGHBORS, forward, backward):
            new = ops.maximum(new, to * shift_map(new, rows, columns))
            new = ops.maximum(new, back * shift_map(new, -rows, -columns))
        new = ops.maximum(new, _renamed(new, new))
        return new, ops.any(new != labels)

    return run_while(lambda labels, changed: changed, body, (start, ops.any(start > 0)))[0]


def grow_labels(labels: Tensor, foreground: Tensor) -> Tensor:
    """Give unlabeled foreground pixels the label of a neighbor, until no neighbor has one.

    `labels` is int32 `(batch, H, W)`, 0 = unlabeled, and `foreground` boolean.
    """
    free = ops.cast(foreground, "int32")

    def grow(labels: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        beside = labels
        for rows, columns in NEIGHBORS[:2]:  # Across, and then down: all eight neighbors.
            sides = [shift_map(beside, sign * rows, sign * columns) for sign in (1, -1)]
            beside = ops.maximum(beside, ops.maximum(*sides))
        grown = ops.where(labels > 0, labels, beside * free)
        return grown, ops.any(ops.not_equal(grown, labels))

    return run_while(lambda _, changed: changed, grow, (labels, ops.any(foreground)))[0]


def label_areas(labels: Tensor) -> Tensor:
    """Area of the component that each pixel belongs to, int32 `(batch, H, W)`, 0 at label 0.

    Labels are in [0, number of pixels of the batch], as `connected_components` gives them.
    """
    flat = ops.reshape(labels, (-1,))
    count = ops.segment_sum(ops.cast(flat > 0, "int32"), flat, ops.size(flat) + 1)
    return ops.reshape(take(count, flat, axis=0), ops.shape(labels))


def log_diameters(instances: Tensor) -> Tensor:
    """Binary logarithm of the diameter √(4 A / π) of the instance that each pixel belongs to.

    Of int32 `(batch, H, W)` float32 of the same shape: 0 on background and void, and -1 on
    instances that the border of the map cuts, whose size is not known. Ids are in [0, H · W].
    """
    shape = ops.shape(instances)
    batch, pixels = shape[0], shape[1] * shape[2]
    known = ops.logical_and(instances > 0, instances <= pixels)
    first = ops.reshape(ops.arange(batch, dtype="int32") * (pixels + 1), (-1, 1, 1))
    flat = ops.reshape(ops.where(known, instances, 0) + first, (-1,))
    one = ops.ones_like(instances)
    inside = shift_map(one, 1, 0) * shift_map(one, -1, 0)
    inside *= shift_map(one, 0, 1) * shift_map(one, 0, -1)
    # One after the other, as rows of numbers take many times as long.
    area, cut = (
        take(ops.segment_sum(ops.reshape(x, (-1,)), flat, batch * (pixels + 1)), flat, axis=0)
        for x in (one, 1 - inside)
    )
    found = 0.5 * ops.log2(ops.cast(area, "float32") * (4.0 / math.pi))
    # A single pixel is 1.13 wide: all logarithms are above 0.
    return ops.reshape(ops.where(cut > 0, -1.0, found), shape) * ops.cast(known, "float32")


def consecutive(labels: Tensor) -> Tensor:
    """Renumber components, as `connected_components` names them, 1, 2, … in each image."""
    shape = ops.shape(labels)
    flat = ops.reshape(labels, (-1,))
    present = ops.segment_sum(ops.cast(flat > 0, "int32"), flat, ops.size(flat) + 1)[1:]
    present = ops.reshape(ops.cast(present > 0, "int32"), (shape[0], shape[1] * shape[2]))
    return _renamed(labels, ops.cumsum(present, axis=1) * present)


def _renamed(labels: Tensor, names: Tensor) -> Tensor:
    """Label k as the k-th of the names, and label 0 as 0."""
    table = ops.concatenate([ops.zeros((1,), "int32"), ops.reshape(names, (-1,))], axis=0)
    return ops.reshape(take(table, ops.reshape(labels, (-1,)), axis=0), ops.shape(labels))


def number_labels(
    labels: Tensor,
    scores: Tensor,
    most: int,
    names: Tensor | int,
    least: Tensor | float = 1.0,
    least_score: Tensor | float = 0.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Renumber components 1, 2, … in the order of their names, image by image.

    Components of image b of the batch are named from `1 + b · names` on, with `names` names at
    most. Those of fewer than `least` pixels, a number or `(batch, 1)`, become 0, and so do those
    whose best mean of the `scores`, `(batch, H, W, C)` in [0, 1], is below `least_score`. Where
    there are more than `most`, those of the highest sum of these means come first, so that the
    numbers up to `most` are the most certain. In means, pixels have these `weights`,
    `(batch, H, W)`.

    Returns the maps, int32 `(batch, H, W)`, the number of components of each, int32 `(batch,)`, and
    the mean scores of the components up to `most`, `(batch, most, C)`, 0 where there is none.
    """
    shape, depth = (ops.shape(labels)[0], names), scores.shape[-1]
    flat, size = ops.reshape(labels, (-1,)), shape[0] * names + 1
    # Integers are added in half the time of floats.
    area = ops.cast(ops.segment_sum(ops.cast(flat > 0, "int32"), flat, size)[1:], "float32")
    # Numbers are summed many times as fast as rows of one number.
    scores, total = ops.cast(scores, "float32"), area
    if weights is not None:
        scores = scores * ops.expand_dims(weights, -1)
        total = ops.segment_sum(ops.reshape(weights, (-1,)), flat, size)[1:]
    scores = ops.reshape(scores, (-1,) if depth == 1 else (-1, depth))
    means = ops.reshape(ops.segment_sum(scores, flat, size)[1:], (-1, depth))
    means = means / ops.expand_dims(ops.where(total > 0, total, 1.0), 1)
    mean = ops.reshape(ops.sum(means, axis=1), shape)
    is_large = ops.reshape(area, shape) >= ops.maximum(least, 1.0)
    is_certain = ops.reshape(ops.max(means, axis=1), shape) >= least_score
    present = ops.cast(ops.logical_and(is_large, is_certain), "int32")
    count = ops.sum(present, axis=1)

    # Bisection finds the score that `most` components reach; without too many it does not begin.
    def reaching(least: Tensor) -> Tensor:
        return ops.sum(present * ops.cast(mean >= ops.expand_dims(least, 1), "int32"), axis=1)

    def halve(i: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, ...]:
        middle = 0.5 * (low + high)
        too_many = reaching(middle) > most
        return i + 1, ops.where(too_many, middle, low), ops.where(too_many, high, middle)

    low = ops.zeros_like(mean[:, 0])
    _, low, high = run_while(
        lambda i, *_: ops.logical_and(i < _BISECTIONS, ops.any(count > most)),
        halve,
        (ops.zeros((), "int32"), low, low + 2.0 * ops.cast(count > most, "float32")),
    )
    certain = present * ops.cast(mean >= ops.expand_dims(high, 1), "int32")
    # Between the two are components of one score: the first of them fill the table.
    alike = present * ops.cast(mean >= ops.expand_dims(low, 1), "int32") - certain
    room = most - ops.sum(certain, axis=1, keepdims=True)
    certain += alike * ops.cast(ops.cumsum(alike, axis=1) <= room, "int32")
    rest = present - certain
    first = certain * ops.cumsum(certain, axis=1)
    number = first + rest * (most + ops.cumsum(rest, axis=1))
    offset = ops.reshape(ops.arange(shape[0], dtype="int32") * (most + 1), (-1, 1))
    row = ops.reshape(first + offset, (-1,))
    table = ops.segment_sum(means, row, shape[0] * (most + 1))
    return _renamed(labels, number), count, ops.reshape(table, (-1, most + 1, depth))[:, 1:]


def instance_means(values: Tensor, labels: Tensor, max_instances: int) -> Tensor:
    """Mean of a map inside each instance.

    Of floats `(batch, H, W)` or `(batch, H, W, C)` and labels in [0, max_instances]:
    `(batch, max_instances)` or `(batch, max_instances, C)`, where row k - 1 is instance k, and rows
    without an instance are 0.
    """
    rank = len(values.shape)
    values = values if rank == 4 else ops.expand_dims(values, -1)
    depth = values.shape[-1]
    segments, count = _segments(labels, max_instances)
    # Numbers are summed many times as fast as rows of one number.
    values = ops.reshape(values, (-1,) if depth == 1 else (-1, depth))
    areas = ops.segment_sum(ops.ones_like(segments, dtype=values.dtype), segments, count)
    sums = ops.reshape(ops.segment_sum(values, segments, count), (-1, max_instances + 1, depth))
    areas = ops.reshape(areas, (-1, max_instances + 1, 1))
    means = sums[:, 1:] / ops.maximum(areas[:, 1:], 1.0)
    return means if rank == 4 else means[..., 0]


def instance_boxes(labels: Tensor, max_instances: int) -> Tensor:
    """Bounding box of each instance of labels in [0, max_instances].

    int32 `(batch, max_instances, 4)`: first row, first column, last row + 1, last column + 1, in
    pixels; zeros for rows without an instance.
    """
    height, width = ops.shape(labels)[1], ops.shape(labels)[2]
    beside = [ops.not_equal(labels, shift_map(labels, 0, side)) for side in (-1, 1)]
    # The first and last row and column of an instance are at ends of its runs along rows.
    end = ops.logical_and(labels > 0, ops.logical_or(*beside))
    index = places(ops.reshape(end, (-1,)))
    row, column = index // width % height, index % width
    segments, count = _segments(labels, max_instances)
    segments = take(segments, index, axis=0)
    # The minimum of a coordinate is the maximum of its distance from the far side. One after the
    # other, as rows of numbers take many times as long.
    ends = [
        ops.segment_max(far, segments, count)
        for far in (height - row, width - column, row + 1, column + 1)
    ]
    ends = ops.reshape(ops.stack(ends, axis=-1), (-1, max_instances + 1, 4))[:, 1:]
    ends = ops.maximum(ends, 0)
    there = ops.cast(ends[..., 2:3] > 0, "int32")
    first = ops.concatenate([height - ends[..., 0:1], width - ends[..., 1:2]], axis=-1)
    return ops.concatenate([first * there, ends[..., 2:]], axis=-1)


def _segments(labels: Tensor, max_instances: int) -> tuple[Tensor, Tensor]:
    batch = ops.shape(labels)[0]
    offset = ops.reshape(ops.arange(batch, dtype="int32") * (max_instances + 1), (batch, 1, 1))
    return ops.reshape(labels + offset, (-1,)), batch * (max_instances + 1)


def label_overlaps(labels: Tensor, max_instances: int) -> Tensor:
    """Intersection over union of all instances of all maps of an image.

    The instances of each map are counted against those of the maps from it on in one pass over the
    pixels, so no mask is ever formed: memory is O(pixels · maps + (maps · max_instances)²).
    Of int32 `(batch, H, W, S)` it gives float32 `(batch, S · max_instances, S · max_instances)`.
    """
    scales = labels.shape[-1]
    rows = []
    for s in range(scales):
        later = _intersections(labels[..., s], labels[..., s:], max_instances)
        rows.append(ops.pad(later, [[0, 0], [0, 0], [s * max_instances, 0]]))
    upper = ops.concatenate(rows, axis=1)
    # Instances of one map share no pixel, so the diagonal holds only the areas.
    areas = ops.sum(upper * ops.eye(scales * max_instances, dtype="float32"), axis=-1)
    intersections = ops.maximum(upper, ops.transpose(upper, (0, 2, 1)))
    unions = ops.expand_dims(areas, 1) + ops.expand_dims(areas, 2) - intersections
    return intersections / ops.maximum(unions, 1.0)


def greedy_suppression(overlaps: Tensor, scores: Tensor, valid: Tensor, most: float) -> Tensor:
    """Which candidates stay if each that overlaps too much with a better one that stays is dropped.

    That is non-maximum suppression, greedy from the best on. Here all candidates are decided at
    once, again until nothing changes, which comes to the same (Zheng et al., "Enhancing Geometric
    Factors in Model Learning and Inference for Object Detection and Instance Segmentation", 2020,
    section III-C). The overlaps are `(batch, P, P)`, all else `(batch, P)`.
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
