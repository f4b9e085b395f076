"""Mean intersection over union of class maps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from keras_rpe.arguments import check_integer
from keras_rpe.metrics.matching import check_ignore_label, image_by_image


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
        true, pred = _check_map("truths", true), _check_map("predictions", pred)
        if true.shape != pred.shape:
            raise ValueError(
                "A class map and its prediction must have the same shape. "
                f"Received: {true.shape} and {pred.shape}"
            )
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


def _check_map(name: str, value: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(value)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"`{name}` must hold integer class maps (H, W). "
            f"Received: shape {array.shape} of {array.dtype}"
        )
    return array


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
        shapes = tuple(y_true.shape), tuple(y_pred.shape)
        expected = shapes[0] if self.sparse_y_pred else (*shapes[0], self.true_classes)
        if len(expected) != len(shapes[1]) or any(
            None not in pair and pair[0] != pair[1] for pair in zip(expected, shapes[1])
        ):
            raise ValueError(
                f"`y_pred` must have the shape {expected} for `y_true` of {shapes[0]}. "
                f"Received: shape {shapes[1]}"
            )
        for name, labels in {"y_true": y_true, "y_pred": y_pred}.items():
            dtype = keras.backend.standardize_dtype(labels.dtype)
            if not dtype.startswith(("int", "uint")) and (name == "y_true" or self.sparse_y_pred):
                raise ValueError(f"`{name}` must hold integers. Received: dtype={dtype}")
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
