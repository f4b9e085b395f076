"""Matching of instances over a whole data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import zip_longest
from operator import add
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from keras_rpe.metrics.matching import Matching, check_thresholds, matching

_MISSING: Any = object()


def _match_images(
    labels_true: Iterable[npt.ArrayLike],
    labels_pred: Iterable[npt.ArrayLike],
    thresholds: list[float],
    ignore_label: int | None,
) -> list[list[Matching]]:
    """Match image by image; the result is indexed by image, then by threshold."""
    for name, maps in (("labels_true", labels_true), ("labels_pred", labels_pred)):
        if getattr(maps, "ndim", 3) == 2:
            raise ValueError(f"`{name}` must be a sequence of label maps. Received: a single map")
    images: list[list[Matching]] = []
    for true, pred in zip_longest(labels_true, labels_pred, fillvalue=_MISSING):
        if true is _MISSING or pred is _MISSING:
            shorter = "labels_true" if true is _MISSING else "labels_pred"
            raise ValueError(
                "`labels_true` and `labels_pred` must hold equally many label maps. "
                f"Received: only {len(images)} in `{shorter}`"
            )
        try:
            images.append(matching(true, pred, thresholds, ignore_label))
        except ValueError as error:
            raise ValueError(f"Image {len(images)}: {error}") from None
    if not images:
        raise ValueError("`labels_true` must hold at least one label map. Received: none")
    return images


@overload
def matching_dataset(
    labels_true: Iterable[npt.ArrayLike],
    labels_pred: Iterable[npt.ArrayLike],
    threshold: float = ...,
    ignore_label: int | None = ...,
) -> Matching: ...


@overload
def matching_dataset(
    labels_true: Iterable[npt.ArrayLike],
    labels_pred: Iterable[npt.ArrayLike],
    threshold: Sequence[float] | np.ndarray,
    ignore_label: int | None = ...,
) -> list[Matching]: ...


def matching_dataset(
    labels_true: Iterable[npt.ArrayLike],
    labels_pred: Iterable[npt.ArrayLike],
    threshold: float | Sequence[float] | np.ndarray = 0.5,
    ignore_label: int | None = None,
) -> Matching | list[Matching]:
    """Match the instances of every image and pool the counts of all images.

    Args:
        labels_true: label maps as `matching` takes them; sizes may differ between images. A
            generator serves too.
        labels_pred: as many label maps, in the same order.
        threshold: the smallest IoU of a matched pair, in (0, 1], or a sequence of such.
        ignore_label: label of void pixels in `labels_true`, or None.

    Returns:
        A `Matching` with the sums over all images, or a list of them where `threshold` is a
        sequence.

    Raises:
        ValueError: if there is no image, the lengths differ, or `matching` refuses an image (the
            message then starts with the image's number, from 0).

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import matching_dataset
        >>> true = [np.array([[1, 1, 2]]), np.array([[5, 0]])]
        >>> pred = [np.array([[1, 1, 0]]), np.array([[3, 0]])]
        >>> m = matching_dataset(true, pred)
        >>> m.tp, m.fp, m.fn
        (2, 0, 1)
    """
    thresholds = check_thresholds(threshold)
    images = _match_images(labels_true, labels_pred, thresholds, ignore_label)
    pooled = [reduce(add, column) for column in zip(*images)]
    return pooled[0] if np.ndim(threshold) == 0 else pooled


def average_precision(
    labels_true: Iterable[npt.ArrayLike],
    labels_pred: Iterable[npt.ArrayLike],
    thresholds: Sequence[float] | np.ndarray = (0.5, 0.6, 0.7, 0.8, 0.9),
    ignore_label: int | None = None,
    by_image: bool = False,
) -> np.ndarray:
    """Average precision tp / (tp + fp + fn) of a data set, one value a threshold.

    Args:
        labels_true: label maps as `matching` takes them; sizes may differ between images.
        labels_pred: as many label maps, in the same order.
        thresholds: the IoU thresholds, each in (0, 1].
        ignore_label: label of void pixels in `labels_true`, or None.
        by_image: False pools the counts of all images, so that every instance weighs the same;
            True averages the figures of the images, so that every image weighs the same. The
            2018 Data Science Bowl ranked by the latter, averaged over the thresholds 0.5, 0.55,
            ..., 0.95.

    Returns:
        float64 array (len(thresholds),) of values in [0, 1].

    Raises:
        ValueError: as `matching_dataset` does.

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import average_precision
        >>> true = [np.array([[1, 1, 1, 0]]), np.array([[1, 0, 0, 2]])]
        >>> pred = [np.array([[1, 1, 0, 0]]), np.array([[1, 0, 0, 0]])]
        >>> average_precision(true, pred, thresholds=(0.5, 0.9)).round(3).tolist()
        [0.667, 0.25]
        >>> average_precision(true, pred, thresholds=(0.5, 0.9), by_image=True).tolist()
        [0.75, 0.25]
    """
    checked = check_thresholds(thresholds)
    images = _match_images(labels_true, labels_pred, checked, ignore_label)
    if by_image:
        return np.mean([[m.average_precision for m in image] for image in images], axis=0)
    return np.array([reduce(add, column).average_precision for column in zip(*images)])
