"""Matching of predicted instances with true ones, and what is counted from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import zip_longest
from operator import add
from typing import Any, overload

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from keras_rpe.arguments import check_integer, check_number

_MISSING: Any = object()


def image_by_image(function: Callable[[Any, Any], Any], **images: Any) -> Iterator[Any]:
    """Yield `function(a, b)` for each image of two named sequences; errors name the image."""
    for name, values in images.items():
        if not isinstance(values, Iterable):
            raise ValueError(
                f"`{name}` must hold one entry for each image. Received: {type(values).__name__}"
            )
    for number, pair in enumerate(zip_longest(*images.values(), fillvalue=_MISSING)):
        for name, value in zip(images, pair):
            if value is _MISSING:
                raise ValueError(
                    f"{' and '.join(f'`{n}`' for n in images)} must hold equally many images. "
                    f"Received: only {number} in `{name}`"
                )
        try:
            result = function(*pair)
        except ValueError as error:
            raise ValueError(f"Image {number}: {error}") from None
        yield result


@dataclass(frozen=True)
class Matching:
    """Counts of a one-to-one matching between true and predicted instances.

    A figure whose denominator is zero is 1.0 where there is neither a true nor a predicted
    instance (nothing to find and nothing claimed), else 0.0. Matchings of the same threshold
    add up with `+`, which pools their counts.

    Attributes:
        threshold: the smallest IoU of a matched pair, in (0, 1].
        tp: number of matched pairs.
        fp: number of predicted instances without a partner.
        fn: number of true instances without a partner.
        sum_iou: sum of the IoU of the matched pairs.

    Example:
        >>> from keras_rpe.metrics import Matching
        >>> m = Matching(threshold=0.5, tp=3, fp=1, fn=0, sum_iou=2.4)
        >>> m.precision, m.recall, m.average_precision
        (0.75, 1.0, 0.75)
    """

    threshold: float
    tp: int
    fp: int
    fn: int
    sum_iou: float

    @property
    def n_true(self) -> int:
        """Number of true instances, tp + fn."""
        return self.tp + self.fn

    @property
    def n_pred(self) -> int:
        """Number of predicted instances, tp + fp."""
        return self.tp + self.fp

    def _ratio(self, numerator: float, denominator: float) -> float:
        if denominator == 0:
            return float(self.n_true == 0 and self.n_pred == 0)
        return numerator / denominator

    @property
    def precision(self) -> float:
        """Fraction of the predicted instances that are matched, tp / (tp + fp)."""
        return self._ratio(self.tp, self.n_pred)

    @property
    def recall(self) -> float:
        """Fraction of the true instances that are matched, tp / (tp + fn)."""
        return self._ratio(self.tp, self.n_true)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 2 tp / (2 tp + fp + fn)."""
        return self._ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def average_precision(self) -> float:
        """The score of the 2018 Data Science Bowl at one threshold, tp / (tp + fp + fn)."""
        return self._ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def mean_matched_iou(self) -> float:
        """Mean IoU of the matched pairs."""
        return self._ratio(self.sum_iou, self.tp)

    @property
    def mean_true_iou(self) -> float:
        """Sum of the matched IoU by the number of true instances: a missed one counts as 0."""
        return self._ratio(self.sum_iou, self.n_true)

    @property
    def panoptic_quality(self) -> float:
        """Panoptic quality of one class (Kirillov et al., 2019), sum_iou / (tp + fp/2 + fn/2)."""
        return self._ratio(self.sum_iou, self.tp + self.fp / 2 + self.fn / 2)

    def __add__(self, other: Matching) -> Matching:
        if not isinstance(other, Matching):
            return NotImplemented
        if self.threshold != other.threshold:
            raise ValueError(
                "Only matchings of the same `threshold` add up. "
                f"Received: thresholds {self.threshold} and {other.threshold}"
            )
        names = ("tp", "fp", "fn", "sum_iou")
        return Matching(self.threshold, *(getattr(self, n) + getattr(other, n) for n in names))


def check_threshold(threshold: Any, interval: str = "(0, 1]") -> float:
    """Return an IoU threshold, rounded to six decimals, or raise `ValueError`."""
    # `np.arange(0.5, 1, 0.05)` holds 0.6000000000000001, which an IoU of exactly 3/5 is to reach.
    if isinstance(threshold, (float, np.floating)):
        threshold = round(float(threshold), 6)
    return check_number("threshold", threshold, interval)


def check_thresholds(threshold: Any) -> list[float]:
    """Return a threshold or a sequence of them as a list of floats, or raise `ValueError`."""
    thresholds = [check_threshold(value) for value in np.atleast_1d(threshold).tolist()]
    if not thresholds:
        raise ValueError("`threshold` must hold at least one number. Received: an empty sequence")
    return thresholds


def check_ignore_label(ignore_label: Any) -> int | None:
    """Return `ignore_label` as an int of 32 bits or None, or raise `ValueError`."""
    if ignore_label is None:
        return None
    return check_integer("ignore_label", ignore_label, -(2**31), 2**31 - 1)


def _check_label_map(name: str, labels: Any) -> np.ndarray:
    try:
        array = np.asarray(labels)
    except ValueError:  # rows of unequal length
        array = np.empty(0)
    if not np.issubdtype(array.dtype, np.integer) or array.ndim not in (2, 3):
        raise ValueError(
            f"`{name}` must be an integer array with 2 or 3 axes. "
            f"Received: dtype={array.dtype}, shape={array.shape}"
        )
    return array


def _check_non_negative(name: str, labels: np.ndarray) -> None:
    if labels.size and labels.min() < 0:
        raise ValueError(
            f"`{name}` must hold 0 (background) and positive ids. "
            f"Received: a smallest value of {labels.min()}"
        )


def _numbered(labels: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the ids 1..n in ascending order, background staying 0; return them and n."""
    ids, inverse = np.unique(labels, return_inverse=True)
    if ids.size and ids[0] == 0:
        return inverse, ids.size - 1
    return inverse + 1, ids.size


def _match(
    labels_true: Any, labels_pred: Any, thresholds: list[float], ignore_label: int | None
) -> list[Matching]:
    true = _check_label_map("labels_true", labels_true)
    pred = _check_label_map("labels_pred", labels_pred)
    if true.shape != pred.shape:
        raise ValueError(
            "`labels_true` and `labels_pred` must have the same shape. "
            f"Received: shapes {true.shape} and {pred.shape}"
        )
    _check_non_negative("labels_pred", pred)
    true, pred = true.ravel(), pred.ravel()
    if ignore_label is not None:
        counted = true != ignore_label
        true, pred = true[counted], pred[counted]
    _check_non_negative("labels_true", true)
    true, n_true = _numbered(true)
    pred, n_pred = _numbered(pred)
    area_true, area_pred = np.bincount(true), np.bincount(pred)
    shared = (true > 0) & (pred > 0)
    # One number a pair, so that only pairs which do overlap take memory.
    pairs = true[shared].astype(np.int64) * (n_pred + 1) + pred[shared]
    pairs, intersection = np.unique(pairs, return_counts=True)
    i, j = np.divmod(pairs, n_pred + 1)
    iou = intersection / (area_true[i] + area_pred[j] - intersection)
    matchings = []
    for threshold in thresholds:
        valid = iou >= threshold
        matched = _assigned(i[valid], j[valid], iou[valid])
        tp = len(matched)
        matchings.append(Matching(threshold, tp, n_pred - tp, n_true - tp, math.fsum(matched)))
    return matchings


def _assigned(i: np.ndarray, j: np.ndarray, iou: np.ndarray) -> list[float]:
    """The IoU of as many one-to-one pairs as possible, and of those the best overlapping."""
    single = (np.bincount(i)[i] == 1) & (np.bincount(j)[j] == 1)
    matched = list(iou[single])
    # Only instances with several candidates, which are few, need an assignment.
    rows, i = np.unique(i[~single], return_inverse=True)
    columns, j = np.unique(j[~single], return_inverse=True)
    if rows.size:
        table = np.zeros((rows.size, columns.size))
        table[i, j] = iou[~single]
        # One pair more outweighs any sum of IoU, which is at most min(table.shape).
        score = np.where(table > 0, table + min(table.shape) + 1, 0.0)
        chosen = table[linear_sum_assignment(score, maximize=True)]
        matched.extend(chosen[chosen > 0])
    return matched


@overload
def matching(
    labels_true: npt.ArrayLike,
    labels_pred: npt.ArrayLike,
    threshold: float = ...,
    ignore_label: int | None = ...,
) -> Matching: ...


@overload
def matching(
    labels_true: npt.ArrayLike,
    labels_pred: npt.ArrayLike,
    threshold: Sequence[float] | np.ndarray,
    ignore_label: int | None = ...,
) -> list[Matching]: ...


def matching(
    labels_true: npt.ArrayLike,
    labels_pred: npt.ArrayLike,
    threshold: float | Sequence[float] | np.ndarray = 0.5,
    ignore_label: int | None = None,
) -> Matching | list[Matching]:
    """Match the instances of two label maps one to one.

    A pair may match where its intersection over union (IoU) is at least `threshold`. Of all such
    matchings the one with most pairs counts, and among those the one with the largest sum of IoU
    (`scipy.optimize.linear_sum_assignment`). Memory grows with the pixels and the overlapping
    pairs, not with the ids.

    Args:
        labels_true: integer label map (H, W), or (D, H, W) for a volume; 0 is background, and the
            other ids are positive, of any size and in any order.
        labels_pred: integer label map of the same shape, with ids of the same kind.
        threshold: the smallest IoU of a matched pair, in (0, 1], or a sequence of such; taken
            with six decimals.
        ignore_label: pixels with this label in `labels_true` are void: both maps are read
            without them, so a prediction that lies entirely there counts nowhere.

    Returns:
        A `Matching`, or a list of them where `threshold` is a sequence. Two maps without any
        instance score 1.0.

    Raises:
        ValueError: if a map is not an integer array of 2 or 3 axes, holds a negative id, or the
            shapes differ; if a threshold lies outside (0, 1].

    Example:
        >>> import numpy as np
        >>> from keras_rpe.metrics import matching
        >>> true = np.array([[1, 1, 0, 7], [1, 1, 0, 7]])
        >>> pred = np.array([[4, 4, 0, 0], [4, 0, 9, 9]])
        >>> m = matching(true, pred, threshold=0.5)
        >>> m.tp, m.fp, m.fn, m.sum_iou
        (1, 1, 1, 0.75)
    """
    thresholds = check_thresholds(threshold)
    matchings = _match(labels_true, labels_pred, thresholds, check_ignore_label(ignore_label))
    return matchings[0] if np.ndim(threshold) == 0 else matchings


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
    ignore_label = check_ignore_label(ignore_label)

    def match(true: Any, pred: Any) -> list[Matching]:
        return _match(true, pred, thresholds, ignore_label)

    images = list(image_by_image(match, labels_true=labels_true, labels_pred=labels_pred))
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
        labels_true: label maps as `matching` takes them; sizes may differ between images. May
            be a generator.
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
