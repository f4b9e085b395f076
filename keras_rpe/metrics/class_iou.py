"""IoU of class maps by class, over a whole data set."""

from __future__ import annotations

import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from keras_rpe.metrics.image_pairs import update_all
from keras_rpe.metrics.matching import check_ignore_label


def class_iou(
    truths: Iterable[npt.ArrayLike],
    predictions: Iterable[npt.ArrayLike],
    num_classes: int,
    ignore_label: int | None = None,
) -> dict[int, float]:
    """Intersection over union of each class, the pixels of all images pooled.

    Args:
        truths: integer class maps (H, W) with labels 0..num_classes - 1, in sizes that may differ
            between images. A generator serves too.
        predictions: as many class maps, in the same order. A label that is no class is a miss.
        num_classes: number of classes, background among them where it has a label, from 1.
        ignore_label: label of void pixels in `truths`, or None.

    Returns:
        TP / (TP + FP + FN), in [0, 1], of each class that occurs in the truth or the prediction, by
        its label; their mean is the mean IoU (mIoU).

    Raises:
        ValueError: if the numbers of images differ, a map is no integer array (H, W), its shape is
            not that of its partner or a true label is out of range (the message then starts with
            the image's number, from 0), or an argument lies outside its range.

    Source:
        Everingham et al., "The PASCAL Visual Object Classes Challenge: A Retrospective", IJCV 2015.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import class_iou
        >>> class_iou([np.array([[1, 1, 3, 255]])], [np.array([[1, 3, 3, 4]])], 5, 255)
        {1: 0.5, 3: 0.5}
    """
    valid = isinstance(num_classes, numbers.Integral) and not isinstance(num_classes, bool)
    if not valid or num_classes < 1:
        raise ValueError(
            f"`num_classes` must be an integer from 1. Received: num_classes={num_classes!r}"
        )
    ignore_label = check_ignore_label(ignore_label)
    # Column `num_classes` counts predictions that are no class.
    size = int(num_classes) + 1
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

    update_all(update, truths, predictions)
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
