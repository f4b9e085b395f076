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
) -> tuple[Tensor, Tensor, Tensor]:
    """Describe each instance of a label map by numbers of order 1.

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
        labels: int32 `(batch, H, W)` in [0, max_instances], 0 = background.
        scores: Foreground scores in [0, 1], `(batch, H, W)`.
        embeddings: Unit embeddings `(batch, h, w, D)`, h and w the same whole fraction of H and W.
        max_instances: Rows of the result.
        height: Rows of the map that are image; those below are padding. Default: H.
        width: Columns that are image. Default: W.

    Returns:
        Features, float32 `(batch, max_instances, len(MASK_FEATURES))`, in the order of
        `MASK_FEATURES`; boxes, int32 `(batch, max_instances, 4)`, as `instance_boxes` gives them;
        and areas in pixels, float32 `(batch, max_instances)`. All are 0 for rows without an
        instance.

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
    fall = [ops.expand_dims(scores - shift_map(scores, *side), -1) for side in _SIDES]
    sums = _boundary_sums(labels, fall, max_instances)
    perimeter, score_fall = sums[..., 0], sums[..., 1]
    cells = sample_nearest(labels, ops.shape(embeddings)[1], ops.shape(embeddings)[2])
    distance = [
        0.5 - 0.5 * ops.sum(embeddings * shift_map(embeddings, *side), axis=-1, keepdims=True)
        for side in _SIDES
    ]
    cell_sums = _boundary_sums(cells, distance, max_instances)
    mean = instance_means(embeddings, cells, max_instances)
    boxes = instance_boxes(labels, max_instances)
    top, left, bottom, right = (ops.cast(boxes[..., k], "float32") for k in range(4))
    rows, columns = bottom - top, right - left
    areas = sums[..., 2]
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
        instance_means(scores, labels, max_instances),
        score_fall / ops.maximum(perimeter, 1.0),
        ops.sqrt(ops.sum(ops.square(mean), axis=-1)),
        cell_sums[..., 1] / ops.maximum(cell_sums[..., 0], 1.0),
    ]
    return ops.stack([value * there for value in values], axis=-1), boxes, areas


def _boundary_sums(labels: Tensor, values: list[Tensor], max_instances: int) -> Tensor:
    """Sides that each instance shares with others, the sum of values there, and its pixels.

    `values` are maps `(batch, H, W, 1)` for the neighbours at `_SIDES`. Sides on the border of the
    map do not count.
    """
    numbered = labels + 1  # so that 0 is beyond the map
    count, total = 0.0, 0.0
    for side, value in zip(_SIDES, values):
        beside = shift_map(numbered, *side)
        other = ops.logical_and(beside > 0, ops.not_equal(beside, numbered))
        other = ops.expand_dims(ops.cast(other, "float32"), -1)
        count, total = count + other, total + other * value
    ones = ops.ones_like(count)
    batch, rows = ops.shape(labels)[0], max_instances + 1
    offset = ops.reshape(ops.arange(batch, dtype="int32") * rows, (batch, 1, 1))
    sums = ops.segment_sum(
        ops.reshape(ops.concatenate([count, total, ones], axis=-1), (-1, 3)),
        ops.reshape(labels + offset, (-1,)),
        batch * rows,
    )
    return ops.reshape(sums, (batch, rows, 3))[:, 1:]
