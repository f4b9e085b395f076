"""Keras metrics of instance and class maps, inside the graph, and the IoU of classes outside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_rpe.arguments import check_integer
from keras_rpe.metrics.matching import check_ignore_label, check_threshold, image_by_image

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
    """The scalars tp, fp, fn (int32) and sum_iou (float32) of one image, in a graph of any size."""
    # From an IoU of 0.5 on, the pairs that may match form chains of two instances, or stars of
    # three where both IoU are exactly 0.5 (an instance cut into two halves). Each chain or star
    # yields one match, so counting instances minus pairs replaces an assignment.
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


def _check_integers(name: str, labels: Any) -> None:
    dtype = keras.backend.standardize_dtype(labels.dtype)
    if not dtype.startswith(("int", "uint")):
        raise ValueError(f"`{name}` must hold integers. Received: dtype={dtype}")


def _check_shape(name: str, value: Any, expected: tuple[int | None, ...]) -> None:
    """Refuse another shape, as far as both are known."""
    shape = tuple(value.shape)
    if len(shape) != len(expected) or any(
        None not in pair and pair[0] != pair[1] for pair in zip(shape, expected)
    ):
        raise ValueError(f"`{name}` must have the shape {expected}. Received: shape={shape}")


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
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        _check_integers("y_true", y_true)
        _check_integers("y_pred", y_pred)
        _check_shape("y_true", y_true, (None, None, None))
        _check_shape("y_pred", y_pred, tuple(y_true.shape))
        batch = ops.shape(y_true)[0]
        if sample_weight is None:
            weights = ops.ones((batch,), dtype="float32")
        else:
            weights = ops.cast(sample_weight, "float32")
            _check_shape("sample_weight", weights, (y_true.shape[0],))

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
    here, where the paper asks for more than 0.5. Arguments, pooling and the result without any
    instance are those of `InstanceAveragePrecision`.

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


def class_iou(
    truths: Iterable[npt.ArrayLike],
    predictions: Iterable[npt.ArrayLike],
    num_classes: int,
    ignore_label: int | None = None,
) -> dict[int, float]:
    """Intersection over union of each class, the pixels of all images pooled.

    Args:
        truths: integer class maps (H, W) with labels 0..num_classes - 1, in sizes that may differ
            between images. May be a generator.
        predictions: as many class maps, in the same order. A label that is not a class is a miss.
        num_classes: number of classes, background among them where it has a label, from 1.
        ignore_label: label of void pixels in `truths`, or None.

    Returns:
        TP / (TP + FP + FN), in [0, 1], of each class that occurs in the truth or the prediction, by
        its label; their mean is the mean IoU (mIoU).

    Raises:
        ValueError: if the numbers of images differ, a map is not an integer array (H, W), its shape
            is not that of its partner or a true label is out of range (the message then starts with
            the image's number, from 0), or an argument lies outside its range.

    Source:
        Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import class_iou
        >>> class_iou([np.array([[1, 1, 3, 255]])], [np.array([[1, 3, 3, 4]])], 5, 255)
        {1: 0.5, 3: 0.5}
    """
    num_classes = check_integer("num_classes", num_classes)
    ignore_label = check_ignore_label(ignore_label)
    # Column `num_classes` counts predictions that are not a class.
    size = num_classes + 1
    matrix = np.zeros((size, size), np.int64)

    def update(true: Any, pred: Any) -> None:
        true, pred = np.asarray(true), np.asarray(pred)
        for name, labels in (("truths", true), ("predictions", pred)):
            _check_integers(name, labels)
            _check_shape(name, labels, true.shape if true.ndim == 2 else (None, None))
        known = true != ignore_label
        true, pred = true[known], pred[known]
        outside = (true < 0) | (true >= num_classes)
        if outside.any():
            raise ValueError(
                f"`truths` must hold labels from 0 to {num_classes - 1}, or `ignore_label`. "
                f"Received: a label of {true[outside][0]}"
            )
        pred = np.where((pred < 0) | (pred >= num_classes), num_classes, pred)
        pairs = true.astype(np.int64) * size + pred.astype(np.int64)
        matrix.ravel()[:] += np.bincount(pairs, minlength=size * size)

    list(image_by_image(update, truths=truths, predictions=predictions))
    tp = np.diag(matrix)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - tp
    return {i: float(tp[i] / union[i]) for i in range(size - 1) if union[i]}


@keras.saving.register_keras_serializable(package="keras_rpe")
class SemanticMeanIoU(keras.metrics.IoU):
    """Mean intersection over union (mIoU) of class maps over the classes that occur.

    The pixels of all images are pooled in a confusion matrix. The IoU of a class is TP / (TP + FP +
    FN); classes that occur neither in the truth nor in the prediction do not count, and where none
    occurs the result is 1.0. Runs inside a graph, under XLA and with dynamic shapes.

    Unlike in `keras.metrics.MeanIoU`, a predicted label that is not a class counts as a miss of the
    true class, where Keras leaves the pixel out. The matrix is int64, as int32 overflows after some
    thousand images (on JAX it is int32 unless 64-bit types are enabled). `class_iou` gives the IoU
    of each class.

    Args:
        num_classes: number of classes C, those of labels 0..C-1, from 1; background is one of them
            where it has a label.
        ignore_label: label of void pixels in `y_true`, or None. Every other true label outside of
            0..C-1 is void as well, since a graph refuses nothing.
        sparse_y_pred: True where `y_pred` holds labels, False where it holds scores of the classes
            in its last axis.
        name: name of the metric.
        dtype: dtype of the confusion matrix, or None for int64.

    Raises:
        ValueError: if an argument lies outside its range.

    Source:
        Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.

    Example:
        >>> from keras_rpe.metrics import SemanticMeanIoU
        >>> metric = SemanticMeanIoU(num_classes=5, ignore_label=255)
        >>> metric.update_state([[[1, 1, 3, 255]]], [[[1, 3, 3, 4]]])
        >>> float(metric.result()), metric.class_iou()
        (0.5, {1: 0.5, 3: 0.5})
    """

    def __init__(
        self,
        num_classes: int,
        ignore_label: int | None = None,
        sparse_y_pred: bool = True,
        name: str | None = "semantic_mean_iou",
        dtype: Any = None,
    ) -> None:
        self.ignore_label = check_ignore_label(ignore_label)
        self.true_classes = check_integer("num_classes", num_classes)
        super().__init__(
            # One more for predictions that are not a class; it is not among the targets.
            num_classes=self.true_classes + 1,
            target_class_ids=range(self.true_classes),
            ignore_class=self.ignore_label,
            sparse_y_pred=sparse_y_pred,
            name=name,
            dtype=dtype or "int64",
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch of images.

        Args:
            y_true: integer class maps (batch, height, width).
            y_pred: integer class maps of the same shape, or without `sparse_y_pred` scores (batch,
                height, width, C).
            sample_weight: None, or integer weights of the pixels in the shape of `y_true`.

        Raises:
            ValueError: if the shapes differ, or labels are not integers.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        scores = () if self.sparse_y_pred else (self.true_classes,)
        _check_shape("y_pred", y_pred, (*y_true.shape, *scores))
        _check_integers("y_true", y_true)
        if self.sparse_y_pred:
            _check_integers("y_pred", y_pred)
        y_true = ops.cast(y_true, self.dtype)
        # The last class is not a label; the base class leaves out what lies outside of its range.
        y_true = ops.where(y_true == self.true_classes, -1, y_true)
        if self.sparse_y_pred:
            y_pred = ops.cast(y_pred, self.dtype)
            known = (y_pred >= 0) & (y_pred < self.true_classes)
            y_pred = ops.where(known, y_pred, self.true_classes)
        super().update_state(y_true, y_pred, sample_weight)

    def _shares(self) -> tuple[Any, Any]:
        """The IoU of each class, 0 for those that do not occur, and which ones occur."""
        matrix = self.total_cm
        tp = ops.diag(matrix)
        union = ops.sum(matrix, axis=0) + ops.sum(matrix, axis=1) - tp
        tp, union = tp[: self.true_classes], union[: self.true_classes]
        occurs = union > 0
        iou = ops.cast(tp, "float32") / ops.cast(ops.maximum(union, 1), "float32")
        return iou, occurs

    def result(self) -> Any:
        """Return the mean IoU of all images so far, a float32 scalar in [0, 1]."""
        iou, occurs = self._shares()
        number = ops.sum(ops.cast(occurs, "float32"))
        mean = ops.sum(iou) / ops.maximum(number, 1.0)
        return ops.where(number > 0, mean, ops.ones_like(mean))

    def class_iou(self) -> dict[int, float]:
        """Return the IoU of each class that occurs, by its label, outside of graphs."""
        iou, occurs = (ops.convert_to_numpy(value) for value in self._shares())
        return {i: float(iou[i]) for i in range(self.true_classes) if occurs[i]}

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that rebuild the metric."""
        return {
            "num_classes": self.true_classes,
            "ignore_label": self.ignore_label,
            "sparse_y_pred": self.sparse_y_pred,
            "name": self.name,
            "dtype": self.dtype,
        }
