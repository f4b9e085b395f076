"""What speaks for a mask to be an object: shape, size, and how it stands out, inside the graph."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

from keras_rpe.ops.connected_components import shift_map
from keras_rpe.ops.instances import instance_boxes, instance_means
from keras_rpe.ops.resampling import sample_nearest

Tensor = Any

MASK_FEATURES = (
    "log_area",
    "log_area_squared",
    "extent",
    "aspect",
    "compactness",
    "border",
    "foreground",
    "foreground_contrast",
    "cohesion",
    "embedding_contrast",
)
_SIDES = ((0, 1), (1, 0), (0, -1), (-1, 0))


def mask_features(
    labels: Tensor,
    scores: Tensor,
    embeddings: Tensor,
    max_instances: int,
    height: Tensor | int | None = None,
    width: Tensor | int | None = None,
    maps: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Describe each instance of a label map, or of several of an image, by numbers of order 1.

    - `log_area`: natural logarithm of its share of the image's pixels, and `log_area_squared`.
    - `extent`: share of its bounding box that it fills; `aspect`: shorter by longer side of the
      box; `compactness`: 4π · area by the square of its perimeter in sides of pixels, at most 1;
      `border`: share of the four sides of the box that lie on the border of the image.
    - `foreground`: mean foreground score inside; `foreground_contrast`: by how much the score falls
      from a pixel inside to its neighbour outside, on average.
    - `cohesion`: mean cosine of its pixels' embeddings with their mean direction, in [0, 1];
      `embedding_contrast`: 1 - (1 + cos)/2 of embeddings inside with those of neighbours outside,
      on average. Where an instance has no neighbour, contrasts are 0.

    Args:
        labels: int32 `(maps · batch, H, W)` in [0, max_instances], 0 = background: the first map of
            every image, then the second of every image, and so on.
        scores: Foreground scores in [0, 1], `(batch, H, W)`.
        embeddings: Unit embeddings `(batch, h, w, D)`, h and w the same whole fraction of H and W.
        max_instances: Rows of the result.
        height: Rows of the map that are image; those below are padding. Default: H.
        width: Columns that are image. Default: W.
        maps: Label maps of each image. The embeddings are not repeated for each, so memory is
            O(pixels · (maps + D)).

    Returns:
        Features, float32 `(maps · batch, max_instances, len(MASK_FEATURES))`, in the order of
        `MASK_FEATURES`; boxes, int32 `(maps · batch, max_instances, 4)`, as `instance_boxes` gives
        them; and areas in pixels, float32 `(maps · batch, max_instances)`. All are 0 for rows
        without an instance.

    Source:
        Shape and size as in Carreira & Sminchisescu, "CPMC: Automatic Object Segmentation Using
        Constrained Parametric Min-Cuts", PAMI 2012; the contrast and cohesion of embeddings are
        this project's.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.ops.mask_features import MASK_FEATURES, mask_features
        >>> labels = np.zeros((1, 8, 8), "int32")
        >>> labels[0, 2:6, 2:4] = 1
        >>> x = np.ones((1, 8, 8, 1), "float32")
        >>> features, boxes, areas = mask_features(labels, labels.astype("float32"), x, 1)
        >>> found = dict(zip(MASK_FEATURES, np.asarray(features)[0, 0].round(3).tolist()))
        >>> found["extent"], found["aspect"], found["foreground_contrast"], found["cohesion"]
        (1.0, 0.5, 1.0, 1.0)
    """
    height = ops.shape(labels)[1] if height is None else height
    width = ops.shape(labels)[2] if width is None else width
    scores = ops.cast(scores, "float32")
    embeddings = ops.cast(embeddings, "float32")
    fall = [scores - shift_map(scores, *side) for side in _SIDES]
    inside = [ops.ones_like(scores), scores]
    sums = _sums(labels, fall, inside, max_instances, maps)
    perimeter, score_fall, areas, score = (sums[..., k] for k in range(4))
    cells = sample_nearest(labels, ops.shape(embeddings)[1], ops.shape(embeddings)[2])
    distance = [
        0.5 - 0.5 * ops.sum(embeddings * shift_map(embeddings, *side), axis=-1) for side in _SIDES
    ]
    cell_sums = _sums(cells, distance, [], max_instances, maps)
    boxes = instance_boxes(labels, max_instances)
    top, left, bottom, right = (ops.cast(boxes[..., k], "float32") for k in range(4))
    rows, columns = bottom - top, right - left
    there = ops.cast(areas > 0, "float32")
    height, width = ops.cast(height, "float32"), ops.cast(width, "float32")
    log_area = ops.log(ops.maximum(areas, 1.0) / (height * width))
    on_border = sum(
        ops.cast(on, "float32")
        for on in (top < 0.5, left < 0.5, bottom > height - 0.5, right > width - 0.5)
    )
    values = [
        log_area,
        ops.square(log_area),
        areas / ops.maximum(rows * columns, 1.0),
        ops.minimum(rows, columns) / ops.maximum(ops.maximum(rows, columns), 1.0),
        ops.minimum(4.0 * math.pi * areas / ops.maximum(ops.square(perimeter), 1.0), 1.0),
        0.25 * on_border,
        score / ops.maximum(areas, 1.0),
        score_fall / ops.maximum(perimeter, 1.0),
        _cohesion(embeddings, cells, max_instances, maps),
        cell_sums[..., 1] / ops.maximum(cell_sums[..., 0], 1.0),
    ]
    return ops.stack([value * there for value in values], axis=-1), boxes, areas


def _cohesion(embeddings: Tensor, cells: Tensor, max_instances: int, maps: int) -> Tensor:
    """Length of the mean embedding of each instance, `(maps · batch, max_instances)`."""
    cells = ops.reshape(cells, (maps, *ops.shape(embeddings)[:3]))
    means = [instance_means(embeddings, cells[m], max_instances) for m in range(maps)]
    return ops.concatenate([ops.sqrt(ops.sum(ops.square(m), axis=-1)) for m in means], axis=0)


def _sums(
    labels: Tensor, across: list[Tensor], inside: list[Tensor], max_instances: int, maps: int
) -> Tensor:
    """Sums over the sides and the pixels of each instance.

    `across`, for the neighbours at `_SIDES`, and `inside` are maps `(batch, H, W)`. The result is
    `(maps · batch, max_instances, 2 + len(inside))`: the sides that the instance shares with
    others, `across` there, and each of `inside`. Sides on the border of the map do not count.
    """
    numbered = labels + 1  # so that 0 is beyond the map
    count, total = 0.0, 0.0
    for side, value in zip(_SIDES, across):
        beside = shift_map(numbered, *side)
        other = ops.logical_and(beside > 0, ops.not_equal(beside, numbered))
        other = ops.cast(other, "float32")
        count, total = count + other, total + other * ops.tile(value, (maps, 1, 1))
    columns = [count, total, *(ops.tile(value, (maps, 1, 1)) for value in inside)]
    batch, rows = ops.shape(labels)[0], max_instances + 1
    offset = ops.reshape(ops.arange(batch, dtype="int32") * rows, (batch, 1, 1))
    sums = ops.segment_sum(
        ops.reshape(ops.stack(columns, axis=-1), (-1, len(columns))),
        ops.reshape(labels + offset, (-1,)),
        batch * rows,
    )
    return ops.reshape(sums, (batch, rows, len(columns)))[:, 1:]
