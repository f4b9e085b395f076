"""From label maps of several scales to ranked proposals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_rpe.arguments import check_integer, check_number
from keras_rpe.ops.backend import take
from keras_rpe.ops.labels import (
    greedy_suppression,
    instance_boxes,
    instance_means,
    label_overlaps,
    shift_map,
)
from keras_rpe.ops.maps import at_least_float32, sample_nearest

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
      from a pixel inside to its neighbor outside, on average.
    - `cohesion`: mean cosine of its pixels' embeddings with their mean direction, in [0, 1];
      `embedding_contrast`: 1 - (1 + cos)/2 of embeddings inside with those of neighbors outside,
      on average. Where an instance has no neighbor, contrasts are 0.

    Shape and size are described as in Carreira & Sminchisescu, "CPMC: Automatic Object Segmentation
    Using Constrained Parametric Min-Cuts", PAMI 2012; the contrast and cohesion of embeddings are
    this project's.

    Args:
        labels: int32 `(maps · batch, H, W)` in [0, max_instances], 0 = background: the first map of
            every image, then the second of every image, and so on. The embeddings are not repeated
            for each, so memory is O(pixels · (maps + D)).
        scores: Foreground scores in [0, 1], `(batch, H, W)`.
        embeddings: Unit embeddings `(batch, h, w, D)`, h and w the same whole fraction of H and W.
        max_instances: Rows of the result.
        height: Rows of the map that are image; those below are padding. Default: H.
        width: Columns that are image. Default: W.
        maps: Label maps of each image.

    Returns:
        Features, float32 `(maps · batch, max_instances, len(MASK_FEATURES))`; boxes, int32
        `(maps · batch, max_instances, 4)`, as `instance_boxes` gives them; and areas in pixels,
        float32 `(maps · batch, max_instances)`. All are 0 for rows without an instance.
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

    `across`, for the neighbors at `_SIDES`, and `inside` are maps `(batch, H, W)`. The result is
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
    segments = ops.reshape(labels + offset, (-1,))
    # One after the other, as rows of numbers take many times as long.
    sums = [ops.segment_sum(ops.reshape(c, (-1,)), segments, batch * rows) for c in columns]
    return ops.reshape(ops.stack(sums, axis=-1), (batch, rows, len(columns)))[:, 1:]


FEATURES = (*MASK_FEATURES, "stability")
# Until it is calibrated: four features in [0, 1] count equally.
_FIRST = {"foreground": 2.0, "cohesion": 2.0, "foreground_contrast": 2.0, "stability": 2.0}
_FIRST_BIAS = -4.0
_MAX_CANDIDATES = 4096  # Their overlaps are a table of the square of it, 64 MB.


@keras.saving.register_keras_serializable(package="keras_rpe")
class ProposalRanking(keras.layers.Layer):
    """Rank the instances of several label maps of an image, and drop duplicates.

    The score is a logistic regression on features of shape, size and contrast,
    σ(weights · features + bias). The features are those of `mask_features` in this module and
    `stability`, the largest IoU with an instance of another map, on average over the other maps:
    what is found at many scales is an object more often. Weights and bias are variables that are
    saved with the layer, but not trained by `fit`; `set_regression` sets them. At first the score
    is σ(2 (foreground + cohesion + foreground_contrast + stability) - 4): high where the four are.

    Of two instances whose masks have an IoU above `iou_threshold`, the one with the lower score is
    dropped, from the best on (non-maximum suppression). Memory is linear in the pixels, beside
    a table of (maps · max_instances)² numbers. All steps are graph ops without a gradient.

    Args:
        max_instances: Instances of one map at most; the label maps have none beyond.
        max_proposals: Length of the tables of the result, which are no longer than there can be
            instances in all maps.
        iou_threshold: Largest IoU of two proposals that stay, in [0, 1].
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        labels: int32 label maps `(batch, H, W, S)` in [0, max_instances], S static.
        scores: Foreground scores in [0, 1], `(batch, H, W)`.
        embeddings: Unit embeddings `(batch, h, w, D)`, h and w the same whole fraction of H and W.
        height, width: Rows and columns of the maps that are image, the others being padding.
            Default: all.

    Returns of a call:
        A dictionary of tables of length n = min(max_proposals, S · max_instances), best first:
        `scores`, float32 `(batch, n)` in (0, 1); `scales` and `ids`, int32 `(batch, n)`: the
        proposal has the pixels where `labels[..., scale] == id`; `boxes`, int32 `(batch, n, 4)`,
        first row, first column, last row + 1, last column + 1; and `num_proposals`, int32
        `(batch,)`. The tables are 0 beyond that number.

    Raises:
        ValueError: If an argument is out of its range, the inputs have the wrong rank, or there can
            be more than 4096 instances in all maps of an image.

    Source:
        Kong & Fowlkes (CVPR 2018), section 4, ranks by features of shape and size; the regression
        and the other features are this project's.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.layers import ProposalRanking
        >>> labels = np.zeros((1, 8, 8, 2), "int32")
        >>> labels[0, 1:5, 1:5] = 1  # in both maps
        >>> labels[0, 6, 6, 1] = 2
        >>> x = np.ones((1, 8, 8, 2), "float32") / np.sqrt(2)
        >>> result = ProposalRanking(max_instances=4)(labels, np.ones((1, 8, 8), "float32"), x)
        >>> int(result["num_proposals"][0]), result["boxes"][0, :2].numpy().tolist()
        (2, [[1, 1, 5, 5], [6, 6, 7, 7]])
    """

    def __init__(
        self,
        max_instances: int = 128,
        max_proposals: int = 256,
        iou_threshold: float = 0.8,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_instances = check_integer("max_instances", max_instances, 1, _MAX_CANDIDATES)
        self.max_proposals = check_integer("max_proposals", max_proposals)
        self.iou_threshold = check_number("iou_threshold", iou_threshold, "[0, 1]")

    def build(self, labels_shape: tuple[int | None, ...], *_: Any) -> None:
        """Check the shapes and make the weights of the regression."""
        if len(labels_shape) != 4 or labels_shape[-1] is None:
            raise ValueError(
                "ProposalRanking takes label maps (batch, H, W, S) with a known S. "
                f"Received: shape={tuple(labels_shape)}"
            )
        if labels_shape[-1] * self.max_instances > _MAX_CANDIDATES:
            raise ValueError(
                f"`max_instances` times the number of label maps must be at most {_MAX_CANDIDATES}."
                f" Received: max_instances={self.max_instances}, {labels_shape[-1]} maps"
            )
        weights = [_FIRST.get(name, 0.0) for name in FEATURES]
        for name, value in (("weights", weights), ("bias", _FIRST_BIAS)):
            variable = self.add_weight(
                shape=np.shape(value),
                initializer=keras.initializers.Constant(value),
                dtype="float32",
                autocast=False,
                trainable=False,
                name=f"regression_{name}",
            )
            setattr(self, f"regression_{name}", variable)

    def set_regression(self, weights: Sequence[float], bias: float) -> None:
        """Set the score to σ(weights · features + bias).

        Args:
            weights: A number for each of `feature_names`.
            bias: A number.

        Raises:
            ValueError: If the numbers are not as many or not finite.
        """
        values = np.asarray(weights, "float32")
        finite = bool(np.isfinite(values).all() and np.isfinite(bias))
        if values.shape != (len(FEATURES),) or not finite:
            raise ValueError(
                f"`weights` must be {len(FEATURES)} finite numbers, and `bias` one. "
                f"Received: weights={weights}, bias={bias}"
            )
        self.regression_weights.assign(values)
        self.regression_bias.assign(float(bias))

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in the order of the weights."""
        return FEATURES

    def describe(
        self,
        labels: Tensor,
        scores: Tensor,
        embeddings: Tensor,
        height: Tensor | int | None = None,
        width: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """Give what the ranking is made from, of the arguments of a call.

        A dictionary for the P = S · max_instances possible instances, those of the first map
        first: `features`, float32 `(batch, P, len(feature_names))`; `boxes`, int32 `(batch, P, 4)`;
        `areas` in pixels, float32 `(batch, P)`, 0 for those that are not there; `overlaps`, their
        IoU, float32 `(batch, P, P)`.
        """
        labels = ops.stop_gradient(ops.convert_to_tensor(labels))
        scores = ops.stop_gradient(at_least_float32(scores))
        embeddings = ops.stop_gradient(at_least_float32(embeddings))
        scales, rows = labels.shape[-1], self.max_instances
        batch, *size = ops.shape(labels)[:3]
        found = mask_features(
            ops.reshape(ops.transpose(labels, (3, 0, 1, 2)), (scales * batch, *size)),
            scores,
            embeddings,
            rows,
            height,
            width,
            scales,
        )
        features, boxes, areas = (_by_image(table, scales) for table in found)
        overlaps = label_overlaps(labels, rows)
        closest = ops.max(ops.reshape(overlaps, (-1, scales * rows, scales, rows)), axis=-1)
        there = ops.cast(areas > 0, "float32")
        # Each is its own closest one in its own map.
        stability = (ops.sum(closest, axis=-1) - there) / max(scales - 1, 1)
        features = ops.concatenate([features, ops.expand_dims(stability, -1)], axis=-1)
        return {"features": features, "boxes": boxes, "areas": areas, "overlaps": overlaps}

    def call(
        self,
        labels: Tensor,
        scores: Tensor,
        embeddings: Tensor,
        height: Tensor | int | None = None,
        width: Tensor | int | None = None,
    ) -> dict[str, Tensor]:
        """Return the tables of the proposals."""
        found = self.describe(labels, scores, embeddings, height, width)
        valid = found["areas"] > 0
        logits = ops.sum(found["features"] * self.regression_weights, axis=-1)
        scores = ops.sigmoid(logits + self.regression_bias)
        # By the logits, since the scores of many may be rounded to 1.
        kept = greedy_suppression(found["overlaps"], logits, valid, self.iou_threshold)
        lowest = ops.full_like(logits, -np.finfo("float32").max)
        length = self._length(labels.shape)
        _, index = ops.top_k(ops.where(kept, logits, lowest), length)
        index = ops.cast(index, "int32")
        batch, candidates = ops.shape(logits)[0], labels.shape[-1] * self.max_instances
        offset = ops.reshape(ops.arange(batch, dtype="int32") * candidates, (batch, 1))

        def of_best(table: Tensor) -> Tensor:
            flat = ops.reshape(table, (batch * candidates, *table.shape[2:]))
            return take(flat, index + offset, axis=0)

        there = ops.cast(of_best(kept), "int32")
        return {
            "scores": of_best(scores) * ops.cast(there, "float32"),
            "scales": (index // self.max_instances) * there,
            "ids": (index % self.max_instances + 1) * there,
            "boxes": of_best(found["boxes"]) * ops.expand_dims(there, -1),
            "num_proposals": ops.sum(there, axis=-1),
        }

    def _length(self, labels_shape: tuple[int | None, ...]) -> int:
        scales = labels_shape[-1]
        assert scales is not None
        return min(self.max_proposals, scales * self.max_instances)

    def compute_output_spec(
        self, labels: Any, scores: Any, embeddings: Any, height: Any = None, width: Any = None
    ) -> dict[str, keras.KerasTensor]:
        """Shapes and dtypes of the tables."""
        table = (labels.shape[0], self._length(labels.shape))
        shapes = {"scores": table, "scales": table, "ids": table, "boxes": (*table, 4)}
        shapes["num_proposals"] = table[:1]
        return {
            name: keras.KerasTensor(shape, dtype="float32" if name == "scores" else "int32")
            for name, shape in shapes.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Configuration from which the layer can be made again."""
        return {
            **super().get_config(),
            "max_instances": self.max_instances,
            "max_proposals": self.max_proposals,
            "iou_threshold": self.iou_threshold,
        }


def _by_image(table: Tensor, scales: int) -> Tensor:
    """Tables of scales times images, `(scales · batch, n, …)`, as `(batch, scales · n, …)`."""
    n, *rest = table.shape[1:]
    batch = ops.shape(table)[0] // scales
    table = ops.reshape(table, (scales, batch, n, *rest))
    table = ops.transpose(table, (1, 0, *range(2, 3 + len(rest))))
    return ops.reshape(table, (batch, scales * n, *rest))
