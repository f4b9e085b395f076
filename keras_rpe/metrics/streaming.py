"""Keras metrics of instance maps, inside the graph."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_rpe.arguments import check_integer
from keras_rpe.metrics.matching import check_ignore_label, check_threshold

# The table of pairs has max_instances² entries of 4 bytes.
_MOST_INSTANCES = 8192


def _ranks_in_order(sorted_ids: Any) -> tuple[Any, Any]:
    """Number ascending ids 1..n, everything below 1 being background (0); return them and n."""
    previous = ops.concatenate([ops.zeros((1,), dtype=sorted_ids.dtype), sorted_ids[:-1]])
    starts = ops.cast((sorted_ids > 0) & (sorted_ids != previous), "int32")
    return ops.cumsum(starts), ops.sum(starts)


def count_matches(
    labels_true: Any,
    labels_pred: Any,
    threshold: float = 0.5,
    max_instances: int = 512,
    ignore_label: int | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Match the instances of one image; runs in a graph, under XLA and with a dynamic size.

    From an IoU of 0.5 on, the pairs that may match form chains of two instances, or stars of
    three where both IoU are exactly 0.5 (an instance cut into two halves). Each chain or star
    yields one match, so counting instances minus pairs replaces an assignment.

    A negative id counts as background. Of each map the `max_instances` instances with the smallest
    ids take part; any further ones count as not matched.

    Returns:
        The scalars `tp`, `fp`, `fn` (int32) and `sum_iou` (float32).
    """
    true, pred = _widen(ops.reshape(labels_true, (-1,))), _widen(ops.reshape(labels_pred, (-1,)))
    if ignore_label is not None:
        counted = true != ignore_label
        true = ops.where(counted, true, ops.zeros_like(true))
        pred = ops.where(counted, pred, ops.zeros_like(pred))

    # Which pixel is where does not matter, so both maps just follow each sort.
    order = ops.argsort(true)
    true, n_true = _ranks_in_order(ops.take(true, order))
    pred = ops.take(pred, order)
    order = ops.argsort(pred)
    pred, n_pred = _ranks_in_order(ops.take(pred, order))
    true = ops.take(true, order)

    # Row and column 0 are background, the last ones hold all instances beyond max_instances.
    size = max_instances + 2
    pair = ops.minimum(true, size - 1) * size + ops.minimum(pred, size - 1)
    table = ops.segment_sum(ops.ones_like(pair), pair, num_segments=size * size)
    table = ops.reshape(table, (size, size))
    area_true = ops.sum(table, axis=1, keepdims=True)[1:-1]
    area_pred = ops.sum(table, axis=0, keepdims=True)[:, 1:-1]
    shared = table[1:-1, 1:-1]
    union = ops.maximum(area_true + area_pred - shared, 1)
    iou = ops.cast(shared, "float32") / ops.cast(union, "float32")

    matches = iou >= threshold
    pairs = ops.sum(ops.cast(matches, "int32"))
    tp = (
        ops.sum(ops.cast(ops.any(matches, axis=1), "int32"))
        + ops.sum(ops.cast(ops.any(matches, axis=0), "int32"))
        - pairs
    )
    # The pairs too many are the second halves of stars, of IoU 0.5.
    sum_iou = ops.sum(ops.where(matches, iou, ops.zeros_like(iou)))
    sum_iou = sum_iou - 0.5 * ops.cast(pairs - tp, "float32")
    return tp, n_pred - tp, n_true - tp, sum_iou


def _widen(labels: Any) -> Any:
    """Cast to an integer type that every backend sorts."""
    wide = keras.backend.standardize_dtype(labels.dtype) in ("int64", "uint32", "uint64")
    return ops.cast(labels, "int64" if wide else "int32")


def _check_batch(name: str, labels: Any) -> Any:
    labels = ops.convert_to_tensor(labels)
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if len(labels.shape) != 3 or not dtype.startswith(("int", "uint")):
        raise ValueError(
            f"`{name}` must be an integer tensor of shape (batch, height, width). "
            f"Received: dtype={dtype}, shape={tuple(labels.shape)}"
        )
    return labels


class StreamingMatching(keras.metrics.Metric):
    """Counts matched instances over batches of label maps; its subclasses make a figure of them."""

    _default_name: str

    def __init__(
        self,
        threshold: float = 0.5,
        max_instances: int = 512,
        ignore_label: int | None = None,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name or self._default_name, dtype=dtype)
        self.threshold = check_threshold(threshold, "[0.5, 1]")
        self.ignore_label = check_ignore_label(ignore_label)
        self.max_instances = check_integer("max_instances", max_instances, at_most=_MOST_INSTANCES)
        self.tp, self.fp, self.fn, self.sum_iou = (
            self.add_weight(shape=(), initializer="zeros", dtype="float32", name=weight)
            for weight in ("tp", "fp", "fn", "sum_iou")
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch of images.

        Args:
            y_true: integer label maps (batch, height, width); 0 is background.
            y_pred: integer label maps of the same shape.
            sample_weight: None, or a weight for each image, of shape (batch,).

        Raises:
            ValueError: if a map is not an integer tensor of 3 axes, the shapes differ, or
                `sample_weight` has another shape.
        """
        y_true, y_pred = _check_batch("y_true", y_true), _check_batch("y_pred", y_pred)
        known = zip(y_true.shape, y_pred.shape)
        if any(None not in pair and pair[0] != pair[1] for pair in known):
            raise ValueError(
                "`y_true` and `y_pred` must have the same shape. "
                f"Received: shapes {tuple(y_true.shape)} and {tuple(y_pred.shape)}"
            )
        batch = ops.shape(y_true)[0]
        if sample_weight is None:
            weights = ops.ones((batch,), dtype="float32")
        else:
            weights = ops.cast(sample_weight, "float32")
            sizes = (y_true.shape[0], *weights.shape[:1])
            if len(weights.shape) != 1 or (None not in sizes and sizes[0] != sizes[1]):
                raise ValueError(
                    "`sample_weight` must have shape (batch,), one weight an image. "
                    f"Received: shape={tuple(weights.shape)} for a batch of {sizes[0]}"
                )

        def add_image(index: Any, totals: Any) -> tuple[Any, Any]:
            counts = count_matches(
                ops.take(y_true, index, axis=0),
                ops.take(y_pred, index, axis=0),
                self.threshold,
                self.max_instances,
                self.ignore_label,
            )
            weight = ops.take(weights, index)
            return index + 1, totals + weight * ops.stack(
                [ops.cast(count, "float32") for count in counts]
            )

        # One image at a time keeps a single table of pairs in memory.
        _, totals = ops.while_loop(
            lambda index, totals: index < batch,
            add_image,
            (ops.zeros((), dtype="int32"), ops.zeros((4,), dtype="float32")),
        )
        for i, variable in enumerate((self.tp, self.fp, self.fn, self.sum_iou)):
            variable.assign_add(totals[i])

    def _ratio(self, numerator: Any, denominator: Any) -> Any:
        """Divide, or 1.0 where nothing was true and nothing predicted."""
        empty = denominator == 0
        ratio = numerator / ops.where(empty, ops.ones_like(denominator), denominator)
        return ops.where(empty, ops.ones_like(ratio), ratio)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild the metric."""
        return {
            **super().get_config(),
            "threshold": self.threshold,
            "max_instances": self.max_instances,
            "ignore_label": self.ignore_label,
        }


@keras.saving.register_keras_serializable(package="keras_rpe")
class InstanceAveragePrecision(StreamingMatching):
    """Average precision tp / (tp + fp + fn) of predicted instances at one IoU threshold.

    The counts of all images are pooled, as `matching_dataset` pools them; without any true or
    predicted instance the result is 1.0. Runs inside a graph, under XLA and with dynamic shapes.

    Args:
        threshold: the smallest IoU of a matched pair, from 0.5 to 1.
        max_instances: how many instances of an image take part, those with the smallest ids, from
            1 to 8192; memory grows with its square. Further ones count as not matched.
        ignore_label: pixels with this label in `y_true` are void, or None.
        name: name of the metric; None takes that of the class in snake case.
        dtype: dtype of the metric; the counts themselves are float32.

    Raises:
        ValueError: if an argument lies outside its range.

    Example:
        >>> from keras_rpe.metrics import InstanceAveragePrecision
        >>> metric = InstanceAveragePrecision()
        >>> metric.update_state([[[1, 1, 0, 7]]], [[[4, 4, 0, 0]]])
        >>> float(metric.result())
        0.5
    """

    _default_name = "instance_average_precision"

    def result(self) -> Any:
        """Return the average precision of all images so far, a float32 scalar in [0, 1]."""
        return self._ratio(self.tp, self.tp + self.fp + self.fn)


@keras.saving.register_keras_serializable(package="keras_rpe")
class InstancePanopticQuality(StreamingMatching):
    """Panoptic quality sum_iou / (tp + fp/2 + fn/2) of predicted instances of one class.

    Kirillov et al., "Panoptic Segmentation", CVPR 2019; an IoU of exactly `threshold` matches
    here, where the paper asks for more than 0.5. The counts of all images are pooled; without any
    true or predicted instance the result is 1.0. Runs inside a graph, under XLA and with dynamic
    shapes.

    Args:
        threshold: the smallest IoU of a matched pair, from 0.5 to 1.
        max_instances: how many instances of an image take part, those with the smallest ids, from
            1 to 8192; memory grows with its square. Further ones count as not matched.
        ignore_label: pixels with this label in `y_true` are void, or None.
        name: name of the metric; None takes that of the class in snake case.
        dtype: dtype of the metric; the counts themselves are float32.

    Raises:
        ValueError: if an argument lies outside its range.

    Example:
        >>> from keras_rpe.metrics import InstancePanopticQuality
        >>> metric = InstancePanopticQuality()
        >>> metric.update_state([[[1, 1, 1, 1, 0, 7]]], [[[4, 4, 4, 0, 0, 0]]])
        >>> float(metric.result())
        0.5
    """

    _default_name = "instance_panoptic_quality"

    def result(self) -> Any:
        """Return the panoptic quality of all images so far, a float32 scalar in [0, 1]."""
        return self._ratio(self.sum_iou, self.tp + 0.5 * self.fp + 0.5 * self.fn)
